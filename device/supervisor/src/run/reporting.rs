//! Keeps the report up to date with what the loop, the pulls and the host say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use minke_common_model::reported_state::DeviceReport;
use minke_device_cloud_client::{ConfigFile, SoftwareVersions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api_keys::ApiKeys;
use crate::device_view::DeviceView;
use crate::host;
use crate::metrics::Metrics;
use crate::perform::Progress;
use crate::reconcile::Status;
use crate::report::{Applied, View, note_applied};

#[cfg(test)]
mod tests;

/// Between two looks at the host's numbers.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Reporting {
    pub keys: ApiKeys,
    pub config: ConfigFile,
    pub versions: SoftwareVersions,
    pub data: PathBuf,
    pub listen_port: u16,
    pub status: watch::Receiver<Status>,
    pub progress: watch::Receiver<Progress>,
    pub view: watch::Receiver<Arc<DeviceView>>,
    pub report: watch::Sender<DeviceReport>,
}

impl Reporting {
    /// Runs until the loop is gone.
    pub async fn run(mut self) {
        let mut applied = Applied::new();
        let mut metrics = Metrics::default();
        let mut base = self.base(&mut metrics, None);
        // One at a time: a name server that is silent holds up this address and nothing else.
        let mut lookups = JoinSet::from_iter([find_address(self.config.clone())]);
        let mut tick = tokio::time::interval(METRICS_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            self.publish(&base, &mut applied);
            // Every arm is cancel-safe and none awaits in its body.
            tokio::select! {
                changed = self.status.changed() => if changed.is_err() { return },
                changed = self.progress.changed() => if changed.is_err() { return },
                changed = self.view.changed() => if changed.is_err() { return },
                Some(found) = lookups.join_next(), if !lookups.is_empty() => {
                    base.ip_address = found.ok().flatten();
                }
                _ = tick.tick() => {
                    base = self.base(&mut metrics, base.ip_address.take());
                    if lookups.is_empty() {
                        lookups.spawn(find_address(self.config.clone()));
                    }
                }
            }
        }
    }

    /// What the device is, apart from its apps.
    fn base(&self, metrics: &mut Metrics, ip_address: Option<String>) -> DeviceReport {
        let mut other = serde_json::Map::new();
        if self.view.borrow().config.hardware_metrics {
            other = metrics.sample(&self.data);
        }
        other.insert("provisioning_state".to_owned(), "".into());
        DeviceReport {
            status: Some("Idle".to_owned()),
            os_version: Some(self.versions.os_version.clone()),
            os_variant: Some(self.versions.os_variant.clone()),
            supervisor_version: Some(self.versions.supervisor.clone()),
            api_port: Some(self.listen_port),
            api_secret: Some(self.keys.global()),
            ip_address,
            mac_address: Some(host::mac_addresses()),
            other,
            ..DeviceReport::default()
        }
    }

    fn publish(&mut self, base: &DeviceReport, applied: &mut Applied) {
        let status = self.status.borrow_and_update().clone();
        let progress = self.progress.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        note_applied(&status, applied);
        let apps = View {
            device: &view.device,
            rejected: &view.rejected,
            status: &status,
            progress: &progress,
            applied,
        };
        let mut report = base.clone();
        report.api_secret = Some(self.keys.global());
        // Before the first look at the engine there is nothing true to say of apps.
        report.apps = status.target.is_some().then(|| apps.apps());
        self.report.send_if_modified(|last| {
            let is_new = *last != report;
            if is_new {
                *last = report;
            }
            is_new
        });
    }
}

async fn find_address(config: ConfigFile) -> Option<String> {
    host::address_towards(config.get().endpoint()?).await
}
