//! Target states: what strangers see of a public fleet's, and what a device's asking shows of it.

mod world;

use minke_cloud_db::Caller;
use serde_json::{Value, json};
use world::World;

#[tokio::test]
async fn a_stranger_is_told_no_variables_of_a_public_fleet() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let token = &world.ann.token;
    let public = json!({"is_public": true});
    world.patch(&format!("/v7/application({fleet})"), token, &public).await.expect(200);
    for (resource, field, id, name) in [
        ("application_environment_variable", "application", fleet, "APP"),
        ("application_config_variable", "application", fleet, "BALENA_APP"),
        ("service_environment_variable", "service", release.service, "SERVICE"),
        ("image_environment_variable", "release_image", release.place, "IMAGE"),
    ] {
        let row = json!({field: id, "name": name, "value": "s3cret"});
        world.make(resource, token, row).await;
    }
    let uuid = world.get(&format!("/v7/application({fleet})?$select=uuid"), token).await.d();
    let uuid = uuid[0]["uuid"].as_str().unwrap().to_owned();
    for query in ["", "?releaseUuid=c0ffee"] {
        let path = format!("/device/v3/fleet/{uuid}/state{query}");
        let own = world.get(&path, token).await.expect(200);
        assert_eq!(own.text.matches("s3cret").count(), 4, "{}", own.text);
        let foreign = world.get(&path, &world.bob.token).await.expect(200);
        assert!(!foreign.text.contains("s3cret"), "{}", foreign.text);
        let service = |state: &Value| {
            state[&uuid]["apps"][&uuid]["releases"]["c0ffee"]["services"]["web"]["image"].clone()
        };
        assert_eq!(service(&foreign.json()), service(&own.json()), "what is public is shown");
        assert_ne!(service(&own.json()), Value::Null);
    }
}

#[tokio::test]
async fn a_device_counts_as_there_until_it_should_have_asked_again() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let token = &world.ann.token;
    let state = format!("/device/v3/{}/state", device.uuid);
    let row = format!("device({})?$select=heartbeat_expires_at", device.id);
    // How long it was heard for, to the minute.
    let minutes = async || {
        let before = jiff::Timestamp::now().as_millisecond();
        world.get(&state, &device.key).await.expect(200);
        let after = jiff::Timestamp::now().as_millisecond();
        let row = world.api.row(&Caller::root(), &row).await.unwrap().unwrap();
        let until: jiff::Timestamp = row["heartbeat_expires_at"].as_str().unwrap().parse().unwrap();
        let until = until.as_millisecond();
        // The server asked its clock between the two.
        ((until - after) as f64 / 60_000.0, (until - before) as f64 / 60_000.0)
    };
    let holds = |(least, most): (f64, f64), wanted: f64| least <= wanted && wanted <= most;
    let told = minutes().await;
    assert!(holds(told, 22.5), "{told:?}: one and a half of a quarter of an hour");
    let name = "RESIN_SUPERVISOR_POLL_INTERVAL";
    let of_fleet = json!({"application": fleet, "name": name, "value": "3600000"});
    world.make("application_config_variable", token, of_fleet).await;
    let told = minutes().await;
    assert!(holds(told, 90.0), "{told:?}: the fleet's");
    let own = json!({"device": device.id, "name": name, "value": "120000"});
    world.make("device_config_variable", token, own).await;
    let told = minutes().await;
    assert!(holds(told, 3.0), "{told:?}: the device's own");
}
