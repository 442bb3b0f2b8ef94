//! The target state: asked for at once when there is a reason, else now and then.
//!
//! The last target and its ETag are on disk, so a device that starts without a network goes on
//! with what it was told, and one that starts with a network fetches only what has changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use minke_common_model::config_variables::DeviceConfig;
use minke_common_model::ids::DeviceUuid;
use minke_common_model::target_state::{self, DeviceTarget};
use minke_device_store::{Document, Loaded};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::http::{CloudHttp, HttpError, body, causes, send};
use crate::random;

#[cfg(test)]
mod tests;

/// A target as it was fetched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Target {
    /// What to run.
    pub device: DeviceTarget,
    /// Apps that break a rule, and which; they are not in `device`.
    pub rejected: BTreeMap<String, String>,
}

/// On disk; version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    /// An ETag of one server says nothing to another.
    endpoint: String,
    uuid: DeviceUuid,
    etag: Option<String>,
    body: String,
}

/// Whether the looks succeed, for `/v1/healthy`.
#[derive(Debug)]
pub struct PollHealth {
    started: Instant,
    last_success_ms: AtomicU64,
    interval_ms: AtomicU64,
}

impl PollHealth {
    fn new() -> PollHealth {
        PollHealth {
            started: Instant::now(),
            last_success_ms: AtomicU64::new(0),
            interval_ms: AtomicU64::new(900_000),
        }
    }

    /// Whether the last good look is not older than two intervals.
    pub fn is_healthy(&self) -> bool {
        let age = self.started.elapsed().as_millis() as u64
            - self.last_success_ms.load(Ordering::Relaxed);
        age <= 2 * self.interval_ms.load(Ordering::Relaxed)
    }

    fn succeeded(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        self.last_success_ms.store(now, Ordering::Relaxed);
    }
}

/// Asks for the target and keeps the last one.
pub struct TargetFollower {
    http: CloudHttp,
    uuid: DeviceUuid,
    document: Document<Saved>,
    /// Where the last answer came from and its ETag.
    seen: Option<(String, String)>,
    health: Arc<PollHealth>,
    latest: watch::Sender<Option<Arc<Target>>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the target state is not acted on")]
    Target(#[source] target_state::TargetError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    Same,
    New,
}

impl TargetFollower {
    /// A follower for the device `uuid` that keeps its last target in the directory `dir`.
    pub fn new(http: CloudHttp, uuid: DeviceUuid, dir: &Path) -> TargetFollower {
        let document = Document::new(dir, "target");
        let (latest, _) = watch::channel(None);
        let health = Arc::new(PollHealth::new());
        let mut follower = TargetFollower { http, uuid, document, seen: None, health, latest };
        follower.recall();
        follower
    }

    /// The latest target; `None` until there was one.
    pub fn latest(&self) -> watch::Receiver<Option<Arc<Target>>> {
        self.latest.subscribe()
    }

    /// Whether the looks succeed.
    pub fn health(&self) -> Arc<PollHealth> {
        self.health.clone()
    }

    fn recall(&mut self) {
        let saved = match self.document.load() {
            Ok(Loaded::Previous { damage, value }) => {
                warn!(damage, "the last target is damaged; going on with the one before");
                // Its ETag is older than what the server said last, so the next look brings all.
                Some(value)
            }
            Ok(loaded) => loaded.value(),
            Err(error) => {
                warn!(%error, "the last target is lost; waiting for the server");
                None
            }
        };
        let Some(saved) = saved.filter(|saved| saved.uuid == self.uuid) else { return };
        match DeviceTarget::parse(saved.body.as_bytes(), &self.uuid) {
            Ok(parsed) => {
                self.seen = saved.etag.map(|etag| (saved.endpoint, etag));
                self.publish(parsed);
            }
            Err(error) => warn!(%error, "the last target cannot be read any more"),
        }
    }

    fn publish(&self, parsed: target_state::Parsed) {
        let rejected: BTreeMap<String, String> = parsed
            .rejected
            .into_iter()
            .map(|(app, error)| {
                let cause = causes(&error);
                let reason =
                    if cause.is_empty() { error.to_string() } else { format!("{error}: {cause}") };
                (app, reason)
            })
            .collect();
        let target = Target { device: parsed.device, rejected };
        self.latest.send_replace(Some(Arc::new(target)));
    }

    /// One request. A new target is given out first and stored after: a crash between only
    /// fetches it again.
    pub(crate) async fn look(&mut self) -> Result<Looked, LookError> {
        const DOING: &str = "asking for the target state";
        let config = self.http.config_file().get();
        let endpoint = config.endpoint().unwrap_or_default().to_owned();
        let path = format!("/device/v3/{}/state", self.uuid);
        let timeout = self.config().api_request_timeout;
        let mut request = self
            .http
            .request(&config, Method::GET, &path, config.device_api_key.as_deref())?
            .timeout(timeout);
        if let Some((_, etag)) = self.seen.as_ref().filter(|(from, _)| *from == endpoint) {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = send(DOING, request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            self.health.succeeded();
            return Ok(Looked::Same);
        }
        let etag =
            response.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = body(DOING, response, target_state::MAX_BYTES).await?;
        self.health.succeeded();
        let parsed = DeviceTarget::parse(&bytes, &self.uuid).map_err(LookError::Target)?;
        self.publish(parsed);
        self.seen = etag.clone().map(|etag| (endpoint.clone(), etag));
        let body = String::from_utf8_lossy(&bytes).into_owned();
        let saved = Saved { endpoint, uuid: self.uuid.clone(), etag, body };
        if let Err(error) = self.document.save(&saved) {
            warn!(%error, "the target is acted on but will be asked for again after a restart");
        }
        Ok(Looked::New)
    }

    /// What the last target says of this very polling, else what config.json says.
    fn config(&self) -> DeviceConfig {
        let latest = self.latest.borrow().clone();
        let variables = latest.map(|target| target.device.config.clone()).unwrap_or_default();
        let (mut config, _) = DeviceConfig::from_variables(&variables);
        let says_interval = variables.keys().any(|name| name.ends_with("SUPERVISOR_POLL_INTERVAL"));
        if !says_interval && let Some(interval) = self.http.config_file().get().poll_interval() {
            config.poll_interval = interval;
        }
        config
    }

    /// Looks for ever: at once when `wanted` is notified, else each interval and a little more.
    pub async fn run(mut self, wanted: Arc<Notify>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(900));
        loop {
            let interval = self.config().poll_interval;
            self.health.interval_ms.store(interval.as_millis() as u64, Ordering::Relaxed);
            let pause = match self.look().await {
                Ok(looked) => {
                    backoff.succeeded();
                    match looked {
                        Looked::New => info!("a new target"),
                        Looked::Same => debug!("the target is the same"),
                    }
                    let jitter = (interval / 4).min(Duration::from_secs(60));
                    interval + jitter.mul_f64(random::fraction())
                }
                Err(error) => {
                    let retry_after = match &error {
                        LookError::Http(error) => error.retry_after(),
                        LookError::Target(_) => Some(interval),
                    };
                    let wait = backoff.failed(retry_after, random::fraction());
                    let cause = causes(&error);
                    warn!(%error, cause, "the target could not be looked for");
                    wait.min(interval.max(retry_after.unwrap_or_default()))
                }
            };
            // Both arms are cancel-safe: a notification that comes during a look is kept.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wanted.notified() => {}
            }
        }
    }
}
