//! Requests to the server, wherever config.json says it is now.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minke_common_model::config_json::ConfigJson;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode};

use crate::config_file::ConfigFile;

#[cfg(test)]
mod tests;

/// Longest text of a refusal that is kept for the log, in characters.
const MAX_REASON: usize = 300;
/// Most redirects that one request follows.
const MAX_REDIRECTS: usize = 3;

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum HttpError {
    #[error("config.json names no server")]
    NoServer,
    #[error("making the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("balenaRootCA in config.json holds no certificates in base64 that can be used")]
    RootCa,
    #[error("{doing}")]
    Transport { doing: &'static str, source: reqwest::Error },
    #[error("{doing}: the server answered {status}: {reason}")]
    Refused {
        doing: &'static str,
        status: StatusCode,
        reason: String,
        retry_after: Option<Duration>,
    },
    #[error("{doing}: the answer has more than {limit} bytes")]
    TooLong { doing: &'static str, limit: usize },
    #[error("{doing}: the answer is not what the protocol says: {what}")]
    Protocol { doing: &'static str, what: String },
}

impl HttpError {
    /// The answer's status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            HttpError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            HttpError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What the device says of its software when it registers and in its user agent.
#[derive(Debug, Clone)]
pub struct SoftwareVersions {
    /// Version of the supervisor.
    pub supervisor: String,
    /// `PRETTY_NAME` of the host OS.
    pub os_version: String,
    /// `prod` or `dev`.
    pub os_variant: String,
}

/// A client for one device; clones share its connections.
#[derive(Debug, Clone)]
pub struct CloudHttp {
    client: Arc<Mutex<Trusting>>,
    config: ConfigFile,
    versions: SoftwareVersions,
}

/// A client that believes those whom the operating system believes, and this authority.
#[derive(Debug)]
struct Trusting {
    /// `balenaRootCA` as it stands in config.json.
    root_ca: Option<String>,
    client: Client,
}

impl CloudHttp {
    /// A client that asks `config` for the server, its authority and the key at each request.
    pub fn new(config: ConfigFile, versions: SoftwareVersions) -> Result<CloudHttp, HttpError> {
        // A second installation by another part of the same process is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // An authority that cannot be used is an error of each request, not of this start: config.json
        // may be mended while the process runs.
        let client = client(&versions, None)?;
        let client = Arc::new(Mutex::new(Trusting { root_ca: None, client }));
        Ok(CloudHttp { client, config, versions })
    }

    /// The client for what config.json says now. It is made anew, without the connections of the old
    /// one, when another authority stands there.
    fn client(&self, config: &ConfigJson) -> Result<Client, HttpError> {
        let root_ca = config.other.get("balenaRootCA").and_then(|value| value.as_str());
        let root_ca = root_ca.filter(|text| !text.is_empty());
        let mut trusting = self.client.lock().expect("no panic while it is held");
        if trusting.root_ca.as_deref() != root_ca {
            let client = client(&self.versions, root_ca)?;
            *trusting = Trusting { root_ca: root_ca.map(str::to_owned), client };
        }
        Ok(trusting.client.clone())
    }

    /// The file that says where the server is.
    pub fn config_file(&self) -> &ConfigFile {
        &self.config
    }

    /// What this device says of its software.
    pub fn versions(&self) -> &SoftwareVersions {
        &self.versions
    }

    pub(crate) fn request(
        &self,
        config: &ConfigJson,
        method: Method,
        path: &str,
        key: Option<&str>,
    ) -> Result<RequestBuilder, HttpError> {
        let endpoint = config.endpoint().ok_or(HttpError::NoServer)?;
        self.request_at(endpoint, config, method, path, key)
    }

    pub(crate) fn request_at(
        &self,
        endpoint: &str,
        config: &ConfigJson,
        method: Method,
        path: &str,
        key: Option<&str>,
    ) -> Result<RequestBuilder, HttpError> {
        let request = self.client(config)?.request(method, format!("{endpoint}{path}"));
        Ok(match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }
}

fn client(versions: &SoftwareVersions, root_ca: Option<&str>) -> Result<Client, HttpError> {
    let agent = format!(
        "Supervisor/{} (Linux; {}; {})",
        versions.supervisor, versions.os_version, versions.os_variant
    );
    Client::builder()
        .user_agent(agent)
        .tls_certs_merge(root_ca.map(certificates).transpose()?.unwrap_or_default())
        .connect_timeout(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(2)
        // A connection that waits is not worth a packet: one that has died is made anew.
        .tcp_keepalive(None)
        .redirect(Policy::custom(redirect))
        .build()
        .map_err(HttpError::Client)
}

/// Follows what keeps the method, the body and the key of a request; any other is its answer. A report
/// that became a `GET`, or went without its key to somebody else's page, would be taken for one that
/// arrived.
fn redirect(attempt: Attempt<'_>) -> Action {
    let keeps_method = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];
    let asked = attempt.previous();
    let is_same_server = asked.last().is_some_and(|url| url.origin() == attempt.url().origin());
    let may_follow = keeps_method.contains(&attempt.status()) && is_same_server;
    match may_follow && asked.len() <= MAX_REDIRECTS {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

fn certificates(root_ca: &str) -> Result<Vec<Certificate>, HttpError> {
    let pem = STANDARD.decode(root_ca).map_err(|_| HttpError::RootCa)?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| HttpError::RootCa)?;
    Some(certificates).filter(|found| !found.is_empty()).ok_or(HttpError::RootCa)
}

/// Sends, and turns every answer that is neither 2xx nor 304 into an error.
pub(crate) async fn send(
    doing: &'static str,
    request: RequestBuilder,
) -> Result<Response, HttpError> {
    let response = request.send().await.map_err(|source| HttpError::Transport { doing, source })?;
    check(doing, response).await
}

/// Turns an answer that is neither 2xx nor 304 into an error that says why.
pub(crate) async fn check(doing: &'static str, response: Response) -> Result<Response, HttpError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
    let reason = match location {
        Some(location) => format!("it points to {}", String::from_utf8_lossy(location.as_bytes())),
        None => {
            let bytes = body(doing, response, 64 * 1024).await.unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let reason = reason.chars().take(MAX_REASON).collect();
    Err(HttpError::Refused { doing, status, reason, retry_after })
}

/// The whole body, if it has at most `limit` bytes.
pub(crate) async fn body(
    doing: &'static str,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|source| HttpError::Transport { doing, source })?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(HttpError::TooLong { doing, limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What caused an error, outermost first, on one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(error.source(), |cause| cause.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
