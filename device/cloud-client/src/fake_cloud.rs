//! A server with behaviour: devices, keys, a target, reports and logs, in memory, on port 0.
//!
//! Faults cut a connection before or after a request has had its effect, which is all that a crash
//! of the device or a lost answer can be, seen from the server.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use serde_json::{Value, json};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The connection dies before the server acts.
    Before,
    /// The server acts and its answer is lost.
    After,
    /// The server answers this.
    Status(u16),
    /// Something between answers this and names another page, which is there for everybody.
    Redirect(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Cloud {
    /// uuid to (id, key).
    pub devices: BTreeMap<String, (u64, String)>,
    pub target: Option<(String, Value)>,
    pub faults: VecDeque<Fault>,
    pub requests: Vec<String>,
    pub reports: Vec<Value>,
    pub log_lines: Vec<Value>,
}

#[derive(Clone)]
pub(crate) struct FakeCloud {
    pub cloud: Arc<Mutex<Cloud>>,
    pub address: SocketAddr,
}

type Shared = Arc<Mutex<Cloud>>;

pub(crate) const PROVISIONING_KEY: &str = "provisioning";

impl FakeCloud {
    pub(crate) async fn start() -> FakeCloud {
        let cloud: Shared = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/device/register", post(register))
            .route("/v7/device", get(find))
            .route("/api-key/device/{id}/device-key", post(exchange))
            .route("/device/v3/{uuid}/state", get(state))
            .route("/device/v3/state", patch(report))
            .route("/ok", get(async || StatusCode::OK))
            .route("/device/v2/{uuid}/log-stream", post(logs))
            .layer(middleware::from_fn_with_state(cloud.clone(), faults))
            .with_state(cloud.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        FakeCloud { cloud, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Cloud) -> T) -> T {
        look(&mut self.cloud.lock().unwrap())
    }
}

async fn faults(State(cloud): State<Shared>, request: Request, next: Next) -> Response {
    let fault = {
        let mut cloud = cloud.lock().unwrap();
        cloud.requests.push(format!("{} {}", request.method(), request.uri().path()));
        cloud.faults.pop_front().unwrap_or(Fault::None)
    };
    match fault {
        Fault::None => next.run(request).await,
        Fault::Before => cut(),
        Fault::After => {
            next.run(request).await;
            cut()
        }
        Fault::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Fault::Redirect(status) => {
            (StatusCode::from_u16(status).unwrap(), [("location", "/ok")]).into_response()
        }
    }
}

/// An answer whose body breaks before its end: hyper closes the connection.
fn cut() -> Response {
    let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
    Response::builder().header("content-length", "100").body(Body::from_stream(broken)).unwrap()
}

fn key(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.trim_start_matches("Bearer ").to_owned()
}

async fn register(State(cloud): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut cloud = cloud.lock().unwrap();
    if key(&headers) != PROVISIONING_KEY {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let uuid = body["uuid"].as_str().unwrap().to_owned();
    if cloud.devices.contains_key(&uuid) {
        return StatusCode::CONFLICT.into_response();
    }
    let id = 100 + cloud.devices.len() as u64;
    let key = body["api_key"].as_str().unwrap().to_owned();
    cloud.devices.insert(uuid.clone(), (id, key.clone()));
    (StatusCode::CREATED, json!({"id": id, "uuid": uuid, "api_key": key}).to_string())
        .into_response()
}

async fn find(
    State(cloud): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let cloud = cloud.lock().unwrap();
    let key = key(&headers);
    let uuid = query["$filter"].trim_start_matches("uuid eq '").trim_end_matches('\'').to_owned();
    let known = key == PROVISIONING_KEY || cloud.devices.values().any(|(_, k)| *k == key);
    if !known {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let rows: Vec<_> =
        cloud.devices.get(&uuid).map(|(id, _)| json!({ "id": id })).into_iter().collect();
    json!({ "d": rows }).to_string().into_response()
}

async fn exchange(
    State(cloud): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<u64>,
    body: Bytes,
) -> Response {
    let mut cloud = cloud.lock().unwrap();
    if key(&headers) != PROVISIONING_KEY {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    for (known, key) in cloud.devices.values_mut() {
        if *known == id {
            *key = body["apiKey"].as_str().unwrap().to_owned();
        }
    }
    "\"ok\"".into_response()
}

fn is_device(cloud: &Cloud, uuid: &str, headers: &HeaderMap) -> bool {
    cloud.devices.get(uuid).is_some_and(|(_, known)| *known == key(headers))
}

async fn state(
    State(cloud): State<Shared>,
    headers: HeaderMap,
    Path(uuid): Path<String>,
) -> Response {
    let cloud = cloud.lock().unwrap();
    if !is_device(&cloud, &uuid, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (etag, target) = cloud.target.clone().unwrap();
    if headers.get("if-none-match").is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", etag)], json!({ uuid: target }).to_string()).into_response()
}

async fn report(State(cloud): State<Shared>, body: Bytes) -> Response {
    cloud.lock().unwrap().reports.push(serde_json::from_slice(&body).unwrap());
    StatusCode::OK.into_response()
}

async fn logs(State(cloud): State<Shared>, body: Bytes) -> Response {
    let mut text = String::new();
    if flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    cloud.lock().unwrap().log_lines.extend(lines);
    StatusCode::CREATED.into_response()
}

/// A directory with a config.json for the server at `url`, and a client for it.
pub(crate) fn device(dir: &std::path::Path, url: &str) -> crate::CloudHttp {
    let path = dir.join("config.json");
    if !path.exists() {
        let config = json!({"apiEndpoint": url, "applicationId": 7, "apiKey": PROVISIONING_KEY,
            "deviceType": "qemux86-64", "wifi": "kept", "bootstrapRetryDelay": 1});
        std::fs::write(&path, config.to_string()).unwrap();
    }
    let versions = crate::SoftwareVersions {
        supervisor: "1.0.0".into(),
        os_version: "Test 1".into(),
        os_variant: "dev".into(),
    };
    crate::CloudHttp::new(crate::ConfigFile::open(&path).unwrap(), versions).unwrap()
}
