//! The target state: asked for at once when there is a reason, else now and then.
//!
//! The last target and its ETag are on disk, so a device that starts without a network goes on
//! with what it was told, and one that starts with a network fetches only what has changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minke_common_model::config_variables::{DeviceConfig, MAX_POLL_INTERVAL, MIN_POLL_INTERVAL};
use minke_common_model::ids::DeviceUuid;
use minke_common_model::target_state::{self, DeviceTarget};
use minke_device_store::{Document, Loaded};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::http::{CloudHttp, HttpError, body, causes, send};
use crate::lease::{Intervals, TunnelLease};
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

/// Between two looks while the server says through the tunnel when there is something new.
const CONNECTED_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// After so many failed looks a short request timeout that the target sets is not obeyed: the look
/// that would change it may be what it cuts off.
const OBEYED_LOOKS: u32 = 3;

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
    /// When the next good look is too late, in milliseconds after the start.
    late_ms: AtomicU64,
}

impl PollHealth {
    fn new() -> PollHealth {
        PollHealth { started: Instant::now(), late_ms: AtomicU64::new(2 * 900_000) }
    }

    /// Whether no good look is overdue by more than an interval.
    pub fn is_healthy(&self) -> bool {
        self.started.elapsed().as_millis() as u64 <= self.late_ms.load(Ordering::Relaxed)
    }

    /// The last look was good, and the next is due then.
    fn expect(&self, due: Instant, interval: Duration) {
        let late = due + interval - self.started;
        self.late_ms.store(late.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Asks for the target and keeps the last one.
pub struct TargetFollower {
    http: CloudHttp,
    uuid: DeviceUuid,
    document: Document<Saved>,
    /// Where the last answer came from and its ETag.
    seen: Option<(String, String)>,
    /// Looks that failed since the last good one.
    failed_looks: u32,
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
        let (seen, failed_looks) = (None, 0);
        let mut follower =
            TargetFollower { http, uuid, document, seen, failed_looks, health, latest };
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

    /// One request, counted.
    pub(crate) async fn look(&mut self) -> Result<Looked, LookError> {
        let looked = self.ask().await;
        self.failed_looks = if looked.is_ok() { 0 } else { self.failed_looks.saturating_add(1) };
        looked
    }

    /// A new target is given out first and stored after: a crash between only fetches it again.
    async fn ask(&mut self) -> Result<Looked, LookError> {
        const DOING: &str = "asking for the target state";
        let config = self.http.config_file().get();
        let endpoint = config.endpoint().unwrap_or_default().to_owned();
        let path = format!("/device/v3/{}/state", self.uuid);
        let timeout = request_timeout(self.config().api_request_timeout, self.failed_looks);
        let mut request = self
            .http
            .request(&config, Method::GET, &path, config.device_api_key.as_deref())?
            .timeout(timeout);
        if let Some((_, etag)) = self.seen.as_ref().filter(|(from, _)| *from == endpoint) {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = send(DOING, request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Looked::Same);
        }
        let etag =
            response.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = body(DOING, response, target_state::MAX_BYTES).await?;
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
            config.poll_interval = interval.clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        }
        config
    }

    /// Looks for ever: at once when `wanted` is notified, else each interval and a little more, and
    /// seldom while `tunnel` lasts.
    pub async fn run(mut self, wanted: Arc<Notify>, tunnel: TunnelLease) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(900));
        loop {
            let looked = self.look().await;
            let (interval, fraction) = (self.config().poll_interval, random::fraction());
            match looked {
                Ok(looked) => {
                    backoff.succeeded();
                    match looked {
                        Looked::New => info!("a new target"),
                        Looked::Same => debug!("the target is the same"),
                    }
                    let health = self.health.clone();
                    self.intervals(fraction)
                        .rest(&tunnel, &wanted, fraction, |due| health.expect(due, interval))
                        .await;
                }
                Err(error) => {
                    let retry_after = match &error {
                        LookError::Http(error) => error.retry_after(),
                        LookError::Target(_) => Some(interval),
                    };
                    let wait = backoff.failed(retry_after, fraction);
                    let cause = causes(&error);
                    warn!(%error, cause, "the target could not be looked for");
                    let pause = wait.min(interval.max(retry_after.unwrap_or_default()));
                    // Both arms are cancel-safe: a notification that comes during a look is kept.
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = wanted.notified() => {}
                    }
                }
            }
        }
    }

    /// The configured interval and a little more; where the server may not say when to look, it is
    /// the same with a tunnel.
    fn intervals(&self, fraction: f64) -> Intervals {
        let config = self.config();
        let jittered = |interval: Duration| {
            interval + (interval / 4).min(Duration::from_secs(60)).mul_f64(fraction)
        };
        let alone = jittered(config.poll_interval);
        let connected = if config.instant_updates { jittered(CONNECTED_INTERVAL) } else { alone };
        Intervals { alone, connected }
    }
}

/// How long a look may take.
fn request_timeout(configured: Duration, failed_looks: u32) -> Duration {
    match failed_looks < OBEYED_LOOKS {
        true => configured,
        false => configured.max(DeviceConfig::default().api_request_timeout),
    }
}
