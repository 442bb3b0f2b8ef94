//! One repository on one endpoint: requests with authentication, retries and bounded answers.
//!
//! A try that fails in a way that may pass (no connection, 429, 5xx) is repeated after a wait that doubles
//! and has jitter; a registry's `Retry-After` is kept to, up to the longest wait. 401 is answered once per
//! request, so that a token that ran out during a long pull is replaced.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use minke_common_model::digest::Digest;
use minke_common_model::image_reference::ImageReference;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::options::{Credentials, Patience};
use crate::registry::auth::{self, Answer, Authorization};
use crate::registry::documents::{Descriptor, Document, media};
use crate::registry::endpoint::{Clients, Endpoint};
use crate::registry::{MAX_DOCUMENT, RegistryError};

/// The largest answer of a registry's entrance, in bytes.
const MAX_ENTRANCE: u64 = 64 << 10;
/// Tags asked for at once.
const TAGS_PAGE: usize = 1000;
/// More tags than this in one repository are an error.
const MAX_TAGS: usize = 10_000;
/// How much of an error's body is shown.
const MAX_ERROR: u64 = 64 << 10;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository on an endpoint.
pub struct Session {
    pub(crate) client: Client,
    pub(crate) base: String,
    pub(crate) repository: String,
    pub(crate) patience: Patience,
    credentials: Option<Credentials>,
    scopes: Mutex<Vec<String>>,
    authorization: Mutex<Option<Authorization>>,
}

/// A document with what its bytes are.
pub(crate) struct Fetched {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What it says of itself, else what the registry says.
    pub media_type: String,
    pub document: Document,
}

impl Session {
    /// A session; nothing is sent yet.
    pub fn new(
        clients: &Clients,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Option<&Credentials>,
        access: Access,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        Ok(Self {
            client: clients.get(endpoint, patience.connect)?,
            base: endpoint.base.clone(),
            repository: repository.to_owned(),
            patience,
            credentials: credentials.filter(|_| !endpoint.is_mirror).cloned(),
            scopes: Mutex::new(vec![format!("repository:{repository}:{actions}")]),
            authorization: Mutex::new(None),
        })
    }

    /// A session that only asks whether credentials are good; nothing is sent yet.
    pub(crate) fn for_login(
        clients: &Clients,
        endpoint: &Endpoint,
        credentials: Option<&Credentials>,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let session = Self::new(clients, endpoint, "", credentials, Access::Pull, patience)?;
        lock(&session.scopes).clear();
        Ok(session)
    }

    /// Asks the registry's entrance, which answers only to credentials that it knows.
    pub(crate) async fn enter(&self) -> Result<(), RegistryError> {
        let url = format!("{}/v2/", self.base);
        self.small("login", &|client| client.get(&url), MAX_ENTRANCE).await.map(|_| ())
    }

