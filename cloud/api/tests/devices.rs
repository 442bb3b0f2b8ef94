//! Devices: registering, being told what to run, saying what they run.

mod world;

use reqwest::Method;
use serde_json::{Value, json};
use world::{World, send};

#[tokio::test]
async fn a_device_registers_once_and_may_exchange_its_key_again() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let key = world.provisioning_key(fleet).await;
    let uuid = minke_cloud_api::random_hex();
    let body = json!({
        "application": fleet, "device_type": "qemux86-64", "uuid": uuid, "api_key": "k".repeat(32),
        "supervisor_version": "19.0.5", "os_version": "Minke 1", "os_variant": "prod",
        "mac_address": "AA:BB:CC:DD:EE:FF",
    });
    let made = world.post("/device/register", &key, &body).await.expect(201).json();
    assert_eq!((&made["uuid"], &made["api_key"]), (&json!(uuid), &json!("k".repeat(32))));
    let device_key = "k".repeat(32);
    let me = world.get("/actor/v1/whoami", &device_key).await.expect(200).json();
    assert_eq!((&me["actorType"], &me["uuid"]), (&json!("device"), &json!(uuid)));

    world.post("/device/register", &key, &body).await.expect(409);
    let row = format!("/v7/device?$select=id&$filter=uuid eq '{uuid}'");
    let id = world.get(&row, &key).await.d()[0]["id"].as_i64().unwrap();
    assert_eq!(made["id"], id);
    let path = format!("/api-key/device/{id}/device-key");
    let new = json!({"apiKey": "n".repeat(32)});
    for _ in 0..2 {
        let answer = world.post(&path, &key, &new).await.expect(200);
        assert_eq!(answer.json(), "n".repeat(32));
    }
    assert_eq!(world.get(&row, &"n".repeat(32)).await.d()[0]["id"], id);
    assert_eq!(world.get(&row, &device_key).await.d()[0]["id"], id);

    let shown =
        format!("/v7/device({id})?$select=os_version,supervisor_version,mac_address,device_name");
    let shown = world.get(&shown, &world.ann.token).await.d();
    assert_eq!(shown[0]["supervisor_version"], "19.0.5");
    assert!(shown[0]["device_name"].as_str().unwrap().contains('-'));
}

#[tokio::test]
async fn a_device_cannot_register_where_its_key_is_not_from() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let other = world.fleet_of(&world.bob, "garden").await;
    let key = world.provisioning_key(fleet).await;
    let uuid = minke_cloud_api::random_hex();
    let body = |fleet: i64, kind: &str, uuid: &str| json!({"application": fleet, "device_type": kind, "uuid": uuid});
    world.post("/device/register", &key, &body(other, "qemux86-64", &uuid)).await.expect(401);
    world.post("/device/register", "", &body(fleet, "qemux86-64", &uuid)).await.expect(401);
    let bob = &world.bob.token;
    world.post("/device/register", bob, &body(fleet, "qemux86-64", &uuid)).await.expect(401);
    world.post("/device/register", &key, &body(fleet, "no-such-type", &uuid)).await.expect(400);
    world.post("/device/register", &key, &body(fleet, "qemux86-64", "short")).await.expect(400);
    let arm = world.post("/device/register", &key, &body(fleet, "raspberrypi3", &uuid)).await;
    let arm = arm.expect(400).text;
    assert!(arm.contains("amd64"), "the message names what the fleet needs: {arm}");
    let device = world.device(fleet).await;
    let path = format!("/api-key/device/{}/device-key", device.id);
    world.post(&path, bob, &json!({})).await.expect(401);
    world.post(&path, &device.key, &json!({})).await.expect(401);
    world.post(&path, &key, &json!({"apiKey": "short"})).await.expect(400);
    let stolen = world.device(fleet).await.key;
    world.post(&path, &key, &json!({"apiKey": stolen})).await.expect(400);
    assert_eq!(world.get("/v7/device/$count", &world.ann.token).await.d(), 2);
}

