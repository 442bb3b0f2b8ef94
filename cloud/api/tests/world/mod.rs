//! A real server for a test: rows in SQLite, real HTTP on a free port, and two people who are strangers
//! to each other. The tunnel is a fake with behaviour: it knows who is connected and who was told.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minke_cloud_api::ports::{
    BoxError, BoxFuture, Notify, Ports, RegistryAccess, Stream, TokenSigner,
};
use minke_cloud_api::{Api, Settings};
use minke_cloud_db::Db;
use minke_cloud_logs::Logs;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const PASSWORD: &str = "correct horse battery";

/// A tunnel whose far ends are sockets of this machine.
#[derive(Default)]
pub struct FakeTunnels {
    /// Uuid and row of a device, and the local port that stands for all its ports.
    pub connected: Mutex<Vec<(String, i64, u16)>>,
    pub told: Mutex<Vec<String>>,
}

impl Notify for FakeTunnels {
    fn target_changed(&self, device_uuids: Vec<String>) {
        self.told.lock().unwrap().extend(device_uuids);
    }

    fn device(&self, uuid: &str) -> Option<i64> {
        self.connected.lock().unwrap().iter().find(|(known, ..)| known == uuid).map(|c| c.1)
    }

    fn open_tcp<'a>(
        &'a self,
        device: i64,
        uuid: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, BoxError>> {
        let connected = self.connected.lock().unwrap();
        let port = connected.iter().find(|(known, id, _)| known == uuid && *id == device);
        let port = port.map(|c| c.2);
        Box::pin(async move {
            let port = port.ok_or("not connected")?;
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Signs by writing down what is granted.
pub struct PlainTokens;

impl TokenSigner for PlainTokens {
    fn sign(&self, subject: &str, access: Vec<RegistryAccess>) -> Result<String, BoxError> {
        let granted: Vec<String> = access
            .iter()
            .map(|a| {
                format!("{}:{}:{}", a.name, a.actions.join(","), a.alias.as_deref().unwrap_or(""))
            })
            .collect();
        Ok(format!("{subject}|{}", granted.join(" ")))
    }
}

pub struct World {
    pub url: String,
    pub api: Api,
    pub tunnels: Arc<FakeTunnels>,
    pub http: reqwest::Client,
    pub ann: Person,
    pub bob: Person,
    _directory: tempfile::TempDir,
}

/// Somebody with an account.
pub struct Person {
    pub token: String,
    pub organization: i64,
    pub user: i64,
}

/// A device as its maker knows it.
pub struct Device {
    pub id: i64,
    pub uuid: String,
    pub key: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn d(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()["d"].clone()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl World {
    pub async fn start() -> World {
        // Only the first of a process's tests installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("minke.db").display());
        let db = Db::open(&url).await.unwrap();
        let logs = Logs::open(&directory.path().join("logs"), Default::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = Settings::new(&url, vec![7; 64]).unwrap();
        let tunnels = Arc::new(FakeTunnels::default());
        let notify = Arc::clone(&tunnels);
        let api = Api::new(db, logs, settings, Ports { notify, signer: Arc::new(PlainTokens) });
        let router = minke_cloud_api::router(api.clone());
        tokio::spawn(api.tell_devices());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().unwrap();
        let (ann, bob) =
            (person(&api, &http, &url, "ann").await, person(&api, &http, &url, "bob").await);
        World { url, api, tunnels, http, ann, bob, _directory: directory }
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        send(self.request(Method::GET, path, token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path, token).json(body)).await
    }

    pub async fn patch(&self, path: &str, token: &str, body: &Value) -> Answer {
        send(self.request(Method::PATCH, path, token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        send(self.request(Method::DELETE, path, token)).await
    }

    /// Makes a row and answers its number.
    pub async fn make(&self, resource: &str, token: &str, row: Value) -> i64 {
        let answer = self.post(&format!("/v7/{resource}"), token, &row).await.expect(201);
        answer.json()["id"].as_i64().unwrap()
    }

    /// Makes a fleet of Ann's.
    pub async fn fleet(&self, name: &str) -> i64 {
        self.fleet_of(&self.ann, name).await
    }

    pub async fn fleet_of(&self, person: &Person, name: &str) -> i64 {
        let types =
            self.get("/v7/device_type?$select=id&$filter=slug eq 'qemux86-64'", "").await.d();
        let row = json!({
            "app_name": name, "organization": person.organization, "is_of__class": "fleet",
            "is_for__device_type": types[0]["id"],
        });
        self.make("application", &person.token, row).await
    }

    /// Makes the application whose releases manage devices of the fleets' device type.
    pub async fn supervisor(&self) -> i64 {
        let row = json!({"name": "System", "handle": "balena_os"});
        let organization = self.make("organization", &self.ann.token, row).await;
        let maker = Person { organization, token: self.ann.token.clone(), user: self.ann.user };
        self.fleet_of(&maker, "amd64-supervisor").await
    }

    pub async fn provisioning_key(&self, fleet: i64) -> String {
        let path = format!("/api-key/application/{fleet}/provisioning");
        self.post(&path, &self.ann.token, &json!({}))
            .await
            .expect(200)
            .json()
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Registers a device as devices do.
    pub async fn device(&self, fleet: i64) -> Device {
        let key = self.provisioning_key(fleet).await;
        let uuid = minke_cloud_api::random_hex();
        let body = json!({"application": fleet, "device_type": "qemux86-64", "uuid": uuid});
        let answer = self.post("/device/register", &key, &body).await.expect(201).json();
        Device {
            id: answer["id"].as_i64().unwrap(),
            key: answer["api_key"].as_str().unwrap().to_owned(),
            uuid,
        }
    }

    /// Makes a successful release with one image of service `web`; answers (release, image, place).
    pub async fn release(&self, fleet: i64, commit: &str) -> Release {
        let token = &self.ann.token;
        let row = json!({
            "belongs_to__application": fleet, "commit": commit, "status": "running", "source": "local",
            "composition": {"version": "2.1", "services": {"web": {"build": ".", "tty": true}}},
            "start_timestamp": jiff::Timestamp::now().to_string(), "is_final": true,
        });
        let release = self.make("release", token, row).await;
        let query = format!("/v7/service(application={fleet},service_name='web')?$select=id");
        let service = match self.get(&query, token).await.d()[0]["id"].as_i64() {
            Some(service) => service,
            None => {
                self.make("service", token, json!({"application": fleet, "service_name": "web"}))
                    .await
            }
        };
        let row = json!({
            "is_a_build_of__service": service, "status": "success",
            "start_timestamp": jiff::Timestamp::now().to_string(),
            "content_hash": format!("sha256:{:064x}", release), "image_size": "12345",
        });
        let image = self.post("/v7/image", token, &row).await.expect(201).json();
        let location = image["is_stored_at__image_location"].as_str().unwrap().to_owned();
        let image = image["id"].as_i64().unwrap();
        let place = json!({"image": image, "is_part_of__release": release});
        let place = self.make("image__is_part_of__release", token, place).await;
        let done =
            json!({"status": "success", "end_timestamp": jiff::Timestamp::now().to_string()});
        self.patch(&format!("/v7/release({release})"), token, &done).await.expect(200);
        Release { id: release, image, location, service, place }
    }
}

pub struct Release {
    pub id: i64,
    pub image: i64,
    /// With the host.
    pub location: String,
    pub service: i64,
    pub place: i64,
}

async fn person(api: &Api, http: &reqwest::Client, url: &str, name: &str) -> Person {
    let user = api.create_user(name, &format!("{name}@example.org"), PASSWORD).await.unwrap();
    let login = json!({"username": name, "password": PASSWORD});
    let answer = send(http.post(format!("{url}/login_")).json(&login)).await.expect(200);
    let token = answer.text;
    let query = format!("{url}/v7/organization?$select=id");
    let mine = send(http.get(query).bearer_auth(&token)).await.d();
    assert_eq!(mine.as_array().unwrap().len(), 1, "one's own organization and no other: {mine}");
    Person { token, organization: mine[0]["id"].as_i64().unwrap(), user: user.id }
}

pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status();
    let etag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    Answer { status, etag, text: response.text().await.unwrap() }
}

/// Waits for `condition`, for ten seconds at most.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

pub fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