    /// Every tag of the repository, page by page.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let what = || format!("tags of {}", self.repository);
        let mut tags: Vec<String> = Vec::new();
        loop {
            // The protocol's own way of going on; a registry's link may lead anywhere.
            let mut url = self.url(&format!("tags/list?n={TAGS_PAGE}"));
            if let Some(last) = tags.last() {
                url.push_str(&format!("&last={last}"));
            }
            let get = |client: &Client| client.get(&url);
            let (headers, bytes) = self.small(&what(), &get, MAX_DOCUMENT).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
                RegistryError::Document { what: what(), why: error.to_string() }
            })?;
            let page = page.tags.unwrap_or_default();
            let known = tags.len();
            tags.extend(page.into_iter().filter(|tag| !tag.is_empty()));
            if tags.len() > MAX_TAGS {
                return Err(RegistryError::TooLong { what: what(), limit: MAX_TAGS as u64 });
            }
            if !headers.contains_key("link") || tags.len() == known {
                return Ok(tags);
            }
        }
    }

    /// Asks for repositories about `term`; the answer as it came.
    pub(crate) async fn search(
        &self,
        term: &str,
        count: u32,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let wrong = |_| RegistryError::Document {
            what: "the search".to_owned(),
            why: format!("{} is no address", self.base),
        };
        let mut url = Url::parse(&format!("{}/v1/search", self.base)).map_err(wrong)?;
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &count.to_string());
        let asked = self.small("the search", &|client| client.get(url.clone()), limit).await?;
        Ok(asked.1)
    }

    /// Asks for reading of another repository too, from the next token on.
    pub(crate) fn also_read(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        let mut scopes = lock(&self.scopes);
        if !scopes.contains(&scope) {
            scopes.push(scope);
            *lock(&self.authorization) = None;
        }
    }

    /// The address of something in the repository.
    pub(crate) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// Fetches and checks the manifest or index of a tag or digest.
    pub(crate) async fn document(
        &self,
        reference: &ImageReference,
    ) -> Result<Fetched, RegistryError> {
        let name = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let what = format!("manifest for {}", reference.familiar());
        let url = self.url(&format!("manifests/{name}"));
        let request = |client: &Client| client.get(&url).header(ACCEPT, media::ACCEPT);
        let (headers, bytes) = self.small(&what, &request, MAX_DOCUMENT).await?;
        let digest = Digest::of(&bytes);
        let said = headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
        let said = said.and_then(|text| text.parse().ok());
        if let Some(expected) = reference.digest().copied().or(said)
            && expected != digest
        {
            return Err(RegistryError::Digest { what, expected, found: digest });
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let document = Document::parse(&bytes, content_type.unwrap_or_default())?;
        let media_type = document.media_type().or(content_type).unwrap_or_default().to_owned();
        Ok(Fetched { digest, size: bytes.len() as u64, media_type, document })
    }

    /// Fetches and checks a blob that is small enough for memory.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", blob.digest);
        if blob.size > MAX_DOCUMENT {
            return Err(RegistryError::TooLong { what, limit: MAX_DOCUMENT });
        }
        let url = self.url(&format!("blobs/{}", blob.digest));
        let (_, bytes) = self.small(&what, &|client| client.get(&url), blob.size).await?;
        let found = Digest::of(&bytes);
        if found != blob.digest {
            return Err(RegistryError::Digest { what, expected: blob.digest, found });
        }
        Ok(bytes)
    }

    async fn small(
        &self,
        what: &str,
        request: &(dyn Fn(&Client) -> RequestBuilder + Sync),
        limit: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let mut failures = 0;
        loop {
            let answer = self.send(what, request, &[StatusCode::OK]).await?;
            let headers = answer.headers().clone();
            match self.body(answer, what, limit).await {
                Ok(bytes) => return Ok((headers, bytes)),
                Err(error @ RegistryError::TooLong { .. }) => return Err(error),
                Err(error) => {
                    failures += 1;
                    if failures >= self.patience.attempts {
                        return Err(error);
                    }
                    self.wait(failures, None).await;
                }
            }
        }
    }

    /// Sends until an answer has one of the `good` statuses.
    pub(crate) async fn send(
        &self,
        what: &str,
        request: &(dyn Fn(&Client) -> RequestBuilder + Sync),
        good: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        let mut failures = 0;
        let mut answered = false;
        loop {
            let sent = self.once(request(&self.client)).await;
            let (error, asked_wait) = match sent {
                Ok(answer) if good.contains(&answer.status()) => return Ok(answer),
                Ok(answer) if !answered && self.is_challenge(&answer) => {
                    answered = true;
                    self.authenticate(answer.headers()).await?;
                    continue;
                }
                Ok(answer) => {
                    let wait = retry_after(answer.headers());
                    let passing = may_pass(answer.status());
                    let error = self.refusal(what, answer).await;
                    if !passing {
                        return Err(error);
                    }
                    (error, wait)
                }
                Err(error) => (error, None),
            };
            failures += 1;
            if failures >= self.patience.attempts || is_hopeless(&error) {
                return Err(error);
            }
            self.wait(failures, asked_wait).await;
        }
    }

    /// Whether an answer is a challenge of the registry's own. What it only names as the place of an upload
    /// or sends us to may be anybody's: nobody else learns credentials by asking for them.
    pub(crate) fn is_challenge(&self, answer: &Response) -> bool {
        answer.status() == StatusCode::UNAUTHORIZED && auth::is_own(&self.base, answer.url())
    }

    /// The request with the authorization, if it goes to the registry itself.
    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, RegistryError> {
        let (client, request) = request.build_split();
        let request = request.map_err(|error| transport("asking", &self.base, error))?;
        let is_own = auth::is_own(&self.base, request.url());
        let request = RequestBuilder::from_parts(client, request);
        let known = lock(&self.authorization).clone().filter(|_| is_own);
        Ok(auth::sign(request, known))
    }

    /// One try, given up when no answer begins in time.
    pub(crate) async fn once(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        let request = self.authorized(request)?;
        let limit = self.patience.stall + self.patience.connect;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(transport("asking", &self.base, error)),
            Err(_) => Err(self.stalled(limit)),
        }
    }

    pub(crate) fn stalled(&self, limit: Duration) -> RegistryError {
        RegistryError::Stalled { url: self.base.clone(), seconds: limit.as_secs() }
    }

    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<(), RegistryError> {
        let challenge = auth::challenge(headers)?;
        let scopes = lock(&self.scopes).clone();
        let credentials = self.credentials.as_ref();
        let answer = auth::answer(&self.client, &self.base, challenge, credentials, &scopes)?;
        let authorization = match answer {
            Answer::Ready(authorization) => authorization,
            Answer::Ask(request) => {
                let bytes = self.token(*request).await?;
                auth::token(&bytes)?
            }
        };
        *lock(&self.authorization) = Some(authorization);
        Ok(())
    }

    async fn token(&self, request: RequestBuilder) -> Result<Vec<u8>, RegistryError> {
        let what = "the token";
        let mut failures = 0;
        loop {
            let Some(again) = request.try_clone() else {
                return Err(RegistryError::Challenge("a request that cannot be repeated".into()));
            };
            let limit = self.patience.stall + self.patience.connect;
            let (error, asked_wait) = match tokio::time::timeout(limit, again.send()).await {
                Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
                    return self.body(answer, what, auth::MAX_TOKEN).await;
                }
                Ok(Ok(answer)) => {
                    let wait = retry_after(answer.headers());
                    let passing = may_pass(answer.status());
                    let error = self.refusal(what, answer).await;
                    if !passing {
                        return Err(error);
                    }
                    (error, wait)
                }
                Ok(Err(error)) => (transport("asking", "the token server", error), None),
                Err(_) => (self.stalled(limit), None),
            };
            failures += 1;
            if failures >= self.patience.attempts {
                return Err(error);
            }
            self.wait(failures, asked_wait).await;
        }
    }

    /// The whole body, at most `limit` bytes.
    pub(crate) async fn body(
        &self,
        answer: Response,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let mut stream = answer.bytes_stream();
        loop {
            match tokio::time::timeout(self.patience.stall, stream.next()).await {
                Err(_) => return Err(self.stalled(self.patience.stall)),
                Ok(None) => return Ok(bytes),
                Ok(Some(Err(error))) => return Err(transport("reading from", &self.base, error)),
                Ok(Some(Ok(piece))) => {
                    bytes.extend_from_slice(&piece);
                    if bytes.len() as u64 > limit {
                        return Err(RegistryError::TooLong { what: what.to_owned(), limit });
                    }
                }
            }
        }
    }

    /// The error that an answer with a bad status stands for.
    pub(crate) async fn refusal(&self, what: &str, answer: Response) -> RegistryError {
        let status = answer.status();
        let what = what.to_owned();
        let body = self.body(answer, &what, MAX_ERROR).await.unwrap_or_default();
        let detail = said(&body).unwrap_or_else(|| status.to_string());
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { what, detail },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Denied { what, detail }
            }
            status => RegistryError::Status { what, status: status.as_u16(), detail },
        }
    }

    /// Waits before try number `failures + 1`.
    pub(crate) async fn wait(&self, failures: u32, asked: Option<Duration>) {
        let doubled =
            self.patience.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let most = doubled.min(self.patience.longest_wait);
        // Between half and all of it, so that a fleet does not come back at the same moment.
        let jitter = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let own = most.mul_f64(0.5 + jitter / 2.0);
        let asked = asked.unwrap_or_default().min(self.patience.longest_wait);
        tokio::time::sleep(own.max(asked)).await;
    }
}

