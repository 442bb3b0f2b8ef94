//! Requests to the server, wherever config.json says it is now.

use std::time::Duration;

use minke_common_model::config_json::ConfigJson;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::config_file::ConfigFile;

/// Longest text of a refusal that is kept for the log, in characters.
const MAX_REASON: usize = 300;

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum HttpError {
    #[error("config.json names no server")]
    NoServer,
    #[error("making the HTTP client")]
    Client(#[source] reqwest::Error),
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
    client: reqwest::Client,
    config: ConfigFile,
    versions: SoftwareVersions,
}

impl CloudHttp {
    /// A client that asks `config` for the server and the key at each request.
    pub fn new(config: ConfigFile, versions: SoftwareVersions) -> Result<CloudHttp, HttpError> {
        // A second installation by another part of the same process is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let agent = format!(
            "Supervisor/{} (Linux; {}; {})",
            versions.supervisor, versions.os_version, versions.os_variant
        );
        let client = reqwest::Client::builder()
            .user_agent(agent)
            .connect_timeout(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(2)
            // A connection that waits is not worth a packet: one that has died is made anew.
            .tcp_keepalive(None)
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()
            .map_err(HttpError::Client)?;
        Ok(CloudHttp { client, config, versions })
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
        Ok(self.request_at(endpoint, method, path, key))
    }

    pub(crate) fn request_at(
        &self,
        endpoint: &str,
        method: Method,
        path: &str,
        key: Option<&str>,
    ) -> RequestBuilder {
        let request = self.client.request(method, format!("{endpoint}{path}"));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
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
    let reason = body(doing, response, 64 * 1024)
        .await
        .map(|bytes| String::from_utf8_lossy(&bytes).chars().take(MAX_REASON).collect())
        .unwrap_or_default();
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
