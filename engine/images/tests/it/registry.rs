//! A registry in this process that does what it is told: also what no registry should do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use minke_common_model::digest::Digest;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::tars::gzip;

/// What a fault does to a request that it fits.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers this instead, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// Closes the connection after this many bytes of the body.
    Cut(usize),
    /// Sends this many bytes of the body and then nothing.
    Stall(usize),
    /// Alters a byte of the body.
    Corrupt,
    /// Knows no ranges.
    NoRange,
    /// Answers another range than the one asked for.
    WrongRange,
    /// The body is another one.
    Instead(Vec<u8>),
}

struct Planned {
    part: String,
    times: usize,
    fault: Fault,
}

/// Who may read.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    Open,
    /// User and password on every request.
    Basic(&'static str, &'static str),
    /// A token from `/token`, for which user and password are needed.
    Bearer(&'static str, &'static str),
    /// A token for a refresh token.
    Refresh(&'static str),
}

#[derive(Default)]
struct Inner {
    blobs: HashMap<Digest, Vec<u8>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    /// Which repositories have which blob.
    placed: Vec<(String, Digest)>,
    uploads: HashMap<u64, Vec<u8>>,
    next_upload: u64,
    faults: Vec<Planned>,
    log: Vec<Seen>,
    auth: Auth,
    tokens: usize,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// The running registry; it ends with the test's runtime.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    pub address: String,
    /// Bytes of bodies given to the network.
    sent: watch::Sender<u64>,
}

/// How a layer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
    Plain,
}

