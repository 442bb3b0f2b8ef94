//! What reaches devices: being told to look, and calls of their own API.

mod world;

use std::collections::BTreeSet;

use axum::extract::{Query, Request};
use axum::routing::{get, post};
use serde_json::{Value, json};
use world::{World, set, wait_for};

#[tokio::test]
async fn devices_are_told_of_what_changes_for_them_and_of_nothing_else() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let other = world.fleet("garden").await;
    let (one, two) = (world.device(fleet).await, world.device(fleet).await);
    let apart = world.device(other).await;
    let supervisor = world.supervisor().await;
    let system = world.release(supervisor, "5151").await;
    // A change of the marker after each of the others: when it is told, they were too.
    let marker = world.device(world.fleet("marker").await).await;
    let count = std::cell::Cell::new(0);
    let told_since = async || {
        count.set(count.get() + 1);
        let name = json!({"device_name": format!("marker {}", count.get())});
        world.tunnels.told.lock().unwrap().retain(|uuid| *uuid != marker.uuid);
        let path = format!("/v7/device({})", marker.id);
        world.patch(&path, &world.ann.token, &name).await.expect(200);
        wait_for("the marker to be told", async || {
            world.tunnels.told.lock().unwrap().contains(&marker.uuid)
        })
        .await;
        let mut told: BTreeSet<String> =
            std::mem::take(&mut *world.tunnels.told.lock().unwrap()).into_iter().collect();
        told.remove(&marker.uuid);
        told
    };
    let manage = json!({"should_be_managed_by__release": system.id});
    let path = format!("/v7/device({})", apart.id);
    world.patch(&path, &world.ann.token, &manage).await.expect(200);
    // The marker's own registration may be told after its first change.
    told_since().await;
    told_since().await;

    world.release(fleet, "c0ffee").await;
    assert_eq!(told_since().await, set(&[&one.uuid, &two.uuid]));
    let variable = json!({"device": one.id, "name": "A", "value": "1"});
    world.make("device_environment_variable", &world.ann.token, variable).await;
    assert_eq!(told_since().await, set(&[&one.uuid]));
    let variable = json!({"application": supervisor, "name": "A", "value": "1"});
    world.make("application_environment_variable", &world.ann.token, variable).await;
    assert_eq!(told_since().await, set(&[&apart.uuid]));
    let report = json!({&one.uuid: {"status": "Idle"}});
    world.patch("/device/v3/state", &one.key, &report).await.expect(200);
    assert_eq!(told_since().await, set(&[]));
}

/// A device's own API on a port of this machine.
async fn device_api() -> u16 {
    let ping = get(|| async { "OK" });
    let update = post(|Query(query): Query<Value>, request: Request| async move {
        let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        axum::Json(json!({"key": query["apikey"], "force": body["force"]}))
    });
    let router = axum::Router::new()
        .route("/ping", ping)
        .route("/v1/update", update.clone())
        .route("/v1/restart", update);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test]
async fn a_call_goes_through_the_tunnel_with_the_devices_secret() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let (device, away) = (world.device(fleet).await, world.device(fleet).await);
    let report = json!({&device.uuid: {"api_port": 48484, "api_secret": "s3cret"}});
    world.patch("/device/v3/state", &device.key, &report).await.expect(200);
    let port = device_api().await;
    world.tunnels.connected.lock().unwrap().push((device.uuid.clone(), device.id, port));

    let token = &world.ann.token;
    let ping = json!({"uuid": device.uuid, "method": "GET"});
    assert_eq!(world.post("/supervisor/ping", token, &ping).await.expect(200).text, "OK");
    let update = json!({"deviceId": device.id, "data": {"force": true}});
    let answer = world.post("/supervisor/v1/update", token, &update).await.expect(200).json();
    assert_eq!(answer, json!({"key": "s3cret", "force": true}));
    let all = json!({"appId": fleet, "data": {}});
    let answer = world.post("/supervisor/v1/update", token, &all).await.expect(207).json();
    assert_eq!(answer[0]["status"], 200);
    assert_eq!(answer.as_array().unwrap().len(), 1, "only who is connected is called");

    let restart = format!("/application/{fleet}/restart");
    world.post(&restart, token, &json!({})).await.expect(200);
    world.post(&restart, &world.bob.token, &json!({})).await.expect(401);
    world.post("/supervisor/ping", token, &json!({"uuid": away.uuid})).await.expect(404);
    world.post("/supervisor/ping", &world.bob.token, &ping).await.expect(404);
    world.post("/supervisor/ping", "", &ping).await.expect(401);
    world.post("/supervisor/ping", token, &json!({})).await.expect(400);
    world.post("/supervisor/v1/..%2fx", token, &ping).await.expect(400);
    world.tunnels.connected.lock().unwrap()[0].2 = 1;
    world.post("/supervisor/ping", token, &ping).await.expect(502);
    // A tunnel that is still that of a deleted row with the same uuid.
    world.tunnels.connected.lock().unwrap()[0] = (device.uuid.clone(), device.id + 1000, port);
    world.post("/supervisor/ping", token, &ping).await.expect(404);
}