#[tokio::test]
async fn a_device_is_told_what_to_run_and_then_that_nothing_changed() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let device = world.device(fleet).await;
    let token = &world.ann.token;
    let variable = json!({"device": device.id, "name": "PLACE", "value": "roof"});
    world.make("device_environment_variable", token, variable).await;
    let path = format!("/device/v3/{}/state", device.uuid);
    let answer = world.get(&path, &device.key).await.expect(200);
    let state = &answer.json()[&device.uuid];
    let app = state["apps"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&app["id"], &app["class"]), (&json!(fleet), &json!("fleet")));
    let service = &app["releases"]["c0ffee"]["services"]["web"];
    assert_eq!(service["image"], format!("{}@sha256:{:064x}", release.location, release.id));
    assert!(release.location.starts_with(world.url.trim_start_matches("http://")));
    assert_eq!(service["environment"], json!({"PLACE": "roof"}));
    assert_eq!(service["composition"], json!({"tty": true}));

    let tag = answer.etag.unwrap();
    let again = world.request(Method::GET, &path, &device.key).header("if-none-match", &tag);
    let again = send(again).await.expect(304);
    assert_eq!((again.etag.as_deref(), again.text.as_str()), (Some(tag.as_str()), ""));
    let row = format!("/v7/device({})?$select=api_heartbeat_state", device.id);
    assert_eq!(world.get(&row, token).await.d()[0]["api_heartbeat_state"], "online");

    world.get(&path, token).await.expect(200);
    let older = world.get(&format!("/device/v2/{}/state", device.uuid), &device.key).await;
    let older = older.expect(200).json();
    assert_eq!(older["local"]["apps"][fleet.to_string()]["commit"], "c0ffee");
    let stranger = world.device(fleet).await;
    for key in [&stranger.key, &world.bob.token, ""] {
        world.get(&path, key).await.expect(401);
    }
    world.get("/device/v3/ffff/state", &device.key).await.expect(401);
    world.get("/device/v3/'%20or%20true/state", &device.key).await.expect(401);
}

#[tokio::test]
async fn what_a_fleet_would_be_told_is_told_per_fleet_and_release() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    world.release(fleet, "aaaa").await;
    world.release(fleet, "bbbb").await;
    let token = &world.ann.token;
    let uuid = world.get(&format!("/v7/application({fleet})?$select=uuid"), token).await.d();
    let uuid = uuid[0]["uuid"].as_str().unwrap().to_owned();
    let commits = |answer: Value| -> Vec<String> {
        let releases = answer[&uuid]["apps"][&uuid]["releases"].as_object().unwrap().clone();
        releases.keys().cloned().collect()
    };
    let path = format!("/device/v3/fleet/{uuid}/state/?releaseUuid=");
    assert_eq!(commits(world.get(&path, token).await.expect(200).json()), ["bbbb"]);
    let path = format!("/device/v3/fleet/{uuid}/state?releaseUuid=aaaa");
    assert_eq!(commits(world.get(&path, token).await.expect(200).json()), ["aaaa"]);
    world.get(&format!("{path}a"), token).await.expect(404);
    world.get(&path, &world.bob.token).await.expect(401);
}

