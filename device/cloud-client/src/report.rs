//! Reports: what has changed since the last report that the server acknowledged.
//!
//! A report is a state, not an event: while the server cannot be reached only the latest is kept,
//! and the first that gets through says everything that differs.

use std::time::Duration;

use minke_common_model::ids::DeviceUuid;
use minke_common_model::reported_state::DeviceReport;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::http::{CloudHttp, HttpError, causes, send};
use crate::lease::{Intervals, Next, TunnelLease};
use crate::random;

#[cfg(test)]
mod tests;

/// Between two reports on average.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Between two reports that say nothing but metrics; with a tunnel, whose heartbeat says already
/// that the device lives, they are most of what an idle device sends.
const METRICS: Intervals =
    Intervals { alone: Duration::from_secs(300), connected: Duration::from_secs(60 * 60) };
/// Reports that may go soon, before the average counts: the end of an update is one of them.
const BURST: f64 = 4.0;
/// Between two of those: what happens meanwhile is said together.
const APART: Duration = Duration::from_secs(1);

/// Numbers that always move.
const MOVING: [&str; 12] = [
    "memory_usage",
    "memory_total",
    "storage_block_device",
    "storage_usage",
    "storage_total",
    "cpu_temp",
    "cpu_usage",
    "cpu_id",
    "is_undervolted",
    "mac_address",
    "ip_address",
    "os_variant",
];

/// How much a difference matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Only numbers that always move.
    Metrics,
    /// Only how far a download is.
    Progress,
    /// Something began, ended or failed.
    Change,
}

/// The keys of `now` that differ from `acknowledged`; a key that is gone is `null`.
fn difference(acknowledged: &Map<String, Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let changed = now
        .iter()
        .filter(|(key, value)| acknowledged.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()));
    let gone = acknowledged
        .iter()
        .filter(|(key, value)| !value.is_null() && !now.contains_key(*key))
        .map(|(key, _)| (key.clone(), Value::Null));
    changed.chain(gone).collect()
}

fn weight(acknowledged: &Map<String, Value>, difference: &Map<String, Value>) -> Weight {
    difference
        .iter()
        .map(|(key, value)| match key.as_str() {
            key if MOVING.contains(&key) && acknowledged.contains_key(key) => Weight::Metrics,
            "apps" | "status"
                if acknowledged.get(key).map(without_progress) == Some(without_progress(value)) =>
            {
                Weight::Progress
            }
            _ => Weight::Change,
        })
        .max()
        .unwrap_or(Weight::Metrics)
}

fn without_progress(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| key.as_str() != "download_progress")
            .map(|(key, value)| (key.clone(), without_progress(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// When a report may go: a change soon while there is burst left, never more than one in
/// [`MIN_INTERVAL`] on average.
#[derive(Debug)]
struct Pace {
    burst: f64,
    counted_at: Instant,
    last: Option<Instant>,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { burst: BURST, counted_at: now, last: None }
    }

    fn refill(&mut self, now: Instant) {
        let earned = (now - self.counted_at).as_secs_f64() / MIN_INTERVAL.as_secs_f64();
        self.burst = (self.burst + earned).min(BURST);
        self.counted_at = now;
    }

    fn allowed_at(&mut self, weight: Weight, now: Instant, tunnel: Option<Instant>) -> Next {
        self.refill(now);
        let at = |due| Next { due, think: due };
        let Some(last) = self.last else { return at(now) };
        match weight {
            Weight::Metrics => METRICS.next(last, tunnel),
            Weight::Progress => at(last + MIN_INTERVAL),
            Weight::Change if self.burst >= 1.0 => at(now.max(last + APART)),
            Weight::Change => at(now + MIN_INTERVAL.mul_f64(1.0 - self.burst)),
        }
    }

    fn sent(&mut self, now: Instant) {
        self.refill(now);
        self.burst -= 1.0;
        self.last = Some(now);
    }
}

/// Sends reports.
pub struct Reporter {
    http: CloudHttp,
    uuid: DeviceUuid,
    acknowledged: Map<String, Value>,
    /// The server that acknowledged it: another one knows nothing.
    endpoint: Option<String>,
}

impl Reporter {
    /// A reporter for `uuid`; the first report says everything.
    pub fn new(http: CloudHttp, uuid: DeviceUuid) -> Reporter {
        Reporter { http, uuid, acknowledged: Map::new(), endpoint: None }
    }

    async fn send(
        &mut self,
        now: &Map<String, Value>,
        part: &Map<String, Value>,
    ) -> Result<(), HttpError> {
        let config = self.http.config_file().get();
        let request = self
            .http
            .request(&config, Method::PATCH, "/device/v3/state", config.device_api_key.as_deref())?
            .timeout(Duration::from_secs(59))
            .json(&json!({ self.uuid.as_str(): part }));
        send("reporting the device's state", request).await?;
        self.acknowledged = now.clone();
        Ok(())
    }

    /// Reports for ever what `current` holds, mere metrics seldom while `tunnel` lasts; ends when the
    /// sender of `current` is gone.
    pub async fn run(mut self, mut current: watch::Receiver<DeviceReport>, tunnel: TunnelLease) {
        let mut tunnel_changes = tunnel.changes();
        let mut pace = Pace::new(Instant::now());
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(900));
        let mut held_until: Option<Instant> = None;
        loop {
            let now = as_map(&current.borrow_and_update());
            let endpoint = self.http.config_file().get().api_endpoint;
            if self.endpoint != endpoint {
                self.endpoint = endpoint;
                self.acknowledged.clear();
            }
            let part = difference(&self.acknowledged, &now);
            let wake = if part.is_empty() {
                None
            } else {
                let weight = weight(&self.acknowledged, &part);
                let allowed = pace.allowed_at(weight, Instant::now(), tunnel.until());
                let held = |at: Instant| held_until.map_or(at, |held| held.max(at));
                if held(allowed.due) <= Instant::now() {
                    pace.sent(Instant::now());
                    held_until = match self.send(&now, &part).await {
                        Ok(()) => {
                            debug!("reported");
                            backoff.succeeded();
                            None
                        }
                        Err(error) => {
                            let wait = backoff.failed(error.retry_after(), random::fraction());
                            let cause = causes(&error);
                            warn!(%error, cause, "the report did not get through");
                            Some(Instant::now() + wait)
                        }
                    };
                    continue;
                }
                Some(held(allowed.think))
            };
            // Every arm is cancel-safe.
            tokio::select! {
                () = sleep_until(wake) => {}
                changed = current.changed() => if changed.is_err() { return },
                // The lease is held here too, so its sender is there.
                _ = tunnel_changes.changed() => {}
            }
        }
    }
}

fn as_map(report: &DeviceReport) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