#[tokio::test]
async fn the_servers_own_pages_are_there_for_all() {
    let world = World::start().await;
    assert_eq!(world.get("/ping", "").await.expect(200).text, "OK");
    world.get("/connectivity-check", "").await.expect(204);
    assert_eq!(world.get("/config", "").await.expect(200).json()["deviceUrlsBase"], "127.0.0.1");
    let vars = world.get("/config/vars", "").await.expect(200).json();
    assert!(vars["reservedNamespaces"].as_array().unwrap().contains(&json!("BALENA_")));
    let types = world.get("/device-types/v1", "").await.expect(200).json();
    let type_of =
        |slug: &str| types.as_array().unwrap().iter().find(|one| one["slug"] == slug).cloned();
    assert_eq!(type_of("qemux86-64").unwrap()["arch"], "amd64");
    let one = world.get("/device-types/v1/qemux86-64", "").await.expect(200).json();
    assert_eq!(Some(one), type_of("qemux86-64"));
    world.get("/device-types/v1/nothing", "").await.expect(404);
    world.get("/os/v1/config/", "").await.expect(200);

    let request = world.http.request(reqwest::Method::OPTIONS, format!("{}/v7/device", world.url));
    let request = request
        .header("origin", "https://dashboard.example")
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "authorization,x-balena-client");
    let answer = request.send().await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("access-control-allow-origin"), "https://dashboard.example");
    assert!(header("access-control-allow-headers").contains("x-balena-client"));
}

#[tokio::test]
async fn a_configuration_lets_a_device_register() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let wanted = json!({"appId": fleet, "appUpdatePollInterval": 10, "network": "wifi",
        "wifiSsid": "net", "wifiKey": "secret", "developmentMode": true});
    let config = world.post("/download-config", &world.ann.token, &wanted).await.expect(200).json();
    assert_eq!(config["apiEndpoint"], world.url);
    assert_eq!((&config["wifiSsid"], &config["developmentMode"]), (&json!("net"), &json!(true)));
    assert_eq!(
        (&config["appUpdatePollInterval"], &config["deviceType"]),
        (&json!(600_000), &json!("qemux86-64"))
    );
    let body = json!({"application": config["applicationId"], "device_type": config["deviceType"],
        "uuid": minke_cloud_api::random_hex()});
    world.post("/device/register", config["apiKey"].as_str().unwrap(), &body).await.expect(201);
    world.post("/download-config", &world.bob.token, &wanted).await.expect(401);
    world.post("/download-config", &world.ann.token, &json!({})).await.expect(400);

    let device = world.device(fleet).await;
    let auth = format!("/services/vpn/auth/{}", device.uuid);
    world.get(&auth, &device.key).await.expect(200);
    world.get(&auth, &world.ann.token).await.expect(401);
    let host = format!("/access/v1/hostos/{}", device.uuid);
    world.get(&host, &world.ann.token).await.expect(200);
    world.get(&host, &world.bob.token).await.expect(401);
    let key =
        json!({"title": "laptop", "public_key": "ssh-ed25519 AAAA ann", "user": world.ann.user});
    world.make("user__has__public_key", &world.ann.token, key).await;
    let keys = world.get("/auth/v1/public-keys/ann", &device.key).await.expect(200).text;
    assert_eq!(keys, "ssh-ed25519 AAAA ann\n");
    assert_eq!(world.get("/auth/v1/public-keys/bob", &device.key).await.expect(200).text, "");
    world.get("/auth/v1/public-keys/ann", &world.ann.token).await.expect(401);
}
