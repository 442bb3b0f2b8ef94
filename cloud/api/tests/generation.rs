//! A changed target state implies a changed ETag, whatever row changed it.

mod world;

use serde_json::{Value, json};
use world::{Device, World};

/// The states of some devices, as they are answered.
async fn states(world: &World, devices: &[Device]) -> Vec<(Value, String)> {
    let mut states = Vec::new();
    for device in devices {
        let path = format!("/device/v3/{}/state", device.uuid);
        let answer = world.get(&path, &device.key).await.expect(200);
        states.push((answer.json(), answer.etag.unwrap()));
    }
    states
}

struct Changes {
    world: World,
    devices: Vec<Device>,
    before: Vec<(Value, String)>,
}

impl Changes {
    /// After a change: where the body moved the tag moved, and the bodies of exactly the devices that
    /// are `meant` moved.
    async fn check(&mut self, what: &str, meant: &[usize]) {
        let after = states(&self.world, &self.devices).await;
        for (at, (old, new)) in self.before.iter().zip(&after).enumerate() {
            assert_eq!(old.0 != new.0, meant.contains(&at), "{what}: the body of device {at}");
            assert!(old.0 == new.0 || old.1 != new.1, "{what}: device {at} keeps its tag");
        }
        self.before = after;
    }

    async fn post(&mut self, resource: &str, row: Value, meant: &[usize]) -> i64 {
        let id = self.world.make(resource, &self.world.ann.token, row).await;
        self.check(&format!("POST {resource}"), meant).await;
        id
    }

    async fn patch(&mut self, target: &str, row: Value, meant: &[usize]) {
        let token = self.world.ann.token.clone();
        self.world.patch(&format!("/v7/{target}"), &token, &row).await.expect(200);
        self.check(&format!("PATCH {target} {row}"), meant).await;
    }

    async fn delete(&mut self, target: &str, meant: &[usize]) {
        let token = self.world.ann.token.clone();
        self.world.delete(&format!("/v7/{target}"), &token).await.expect(200);
        self.check(&format!("DELETE {target}"), meant).await;
    }

    /// Makes, changes and deletes a row.
    async fn life(&mut self, resource: &str, row: Value, change: Value, meant: &[usize]) {
        let id = self.post(resource, row, meant).await;
        self.patch(&format!("{resource}({id})"), change, meant).await;
        self.delete(&format!("{resource}({id})"), meant).await;
    }
}

const ALL: &[usize] = &[0, 1];

#[tokio::test]
async fn every_writable_resource_that_a_state_shows_moves_the_tag() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let other = world.fleet("garden").await;
    let first = world.release(fleet, "aaaa").await;
    // Of the fleet, of the fleet, of another.
    let devices =
        vec![world.device(fleet).await, world.device(fleet).await, world.device(other).await];
    let before = states(&world, &devices).await;
    let device = devices[0].id;
    let mut changes = Changes { world, devices, before };

    let named = |field: &str, id: i64, name: &str| json!({field: id, "name": name, "value": "1"});
    let value = json!({"value": "2"});
    for (resource, field, id, name, meant) in [
        ("device_environment_variable", "device", device, "A", &[0][..]),
        ("device_config_variable", "device", device, "BALENA_A", &[0]),
        ("application_environment_variable", "application", fleet, "A", ALL),
        ("application_config_variable", "application", fleet, "BALENA_A", ALL),
        ("service_environment_variable", "service", first.service, "A", ALL),
        ("image_environment_variable", "release_image", first.place, "A", ALL),
    ] {
        changes.life(resource, named(field, id, name), value.clone(), meant).await;
    }
    for (resource, field, id) in
        [("service_label", "service", first.service), ("image_label", "release_image", first.place)]
    {
        let row = json!({field: id, "label_name": "a.b", "value": "1"});
        changes.life(resource, row, value.clone(), ALL).await;
    }
    let install = format!("/v7/service_install?$select=id&$filter=device eq {device}");
    let install = changes.world.get(&install, &changes.world.ann.token).await.d();
    let row = named("service_install", install[0]["id"].as_i64().unwrap(), "A");
    changes.life("device_service_environment_variable", row, value, &[0]).await;

    changes.patch(&format!("device({device})"), json!({"device_name": "other"}), &[0]).await;
    changes.patch(&format!("application({fleet})"), json!({"app_name": "weather2"}), ALL).await;
    changes
        .patch(&format!("image({})", first.image), json!({"content_hash": "sha256:ff"}), ALL)
        .await;
    let contract = json!({"contract": {"type": "sw.container"}});
    changes.patch(&format!("image({})", first.image), contract, ALL).await;
    let composition = json!({"composition": {"services": {"web": {"tty": false}}}});
    changes.patch(&format!("release({})", first.id), composition, ALL).await;
}