/// The message of a registry's error document, or the beginning of another text.
fn said(body: &[u8]) -> Option<String> {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = match &parsed {
        Some(value) => {
            let first = &value["errors"][0];
            let code = first["code"].as_str().unwrap_or_default().to_lowercase().replace('_', " ");
            let message = first["message"].as_str().unwrap_or_default();
            format!("{code}: {message}").trim_matches([':', ' ']).to_owned()
        }
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    (!text.is_empty()).then_some(text)
}

pub(crate) fn transport(what: &'static str, url: &str, source: reqwest::Error) -> RegistryError {
    let url = match source.url() {
        // Signed addresses carry secrets in their query.
        Some(url) => format!("{}://{}{}", url.scheme(), url.authority(), url.path()),
        None => url.to_owned(),
    };
    RegistryError::Transport { what, url, source: source.without_url() }
}

fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Failures that the next try would only repeat.
fn is_hopeless(error: &RegistryError) -> bool {
    match error {
        RegistryError::Transport { source, .. } => {
            source.is_redirect() || source.is_builder() || is_tls_refusal(source)
        }
        _ => false,
    }
}

/// Whether the other side does not speak TLS, or not one that is acceptable: asking again changes
/// nothing, and a registry that may go without TLS is asked that way next.
fn is_tls_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error's source leaves out the error that it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map(|inner| inner as &(dyn std::error::Error + 'static)).or(error.source());
    }
    false
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_without_tls_is_not_asked_again_with_it() {
        use std::io::{Read, Write};
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").unwrap();
        });
        let asked = Client::new().get(format!("https://{address}/v2/")).send().await;
        server.join().unwrap();
        assert!(is_hopeless(&transport("asking", "x", asked.unwrap_err())));
        let refused = Client::new().get("http://127.0.0.1:1/").send().await;
        assert!(!is_hopeless(&transport("asking", "x", refused.unwrap_err())));
    }

    #[test]
    fn shows_what_registries_say() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(said(body).as_deref(), Some("manifest unknown: manifest unknown"));
        assert_eq!(said(b"gone\x1b[31m").as_deref(), Some("gone[31m"));
        assert_eq!(said(b""), None);
    }
}