/// An image put into the registry.
pub struct Placed {
    pub digest: Digest,
    pub config: Digest,
    pub blobs: Vec<Digest>,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Self { inner: Arc::default(), address, sent: watch::channel(0).0 };
        let app = Router::new().fallback(serve).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        registry
    }

    pub fn reference(&self, name: &str) -> minke_common_model::image_reference::ImageReference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// The next `times` requests whose `METHOD path` contains `part` get this fault.
    pub fn fault(&self, part: &str, times: usize, fault: Fault) {
        let part = part.to_owned();
        self.lock().faults.push(Planned { part, times, fault });
    }

    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub fn set_auth(&self, auth: Auth) {
        self.lock().auth = auth;
    }

    /// Tokens given out before are worth nothing any more.
    pub fn expire_tokens(&self) {
        self.lock().tokens += 1;
    }

    /// Requests so far whose `METHOD path` contains `part`.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let all = self.lock().log.clone();
        all.into_iter().filter(|s| format!("{} {}", s.method, s.path).contains(part)).collect()
    }

    pub async fn sent_at_least(&self, bytes: u64) {
        let wait =
            async { self.sent.subscribe().wait_for(|sent| *sent >= bytes).await.map(|_| ()) };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("no bytes").unwrap();
    }

    pub fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.lock().placed.contains(&(repository.to_owned(), *digest))
    }

    pub fn put_blob(&self, repository: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        let mut inner = self.lock();
        inner.blobs.insert(digest, bytes);
        inner.placed.push((repository.to_owned(), digest));
        digest
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, value: &Value) -> Digest {
        let bytes = value.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let mut inner = self.lock();
        for name in [tag.to_owned(), digest.to_string()] {
            let entry = (kind.to_owned(), bytes.clone());
            inner.manifests.insert((repository.to_owned(), name), entry);
        }
        digest
    }

    /// Puts an image of these layers; its configuration says `architecture`.
    pub fn put_image(
        &self,
        repository: &str,
        tag: &str,
        architecture: &str,
        layers: &[(Vec<u8>, Packing)],
    ) -> Placed {
        let diff_ids: Vec<Digest> = layers.iter().map(|(tar, _)| Digest::of(tar)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/app"], "Env": ["A=1"], "Labels": {"tag": tag}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": "test"}],
        });
        let config_bytes = config.to_string().into_bytes();
        let config_size = config_bytes.len();
        let config = self.put_blob(repository, config_bytes);
        let oci = layers.iter().any(|(_, packing)| *packing != Packing::Gzip);
        let mut blobs = Vec::new();
        let mut descriptors = Vec::new();
        for (tar, packing) in layers {
            let (bytes, kind) = match packing {
                Packing::Gzip if oci => (gzip(tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
                Packing::Gzip => (gzip(tar), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
                Packing::Zstd => {
                    let bytes = zstd::encode_all(&tar[..], 3).unwrap();
                    (bytes, "application/vnd.oci.image.layer.v1.tar+zstd")
                }
                Packing::Plain => (tar.clone(), "application/vnd.oci.image.layer.v1.tar"),
            };
            let size = bytes.len();
            let digest = self.put_blob(repository, bytes);
            descriptors.push(json!({"mediaType": kind, "size": size, "digest": digest}));
            blobs.push(digest);
        }
        let (kind, config_kind) = match oci {
            true => (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json"),
            false => (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json"),
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": config_kind, "size": config_size, "digest": config},
            "layers": descriptors,
        });
        let digest = self.put_manifest(repository, tag, kind, &manifest);
        Placed { digest, config, blobs }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn take_fault(&self, line: &str) -> Option<Fault> {
        let mut inner = self.lock();
        let at = inner.faults.iter().position(|f| f.times > 0 && line.contains(&f.part))?;
        inner.faults[at].times -= 1;
        Some(inner.faults[at].fault.clone())
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let inner = self.lock();
        let given = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let token = format!("Bearer token-{}", inner.tokens);
        let (expected, challenge) = match &inner.auth {
            Auth::Open => return None,
            Auth::Basic(user, password) => {
                (basic(user, password), "Basic realm=\"test\"".to_owned())
            }
            Auth::Bearer(..) | Auth::Refresh(_) => {
                let realm = format!("http://{}/token", self.address);
                (token, format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"x:y:z\""))
            }
        };
        if given.as_ref() == Some(&expected) {
            return None;
        }
        let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "log in"}]}).to_string();
        Some((StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)], body).into_response())
    }

    async fn token(&self, request: Request) -> Response {
        let (auth, number) = {
            let inner = self.lock();
            (inner.auth.clone(), inner.tokens)
        };
        let authorization = header(request.headers(), "authorization");
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap();
        let good = match auth {
            Auth::Bearer(user, password) => {
                authorization == Some(basic(user, password)) && query.contains("service=test")
            }
            Auth::Refresh(token) => {
                let body = String::from_utf8(body.to_vec()).unwrap();
                body.contains(&format!("refresh_token={token}"))
                    && body.contains("grant_type=refresh_token")
            }
            _ => false,
        };
        match good {
            true => axum::Json(json!({"token": format!("token-{number}")})).into_response(),
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    }

    /// A body that counts what it gives and ends as the fault says.
    fn body(&self, bytes: Vec<u8>, fault: Option<&Fault>) -> Body {
        let (end, stall, cut) = match fault {
            Some(Fault::Cut(length)) => (*length, false, true),
            Some(Fault::Stall(length)) => (*length, true, false),
            _ => (bytes.len(), false, false),
        };
        let end = end.min(bytes.len());
        let registry = self.clone();
        let pieces: Vec<Bytes> =
            bytes[..end].chunks(16 << 10).map(Bytes::copy_from_slice).collect();
        let body = futures_util::stream::iter(pieces).then(move |piece| {
            let registry = registry.clone();
            async move {
                // Lets the server send what it has: it drops that when a body ends with an error.
                tokio::task::yield_now().await;
                registry.sent.send_modify(|sent| *sent += piece.len() as u64);
                Ok::<_, std::io::Error>(piece)
            }
        });
        let tail = async move {
            tokio::task::yield_now().await;
            if stall {
                std::future::pending::<()>().await;
            }
            Err(std::io::Error::other("cut"))
        };
        match cut || stall {
            true => Body::from_stream(body.chain(futures_util::stream::once(tail))),
            false => Body::from_stream(body),
        }
    }
}

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

fn basic(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}");
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for at in 0..4 {
            match at <= chunk.len() {
                true => out.push(DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char),
                false => out.push('='),
            }
        }
    }
    out
}