#[tokio::test]
async fn whatever_moves_the_target_moves_the_tag() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let other = world.fleet("garden").await;
    let first = world.release(fleet, "aaaa").await;
    let devices =
        vec![world.device(fleet).await, world.device(fleet).await, world.device(other).await];
    let before = states(&world, &devices).await;
    let device = devices[0].id;
    let mut changes = Changes { world, devices, before };

    let second = changes.world.release(fleet, "bbbb").await;
    changes.check("a new final release", ALL).await;
    let pin = |release: Option<i64>| json!({"is_pinned_on__release": release});
    changes.patch(&format!("device({device})"), pin(Some(first.id)), &[0]).await;
    changes.patch(&format!("device({device})"), pin(None), &[0]).await;
    let invalid = json!({"is_invalidated": true});
    changes.patch(&format!("release({})", second.id), invalid, ALL).await;
    let to = |release: i64| json!({"should_be_running__release": release, "should_track_latest_release": false});
    changes.patch(&format!("application({fleet})"), to(second.id), ALL).await;
    changes.patch(&format!("application({fleet})"), to(first.id), ALL).await;
    let place = json!({"image": second.image, "is_part_of__release": first.id});
    let place = changes.post("release_image", place, ALL).await;
    changes.delete(&format!("release_image({place})"), ALL).await;
    changes
        .patch(&format!("device({device})"), json!({"belongs_to__application": other}), &[0])
        .await;
    changes
        .patch(&format!("device({device})"), json!({"belongs_to__application": fleet}), &[0])
        .await;

    let supervisor = changes.world.supervisor().await;
    let system = changes.world.release(supervisor, "5151").await;
    changes.check("a release of a fleet without devices", &[]).await;
    let manage = json!({"should_be_managed_by__release": system.id});
    changes.patch(&format!("device({device})"), manage, &[0]).await;
    let row = json!({"application": supervisor, "name": "A", "value": "1"});
    changes.post("application_environment_variable", row, &[0]).await;
    let label = json!({"release_image": system.place, "label_name": "a", "value": "1"});
    changes.post("image_label", label, &[0]).await;
    let none = json!({"should_be_managed_by__release": null});
    changes.patch(&format!("device({device})"), none, &[0]).await;
}

#[tokio::test]
async fn what_a_state_does_not_show_keeps_the_tag() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "aaaa").await;
    let device = world.device(fleet).await;
    let devices = [device];
    let before = states(&world, &devices).await;
    let report =
        json!({&devices[0].uuid: {"status": "Idle", "cpu_usage": 5, "ip_address": "10.0.0.2"}});
    world.patch("/device/v3/state", &devices[0].key, &report).await.expect(200);
    world.api.device_connected(&devices[0].uuid, true).await.unwrap();
    let tag = json!({"device": devices[0].id, "tag_key": "a", "value": "1"});
    world.make("device_tag", &world.ann.token, tag).await;
    let log = json!({"build_log": "done"});
    world.patch(&format!("/v7/release({})", release.id), &world.ann.token, &log).await.expect(200);
    assert_eq!(states(&world, &devices).await[0].0, before[0].0);
    // Heartbeats, reports and connections come by the thousand: none may make a device fetch anew.
    let report = json!({&devices[0].uuid: {"status": "Busy"}});
    let tag = states(&world, &devices).await[0].1.clone();
    world.patch("/device/v3/state", &devices[0].key, &report).await.expect(200);
    world.api.device_connected(&devices[0].uuid, false).await.unwrap();
    assert_eq!(states(&world, &devices).await[0].1, tag);
}