#[tokio::test]
async fn a_report_is_kept_whole_and_gone_images_do_not_spoil_it() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let release = world.release(fleet, "c0ffee").await;
    let device = world.device(fleet).await;
    let token = &world.ann.token;
    let app = world.get(&format!("/v7/application({fleet})?$select=uuid"), token).await.d();
    let app = app[0]["uuid"].as_str().unwrap();
    let report = |status: &str, progress: Value| {
        json!({&device.uuid: {
            "status": "Idle", "os_version": "x".repeat(1000), "api_port": 48484, "api_secret": "s3cret",
            "ip_address": "10.0.0.2", "cpu_usage": 12, "is_undervolted": false,
            "apps": {app: {"release_uuid": "c0ffee", "releases": {
                "c0ffee": {"update_status": "done", "services": {
                    "web": {"image": release.location, "status": status, "download_progress": progress},
                    "gone": {"image": "h/v2/00000000000000000000000000000000", "status": "Running"},
                }},
                "dead": {"update_status": "done", "services": {}},
            }}, "unknownapp": {"releases": {}}},
        }})
    };
    let state = "/device/v3/state";
    world.patch(state, &device.key, &report("Downloading", json!(41))).await.expect(200);
    let select = "$select=status,os_version,ip_address,cpu_usage,update_status&$expand=is_running__release($select=commit),image_install($select=status,download_progress;$expand=installs__image($select=id))";
    let query = format!("/v7/device({})?{select}", device.id);
    let row = world.get(&query, token).await.d()[0].clone();
    assert_eq!(row["is_running__release"][0]["commit"], "c0ffee");
    assert_eq!((&row["status"], &row["update_status"]), (&json!("Idle"), &json!("done")));
    assert_eq!(row["os_version"].as_str().unwrap().len(), 255);
    let installs = row["image_install"].as_array().unwrap();
    assert_eq!(installs.len(), 1);
    assert_eq!(installs[0]["download_progress"], 41);
    assert_eq!(installs[0]["installs__image"][0]["id"], release.image);

    world.patch(state, &device.key, &report("Running", Value::Null)).await.expect(200);
    let row = world.get(&query, token).await.d()[0].clone();
    assert_eq!(row["image_install"][0]["status"], "Running");
    let empty = json!({&device.uuid: {"apps": {app: {"releases": {}}}}});
    world.patch(state, &device.key, &empty).await.expect(200);
    let row = world.get(&query, token).await.d()[0].clone();
    assert_eq!(row["image_install"][0]["status"], "deleted");

    let text = world.get(&format!("/v7/device({})", device.id), token).await.text;
    assert!(!text.contains("s3cret"), "the device API's secret is nobody's to read");
}

#[tokio::test]
async fn only_the_device_itself_reports() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let (device, other) = (world.device(fleet).await, world.device(fleet).await);
    let report = json!({&device.uuid: {"status": "Idle"}});
    for key in [&other.key, &world.ann.token, &world.bob.token, ""] {
        world.patch("/device/v3/state", key, &report).await.expect(401);
    }
    let path = format!("/device/v2/{}/state", device.uuid);
    world.patch(&path, &other.key, &json!({"local": {"status": "Idle"}})).await.expect(401);
    world.patch(&path, &device.key, &json!({"local": {"status": "Idle"}})).await.expect(200);
    for bad in [json!([]), json!({&device.uuid: 5}), json!({&device.uuid: {"apps": []}})] {
        world.patch("/device/v3/state", &device.key, &bad).await.expect(400);
    }
    let many: Value =
        (0..20).map(|n| (format!("{n:032x}"), json!({}))).collect::<serde_json::Map<_, _>>().into();
    let answer = world.patch("/device/v3/state", &device.key, &many).await.expect(400);
    assert!(answer.text.contains("16"), "{}", answer.text);
    let large = json!({&device.uuid: {"status": "x".repeat(2 << 20)}});
    world.patch("/device/v3/state", &device.key, &large).await.expect(413);
}

#[tokio::test]
async fn a_device_tags_itself() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let tags = |tags: Value| json!({&device.uuid: tags});
    let set = tags(json!({"room": "roof", "it's": "1"}));
    world.patch("/device/v3/tags", &device.key, &set).await.expect(200);
    let change = tags(json!({"room": "cellar", "it's": null}));
    world.patch("/device/v3/tags", &device.key, &change).await.expect(200);
    let query = format!("/v7/device_tag?$select=tag_key,value&$filter=device eq {}", device.id);
    let rows = world.get(&query, &world.ann.token).await.d();
    assert_eq!(rows, json!([{"tag_key": "room", "value": "cellar"}]));
    world.patch("/device/v3/tags", &world.bob.token, &set).await.expect(401);
    world.patch("/device/v3/tags", &device.key, &tags(json!({"a": 5}))).await.expect(400);
}
