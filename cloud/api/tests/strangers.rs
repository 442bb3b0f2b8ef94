//! Rows of others do not exist.

mod world;

use serde_json::{Value, json};
use world::World;

#[tokio::test]
async fn a_stranger_sees_nothing_and_changes_nothing() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let device = world.device(fleet).await;
    let (ann, bob) = (&world.ann.token, &world.bob.token);
    let variable = json!({"device": device.id, "name": "SECRET", "value": "1"});
    let variable = world.make("device_environment_variable", ann, variable).await;
    let rows = [
        ("application", fleet),
        ("device", device.id),
        ("release", release.id),
        ("image", release.image),
        ("service", release.service),
        ("release_image", release.place),
        ("device_environment_variable", variable),
        ("organization", world.ann.organization),
    ];
    for (resource, id) in rows {
        let one = format!("/v7/{resource}({id})");
        assert_eq!(world.get(&one, ann).await.d().as_array().unwrap().len(), 1, "{one}");
        assert_eq!(world.get(&one, bob).await.d(), json!([]), "{one}");
        assert_eq!(world.get(&one, "").await.d(), json!([]), "{one}");
        let count = format!("/v7/{resource}/$count?$filter=id eq {id}");
        assert_eq!(world.get(&count, bob).await.d(), 0, "{count}");
        world.delete(&one, bob).await.expect(200);
        assert_eq!(world.get(&one, ann).await.d().as_array().unwrap().len(), 1, "{one}");
    }
    let rename = json!({"device_name": "taken"});
    world.patch(&format!("/v7/device({})", device.id), bob, &rename).await.expect(200);
    let name = world.get(&format!("/v7/device({})?$select=device_name", device.id), ann).await.d();
    assert_ne!(name[0]["device_name"], "taken");
    // Nor as the far end of one's own rows.
    let refusal = async |device: i64| {
        let row = json!({"device": device, "name": "A", "value": "1"});
        let answer = world.post("/v7/device_environment_variable", bob, &row).await.expect(400);
        answer.text.replace(&device.to_string(), "N")
    };
    assert_eq!(refusal(device.id).await, refusal(999_999).await, "there, or not there at all");
    let garden = world.fleet_of(&world.bob, "garden").await;
    let steal = json!({"should_be_running__release": release.id});
    let answer = world.patch(&format!("/v7/application({garden})"), bob, &steal).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let row = json!({"app_name": "other", "organization": world.ann.organization,
        "is_of__class": "fleet", "is_for__device_type": 1});
    world.post("/v7/application", bob, &row).await.expect(400);
    let answer = world.get("/v7/application?$select=slug", bob).await.d();
    assert_eq!(answer, json!([{"slug": "bob/garden"}]));
}

#[tokio::test]
async fn a_device_sees_its_own_and_what_it_runs() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let (device, other) = (world.device(fleet).await, world.device(fleet).await);
    let ids = |rows: Value| -> Vec<i64> {
        rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    let read = async |resource: &str| {
        ids(world.get(&format!("/v7/{resource}?$select=id"), &device.key).await.d())
    };
    assert_eq!(read("device").await, [device.id]);
    assert_eq!(read("application").await, [fleet]);
    assert_eq!(read("release").await, [release.id]);
    assert_eq!(read("image").await, [release.image]);
    assert_eq!(read("user").await, [0; 0]);
    let rename = json!({"device_name": "roof"});
    world.patch(&format!("/v7/device({})", device.id), &device.key, &rename).await.expect(200);
    world.patch(&format!("/v7/device({})", other.id), &device.key, &rename).await.expect(200);
    let names = world.get("/v7/device?$select=id&$filter=device_name eq 'roof'", &world.ann.token);
    assert_eq!(ids(names.await.d()), [device.id]);
    let variable = |device: i64| json!({"device": device, "name": "BALENA_X", "value": "1"});
    world.make("device_config_variable", &device.key, variable(device.id)).await;
    let answer = world.post("/v7/device_config_variable", &device.key, &variable(other.id)).await;
    answer.expect(400);
    let bad = json!({"application": fleet, "name": "A", "value": "1"});
    world.post("/v7/application_environment_variable", &device.key, &bad).await.expect(401);
    world.delete(&format!("/v7/application({fleet})"), &device.key).await.expect(401);
    assert_eq!(read("application").await, [fleet]);
}