async fn serve(State(registry): State<Registry>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let range = header(request.headers(), "range");
    registry.lock().log.push(Seen {
        method: method.to_string(),
        path: path.clone(),
        range: range.clone(),
        authorization: header(request.headers(), "authorization"),
    });
    if path == "/token" {
        return registry.token(request).await;
    }
    let elsewhere = path.starts_with("/elsewhere/");
    if !elsewhere && let Some(refusal) = registry.refusal(request.headers()) {
        return refusal;
    }
    let fault = registry.take_fault(&format!("{method} {path}"));
    if let Some(Fault::Status(status, headers)) = &fault {
        let mut answer = Response::builder().status(*status);
        for (name, value) in headers {
            answer = answer.header(*name, value);
        }
        return answer.body(Body::from("a fault")).unwrap();
    }
    if let Some(digest) = path.strip_prefix("/elsewhere/") {
        let bytes = registry.lock().blobs[&digest.parse::<Digest>().unwrap()].clone();
        return content(&registry, bytes, "application/octet-stream", range, fault, &method);
    }
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        return manifest(&registry, repository, name, request, fault).await;
    }
    if let Some((repository, name)) = rest.split_once("/blobs/uploads/") {
        return upload(&registry, repository, name, request).await;
    }
    if let Some((repository, name)) = rest.split_once("/blobs/") {
        let digest: Digest = name.parse().unwrap();
        let found = {
            let inner = registry.lock();
            let placed = inner.placed.contains(&(repository.to_owned(), digest));
            inner.blobs.get(&digest).filter(|_| placed).cloned()
        };
        return match found {
            Some(bytes) => {
                content(&registry, bytes, "application/octet-stream", range, fault, &method)
            }
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    StatusCode::NOT_FOUND.into_response()
}

fn content(
    registry: &Registry,
    mut bytes: Vec<u8>,
    kind: &str,
    range: Option<String>,
    fault: Option<Fault>,
    method: &Method,
) -> Response {
    match &fault {
        Some(Fault::Corrupt) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Some(Fault::Instead(other)) => bytes = other.clone(),
        _ => {}
    }
    let mut answer = Response::builder().header("content-type", kind);
    let from = range
        .filter(|_| !matches!(fault, Some(Fault::NoRange)))
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    if let Some(from) = from {
        let from = if matches!(fault, Some(Fault::WrongRange)) { from + 1 } else { from };
        let total = bytes.len();
        let said = format!("bytes {from}-{}/{total}", total - 1);
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header("content-range", said);
        bytes.drain(..from);
    }
    answer = answer.header("content-length", bytes.len());
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => registry.body(bytes, fault.as_ref()),
    };
    answer.body(body).unwrap()
}

async fn manifest(
    registry: &Registry,
    repository: &str,
    name: &str,
    request: Request,
    fault: Option<Fault>,
) -> Response {
    if request.method() == Method::PUT {
        let kind = header(request.headers(), "content-type").unwrap();
        let bytes = axum::body::to_bytes(request.into_body(), 4 << 20).await.unwrap().to_vec();
        let mut inner = registry.lock();
        for name in [name.to_owned(), Digest::of(&bytes).to_string()] {
            inner.manifests.insert((repository.to_owned(), name), (kind.clone(), bytes.clone()));
        }
        return StatusCode::CREATED.into_response();
    }
    let found = registry.lock().manifests.get(&(repository.to_owned(), name.to_owned())).cloned();
    match found {
        Some((kind, bytes)) => {
            let digest = Digest::of(&bytes).to_string();
            let mut answer = content(registry, bytes, &kind, None, fault, request.method());
            answer.headers_mut().insert("docker-content-digest", digest.parse().unwrap());
            answer
        }
        None => {
            let body = json!({"errors": [
                {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
            (StatusCode::NOT_FOUND, body.to_string()).into_response()
        }
    }
}

async fn upload(registry: &Registry, repository: &str, name: &str, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
    let value = |key: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")).map(str::to_owned))
    };
    let method = request.method().clone();
    let range = header(request.headers(), "content-range");
    let bytes = axum::body::to_bytes(request.into_body(), 64 << 20).await.unwrap();
    let mut inner = registry.lock();
    if method == Method::POST {
        if let (Some(digest), Some(from)) = (value("mount"), value("from")) {
            let digest: Digest = digest.parse().unwrap();
            if inner.placed.contains(&(from, digest)) {
                inner.placed.push((repository.to_owned(), digest));
                return StatusCode::CREATED.into_response();
            }
        }
        inner.next_upload += 1;
        let number = inner.next_upload;
        inner.uploads.insert(number, Vec::new());
        return accepted(repository, number, 0);
    }
    let number: u64 = name.parse().unwrap();
    let held = inner.uploads.get_mut(&number).unwrap();
    match method {
        Method::PATCH => {
            let from: usize = range.unwrap().split('-').next().unwrap().parse().unwrap();
            if from != held.len() {
                return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            }
            held.extend_from_slice(&bytes);
            accepted(repository, number, held.len())
        }
        Method::PUT => {
            held.extend_from_slice(&bytes);
            let whole = std::mem::take(held);
            let digest: Digest = value("digest").unwrap().parse().unwrap();
            if Digest::of(&whole) != digest {
                return StatusCode::BAD_REQUEST.into_response();
            }
            inner.blobs.insert(digest, whole);
            inner.placed.push((repository.to_owned(), digest));
            StatusCode::CREATED.into_response()
        }
        _ => {
            let mut answer = accepted(repository, number, held.len());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
    }
}

fn accepted(repository: &str, number: u64, held: usize) -> Response {
    Response::builder()
        .status(StatusCode::ACCEPTED)
        .header("location", format!("/v2/{repository}/blobs/uploads/{number}"))
        .header("range", format!("0-{}", held.saturating_sub(1)))
        .body(Body::empty())
        .unwrap()
}
