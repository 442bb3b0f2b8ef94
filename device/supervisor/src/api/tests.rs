//! The device API over a socket, with the loop and an engine in memory behind it.

mod full_disk;

use std::net::SocketAddr;

use futures_util::StreamExt;
use minke_common_model::reported_state::{AppReport, ReleaseReport, ServiceReport};
use minke_engine_client::{Engine, EventFilter};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::compose::tests::facts;
use crate::reconcile::tests::world::{World, device, weather};

fn client() -> reqwest::Client {
    // The second test of a process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

struct Device {
    api: Arc<Api>,
    world: World,
    address: SocketAddr,
    keys: ApiKeys,
    look: Arc<Notify>,
    report: watch::Sender<DeviceReport>,
}

impl Device {
    /// A device that runs the weather app.
    async fn running() -> Device {
        let world = World::new();
        let target = device("c1", weather("web1"));
        world.want_device(&target);
        world.settled().await;
        let keys = facts(world.path()).api_keys;
        let look = Arc::new(Notify::new());
        let view = DeviceView {
            uuid: Some("aabbccddee".parse().unwrap()),
            name: "quiet-dawn".into(),
            arch: "amd64".into(),
            device_type: "qemux86-64".into(),
            device: target,
            ..DeviceView::default()
        };
        let progress = Default::default();
        let mut applied = Default::default();
        let status = world.status.borrow().clone();
        crate::report::note_applied(&status, &mut applied);
        let apps = crate::report::View {
            device: &view.device,
            rejected: &view.rejected,
            status: &status,
            progress: &progress,
            applied: &applied,
        };
        let report = DeviceReport { apps: Some(apps.apps()), ..DeviceReport::default() };
        let (report, reported) = watch::channel(report);
        let api = Arc::new(Api {
            keys: keys.clone(),
            status: world.status.subscribe(),
            report: reported,
            view: watch::channel(Arc::new(view)).1,
            memory: world.memory.clone(),
            wake: world.wake.clone(),
            look: look.clone(),
            tunnel: TunnelLease::default(),
            health: watch::channel(None).1,
            keeper: Keeper::new(&world.path().join("keeper.sock")),
            lock_root: world.path().join("locks"),
            is_managed: true,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(api.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Device { api, world, address, keys, look, report }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Value,
    ) -> (StatusCode, String) {
        let mut request =
            client().request(method, format!("http://{}{path}", self.address)).bearer_auth(key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self.call(Method::GET, path, &self.keys.global(), Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, String) {
        self.call(Method::POST, path, &self.keys.global(), body).await
    }
}

#[tokio::test]
async fn only_ping_and_health_are_open() {
    let device = Device::running().await;
    for path in ["/ping", "/v1/healthy"] {
        let (status, text) = device.call(Method::GET, path, "wrong", Value::Null).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "OK"));
    }
    for path in ["/v1/device", "/v2/version", "/v2/state/status", "/v2/applications/state"] {
        let (status, _) = device.call(Method::GET, path, "wrong", Value::Null).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let path = format!("/v2/version?apikey={}", device.keys.global());
    assert_eq!(device.call(Method::GET, &path, "wrong", Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_services_key_is_for_its_own_app_and_not_for_the_device() {
    let device = Device::running().await;
    let own = device.keys.for_service(AppId::new(7), &"web".parse().unwrap());
    let other = device.keys.for_service(AppId::new(8), &"web".parse().unwrap());
    for (path, key, expected) in [
        ("/v2/applications/7/restart-service", &own, StatusCode::OK),
        ("/v2/applications/7/restart-service", &other, StatusCode::UNAUTHORIZED),
        ("/v1/reboot", &own, StatusCode::UNAUTHORIZED),
        ("/v1/regenerate-api-key", &own, StatusCode::UNAUTHORIZED),
    ] {
        let body = json!({"serviceName": "web"});
        let (status, text) = device.call(Method::POST, path, key, body).await;
        assert_eq!(status, expected, "{path}: {text}");
    }
}

#[tokio::test]
async fn state_is_told_in_every_shape() {
    let device = Device::running().await;
    assert_eq!(device.get("/v1/device").await["update_pending"], false);
    assert_eq!(device.get("/v1/device").await["commit"], "c1");
    let status = device.get("/v2/state/status").await;
    assert_eq!((&status["appState"], &status["release"]), (&json!("applied"), &json!("c1")));
    assert_eq!(status["containers"].as_array().unwrap().len(), 3);
    let apps = device.get("/v2/applications/state").await;
    assert_eq!(apps["weather"]["services"]["web"]["status"], "Running");
    assert_eq!(apps["weather"]["updateStatus"], "done");
    let app = device.get("/v2/applications/7/state").await;
    assert_eq!(app["local"]["7"]["services"]["101"]["status"], "Running");
    assert_eq!(device.get("/v2/device/name").await["deviceName"], "quiet-dawn");
    assert_eq!(device.get("/v2/version").await["version"], crate::VERSION);
    let id = device.get("/v2/containerId?serviceName=web").await["containerId"].clone();
    assert_eq!(id, device.world.id_of("web").await);
    let missing = device
        .call(Method::GET, "/v2/applications/9/state", &device.keys.global(), Value::Null)
        .await;
    assert_eq!(missing.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn during_an_update_a_service_has_the_state_of_its_own_release() {
    let device = Device::running().await;
    let web = ["web".parse().unwrap()];
    let report = |status: &str, progress| {
        let service = ServiceReport {
            image: "image".to_owned(),
            status: status.to_owned(),
            download_progress: progress,
        };
        let services = web.iter().cloned().map(|name| (name, service.clone())).collect();
        ReleaseReport { update_status: None, services }
    };
    // Of two releases the one that is not the target comes first.
    let releases = [
        ("b1".parse().unwrap(), report("Stopping", None)),
        ("c1".parse().unwrap(), report("Downloading", Some(40.0))),
    ];
    let app = AppReport { release_uuid: None, releases: releases.into() };
    let apps = [("app1".parse().unwrap(), app)];
    device.report.send_modify(|report| report.apps = Some(apps.into()));
    let app = device.get("/v2/applications/7/state").await;
    let service = &app["local"]["7"]["services"]["101"];
    assert_eq!(
        *service,
        json!({"status": "Downloading", "download_progress": 40.0, "releaseId": 9})
    );
    let status = device.get("/v2/state/status").await;
    let containers = status["containers"].as_array().unwrap();
    // Its name says that it is of release c1.
    let web = containers.iter().find(|container| container["serviceName"] == "web").unwrap();
    assert_eq!(web["status"], "Downloading");
}

#[tokio::test]
async fn the_tunnel_says_whether_it_is_up() {
    let device = Device::running().await;
    let path = "/minke/v1/tunnel";
    let own = device.keys.for_service(AppId::new(7), &"web".parse().unwrap());
    let (status, _) = device.call(Method::POST, path, &own, json!({"upForMs": 60_000})).await;
    assert_eq!((status, device.api.tunnel.until()), (StatusCode::UNAUTHORIZED, None));
    assert_eq!(device.post(path, json!({})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(device.post(path, json!({"upForMs": 60_000})).await.0, StatusCode::NO_CONTENT);
    assert!(device.api.tunnel.until().is_some());
    assert_eq!(device.post(path, json!({"upForMs": 0})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(device.api.tunnel.until(), None);
}

#[tokio::test]
async fn an_update_is_looked_for_at_once() {
    let device = Device::running().await;
    let looked = device.look.clone();
    let waiting = tokio::spawn(async move { looked.notified().await });
    assert_eq!(device.post("/v1/update", json!({})).await.0, StatusCode::NO_CONTENT);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_restart_makes_new_containers_and_answers_when_they_run() {
    let device = Device::running().await;
    let (web, db) = (device.world.id_of("web").await, device.world.id_of("db").await);
    let body = json!({"serviceName": "web"});
    let (status, text) = device.post("/v2/applications/7/restart-service", body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_ne!(device.world.id_of("web").await, web);
    assert_eq!(device.world.id_of("db").await, db);
    assert_eq!(device.post("/v1/restart", json!({"appId": "7"})).await.0, StatusCode::OK);
    assert_ne!(device.world.id_of("db").await, db);
    assert!(device.world.containers().await.iter().all(|(_, state)| state == "running"));
    assert_eq!(device.post("/v1/restart", json!({})).await.0, StatusCode::BAD_REQUEST);
    let body = json!({"serviceName": "nobody"});
    let (status, _) = device.post("/v2/applications/7/restart-service", body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_service_is_stopped_and_started_by_name_or_image() {
    let device = Device::running().await;
    let state = async |device: &Device| device.world.containers().await.last().unwrap().1.clone();
    let (status, text) =
        device.post("/v2/applications/7/stop-service", json!({"imageId": 101})).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(state(&device).await, "exited");
    let body = json!({"serviceName": "web"});
    assert_eq!(device.post("/v2/applications/7/start-service", body).await.0, StatusCode::OK);
    assert_eq!(state(&device).await, "running");
}

#[tokio::test]
async fn a_request_with_nothing_to_do_is_answered_at_once() {
    let device = Device::running().await;
    let web = device.world.id_of("web").await;
    let ask = async |what: &str| {
        let path = format!("/v2/applications/7/{what}");
        let asked = device.post(&path, json!({"serviceName": "web"}));
        // Far less than the loop's own next look, which would answer it too.
        let answer = tokio::time::timeout(PATIENCE / 10, asked).await;
        let (status, text) = answer.unwrap_or_else(|_| panic!("{what} is not answered"));
        assert_eq!(status, StatusCode::OK, "{what}: {text}");
    };
    ask("start-service").await;
    ask("stop-service").await;
    ask("stop-service").await;
    ask("start-service").await;
    assert_eq!(device.world.id_of("web").await, web);
}

fn starts(device: &Device) -> usize {
    let history = device.world.engine.history();
    history.iter().filter(|line| line.starts_with("container start once")).count()
}

async fn start_once(device: &Device) {
    let body = json!({"serviceName": "once"});
    let asked = device.post("/v2/applications/7/start-service", body);
    let answer = tokio::time::timeout(PATIENCE / 10, asked).await.expect("an answer");
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
}

#[tokio::test]
async fn a_job_that_has_ended_is_started_again_when_asked() {
    let device = Device::running().await;
    let once = device.world.id_of("once").await;
    for number in 2..4 {
        device.world.engine.exit(&once, 0);
        start_once(&device).await;
        assert_eq!(starts(&device), number);
    }
    assert_eq!(device.world.id_of("once").await, once, "the container is kept");
    assert!(!device.world.memory.was_stopped(&ContainerId(once)));
}

#[tokio::test]
async fn a_job_that_ends_at_once_has_been_started() {
    let device = Device::running().await;
    let once = device.world.id_of("once").await;
    let engine = device.world.engine.clone();
    let mut events = engine.events(&EventFilter::default()).await.unwrap();
    let ending = once.clone();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            if event.action == "start" && event.actor.id == ending {
                engine.exit(&ending, 0);
            }
        }
    });
    let body = json!({"serviceName": "once"});
    let (status, text) = device.post("/v2/applications/7/stop-service", body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    start_once(&device).await;
    start_once(&device).await;
    assert_eq!(starts(&device), 3);
    let key = (AppId::new(7), "once".parse().unwrap());
    assert!(!device.world.memory.wishes().stopped.contains(&key), "it is not asked to stop");
}

#[tokio::test]
async fn an_app_that_has_no_containers_is_restarted_at_once() {
    let device = Device::running().await;
    device.world.want("c2", json!({}));
    device.world.settled().await;
    let asked = device.post("/v1/restart", json!({"appId": 7}));
    let (status, text) = tokio::time::timeout(PATIENCE / 10, asked).await.expect("an answer");
    assert_eq!(status, StatusCode::OK, "{text}");
}

#[tokio::test]
async fn a_forced_update_is_forced_when_its_target_comes_later() {
    let device = Device::running().await;
    let lock = device.world.path().join("locks/services/7/db/updates.lock");
    std::fs::write(&lock, "").unwrap();
    let round = device.world.status.borrow().round;
    let (status, _) = device.post("/v1/update", json!({"force": true})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    // The loop looks before the new target is here, and finds all as it should be.
    device.world.status.subscribe().wait_for(|status| status.round > round).await.unwrap();
    device.world.want("c2", weather("web2"));
    let settled = device.world.settled();
    tokio::time::timeout(PATIENCE / 10, settled).await.expect("the lock does not count");
    assert!(device.world.containers().await.iter().all(|(name, _)| name.ends_with("c2")));
}

#[tokio::test]
async fn purge_answers_when_the_app_is_back_with_empty_volumes() {
    let device = Device::running().await;
    let (status, text) = device.post("/v1/purge", json!({"appId": 7})).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, r#"{"Data":"OK","Error":""}"#));
    let history = device.world.engine.history();
    assert_eq!(history.iter().filter(|line| line.starts_with("volume destroy")).count(), 1);
    assert_eq!(device.world.containers().await.len(), 3);
    assert!(device.world.containers().await.iter().all(|(_, state)| state == "running"));
}

#[tokio::test]
async fn a_lock_is_423_and_force_breaks_it() {
    let device = Device::running().await;
    let lock = device.world.path().join("locks/services/7/db/updates.lock");
    std::fs::write(&lock, "").unwrap();
    for path in ["/v2/applications/7/restart", "/v2/applications/7/purge"] {
        let (status, text) = device.post(path, json!({})).await;
        assert_eq!(status, StatusCode::LOCKED, "{path}");
        assert!(text.contains("\"status\":\"failed\""), "{text}");
    }
    assert_eq!(device.post("/v1/reboot", json!({})).await.0, StatusCode::LOCKED);
    let web = device.world.id_of("web").await;
    let (status, text) = device.post("/v2/applications/7/restart", json!({"force": true})).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_ne!(device.world.id_of("web").await, web);
}

#[tokio::test]
async fn a_keeper_that_is_away_is_an_error_and_not_a_promise() {
    let device = Device::running().await;
    let (status, text) = device.post("/v1/reboot", json!({})).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("keeper"), "{text}");
}

#[tokio::test]
async fn bodies_may_be_forms() {
    let device = Device::running().await;
    let response = client()
        .post(format!("http://{}/v1/restart", device.address))
        .bearer_auth(device.keys.global())
        .header("content-type", "application/x-www-form-urlencoded")
        .body("appId=7&force=%31")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_new_key_ends_the_old_one() {
    let device = Device::running().await;
    let old = device.keys.global();
    let (status, new) = device.post("/v1/regenerate-api-key", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        device.call(Method::GET, "/v2/version", &old, Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(device.call(Method::GET, "/v2/version", &new, Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_lock_that_comes_in_between_takes_the_wish_back() {
    let device = Device::running().await;
    let lock = device.world.path().join("locks/services/7/db/updates.lock");
    let web = device.world.id_of("web").await;
    std::fs::write(&lock, "").unwrap();
    // As a request that looked at the lock just before it was taken.
    let (app, uuid) = ("7".parse().unwrap(), "app1".parse().unwrap());
    let wished = ContainerId(web.clone());
    let api = device.api.clone();
    let answer =
        api.fulfil((app, &uuid), |wishes| assert!(wishes.must_go.insert(wished)), |_| false).await;
    assert!(matches!(answer, Err(ApiError::Locked(_))), "{answer:?}");
    assert!(device.world.memory.wishes().must_go.is_empty());
    std::fs::remove_file(&lock).unwrap();
    device.world.wake.notify_one();
    device.world.settled().await;
    assert_eq!(device.world.id_of("web").await, web, "nothing was restarted later");
}