#[tokio::test]
async fn a_device_does_not_take_itself_away_from_its_owner() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let system = world.supervisor().await;
    let ann = &world.ann.token;
    let path = format!("/v7/device({})", device.id);
    let release = world.release(system, "5ys").await;
    let managed = json!({"should_be_managed_by__release": release.id});
    world.patch(&path, ann, &managed).await.expect(200);
    for body in [
        json!({"belongs_to__application": null}),
        // The device sees it, for it runs a release of it.
        json!({"belongs_to__application": system}),
        json!({"uuid": "0123456789abcdef0123456789abcdef"}),
    ] {
        world.patch(&path, &device.key, &body).await.expect(401);
        let one = format!("{path}?$select=uuid,belongs_to__application");
        let row = world.get(&one, ann).await.d()[0].clone();
        assert_eq!(row["uuid"], device.uuid.as_str(), "{body}");
        assert_eq!(row["belongs_to__application"]["__id"], fleet, "{body}");
    }
    let same = json!({"uuid": device.uuid, "belongs_to__application": fleet, "note": "n"});
    world.patch(&path, &device.key, &same).await.expect(200);
}

async fn role(world: &World, name: &str) -> Value {
    let query = format!("/v7/application_membership_role(name='{name}')?$select=id");
    world.get(&query, &world.ann.token).await.d()[0]["id"].clone()
}

/// Makes Bob an observer of Ann's fleet; gives the path of the membership.
async fn observed(world: &World, fleet: i64) -> String {
    let ann = &world.ann.token;
    // Ann sees who is in an organization with her, and can then name him.
    let shared = world.make("organization", ann, json!({"name": "Shared"})).await;
    let row = json!({"user": world.bob.user, "is_member_of__organization": shared});
    let root = minke_cloud_db::Caller::root();
    let row = row.as_object().unwrap();
    world.api.db().post(&root, "organization_membership", row).await.unwrap();
    let membership = json!({"user": world.bob.user, "is_member_of__application": fleet,
        "application_membership_role": role(world, "observer").await});
    let membership = world.make("user_application_membership", ann, membership).await;
    format!("/v7/user_application_membership({membership})")
}

#[tokio::test]
async fn an_observer_gets_no_key_and_no_way_into_a_device() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let (ann, bob) = (&world.ann.token, &world.bob.token);
    let membership = observed(&world, fleet).await;
    let key = json!({"title": "b", "public_key": "ssh-ed25519 AAAA bob", "user": world.bob.user});
    world.make("user_public_key", bob, key).await;

    let tried = async |status: u16| {
        for path in [
            format!("/api-key/application/{fleet}/provisioning"),
            format!("/api-key/device/{}/device-key", device.id),
        ] {
            world.post(&path, bob, &json!({})).await.expect(status);
        }
        let way_in = json!({"action": "tunnel-22222"});
        let path = format!("/v7/device({})/canAccess", device.id);
        world.post(&path, bob, &way_in).await.expect(status);
        world.get(&format!("/access/v1/hostos/{}", device.uuid), bob).await.expect(status);
        let keys = world.get("/auth/v1/public-keys/bob", &device.key).await.expect(200).text;
        assert_eq!(keys, if status == 200 { "ssh-ed25519 AAAA bob\n" } else { "" });
    };
    let names = world.get("/v7/device?$select=id", bob).await.d();
    assert_eq!(names, json!([{"id": device.id}]));
    tried(401).await;
    let better = json!({"application_membership_role": role(&world, "developer").await});
    world.patch(&membership, bob, &better).await.expect(200);
    tried(401).await;
    world.patch(&membership, ann, &better).await.expect(200);
    tried(200).await;
}

#[tokio::test]
async fn an_operator_registers_devices_and_makes_no_key_that_registers_more() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let (ann, bob) = (&world.ann.token, &world.bob.token);
    let membership = observed(&world, fleet).await;
    let provisioning = format!("/api-key/application/{fleet}/provisioning");
    for (name, registers, makes_keys) in
        [("observer", 401, 401), ("operator", 201, 401), ("developer", 201, 200)]
    {
        let role = json!({"application_membership_role": role(&world, name).await});
        world.patch(&membership, ann, &role).await.expect(200);
        let device = json!({"application": fleet, "device_type": "qemux86-64",
            "uuid": minke_cloud_api::random_hex()});
        let answer = world.post("/device/register", bob, &device).await;
        assert_eq!(answer.status, registers, "{name}: {}", answer.text);
        for path in [provisioning.as_str(), "/download-config"] {
            let answer = world.post(path, bob, &json!({"appId": fleet})).await;
            assert_eq!(answer.status, makes_keys, "{name} {path}: {}", answer.text);
        }
    }
    assert_eq!(world.get("/v7/device/$count", ann).await.d(), 2);
}

#[tokio::test]
async fn the_key_of_a_fleet_reads_that_fleet_and_not_who_has_access_to_it() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let garden = world.fleet_of(&world.bob, "garden").await;
    let public = json!({"is_public": true});
    world.patch(&format!("/v7/application({garden})"), &world.bob.token, &public).await.expect(200);
    let key = world.provisioning_key(fleet).await;
    let device = world.device(fleet).await;
    for key in [&key, &device.key] {
        let all = world.get("/v7/application?$select=id", key).await.d();
        assert_eq!(all, json!([{"id": fleet}]));
        let path = "/v7/application?$select=id&$filter=is_directly_accessible_by__user/any()";
        assert_eq!(world.get(path, key).await.d(), json!([]));
    }
}

#[tokio::test]
async fn a_registry_token_allows_what_its_caller_may_do() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let device = world.device(fleet).await;
    let place = release.location.split_once('/').unwrap().1;
    let other = "v2/00000000000000000000000000000000";
    let path = format!(
        "/auth/v1/token?service=r&scope[0]=repository:{place}:pull,push&scope[1]=repository:{other}:pull,push"
    );
    let granted = |answer: world::Answer| {
        let token = answer.expect(200).json()["token"].as_str().unwrap().to_owned();
        token.split_once('|').unwrap().1.to_owned()
    };
    assert_eq!(granted(world.get(&path, &world.ann.token).await), format!("{place}:pull,push:"));
    assert_eq!(granted(world.get(&path, &device.key).await), format!("{place}:pull:"));
    assert_eq!(granted(world.get(&path, &world.bob.token).await), "");
    assert_eq!(granted(world.get(&path, "").await), "");
    world.get(&path, "no such key").await.expect(401);

    let basic = async |name: &str, password: &str| {
        let request = world.http.get(format!("{}{path}", world.url));
        world::send(request.basic_auth(name, Some(password))).await
    };
    let name = format!("d_{}", device.uuid);
    assert_eq!(granted(basic(&name, &device.key).await), format!("{place}:pull:"));
    assert_eq!(granted(basic("ann", &world.ann.token).await), format!("{place}:pull,push:"));
    basic(&name, &world.ann.token).await.expect(401);
    basic("d_ffff", &device.key).await.expect(401);
    basic("ann", world::PASSWORD).await.expect(401);

    let alias = "/auth/v1/token?scope=repository:ann/weather/latest:pull,push";
    let expected = format!("ann/weather/latest:pull:{place}");
    assert_eq!(granted(world.get(alias, &world.ann.token).await), expected);
    assert_eq!(granted(world.get(alias, &world.bob.token).await), "");
}

#[tokio::test]
async fn a_place_is_found_with_any_host_before_it() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let place = release.location.split_once('/').unwrap().1;
    for text in [release.location.clone(), place.to_owned(), format!("old.example/{place}")] {
        let query = format!(
            "/v7/image?$select=id,is_stored_at__image_location&$filter=is_stored_at__image_location eq '{text}'"
        );
        let rows = world.get(&query, &world.ann.token).await.d();
        assert_eq!(rows[0]["is_stored_at__image_location"], release.location, "{text}");
    }
    let access = format!("/v7/image({})/canAccess", release.image);
    let may = json!({"action": {"or": ["tunnel-any", "update"]}});
    let answer = world.post(&access, &world.ann.token, &may).await.expect(200);
    assert_eq!(answer.json(), json!({"d": [{"id": release.image}]}));
    world.post(&access, &world.bob.token, &may).await.expect(401);
    world.post(&access, &world.ann.token, &json!({"action": "fly"})).await.expect(400);
}
