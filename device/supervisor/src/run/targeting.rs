//! From what the server sent to what the planner compares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minke_common_model::config_variables::DeviceConfig;
use minke_common_model::ids::{AppUuid, Commit};
use minke_device_cloud_client::{ConfigFile, Target as Fetched};
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::compose::{Facts, build_target};
use crate::device_view::DeviceView;
use crate::memory::Memory;
use crate::narrate::Narrator;
use crate::state::Target;

pub(super) struct Targeting {
    pub facts: Facts,
    pub config: ConfigFile,
    pub latest: watch::Receiver<Option<Arc<Fetched>>>,
    pub view: watch::Sender<Arc<DeviceView>>,
    pub planned: watch::Sender<Option<Arc<Target>>>,
    pub memory: Memory,
    pub logs_wanted: Arc<AtomicBool>,
    pub narrator: Narrator,
    pub wake: Arc<Notify>,
    /// The release of each app that people were told of.
    pub told: BTreeMap<AppUuid, Commit>,
}

/// The releases of a target, by app.
pub(super) fn releases(fetched: Option<&Fetched>) -> BTreeMap<AppUuid, Commit> {
    let apps = fetched.into_iter().flat_map(|fetched| &fetched.device.apps);
    let releases = apps.filter_map(|(uuid, app)| Some((uuid.clone(), app.release()?.0.clone())));
    releases.collect()
}

impl Targeting {
    /// Runs until nobody fetches any more.
    pub async fn run(mut self) {
        loop {
            let fetched = self.latest.borrow_and_update().clone();
            if let Some(fetched) = fetched {
                self.take(&fetched);
            }
            if self.latest.changed().await.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, fetched: &Fetched) {
        // Before anything is done about them.
        let releases = releases(Some(fetched));
        for (app, commit) in &releases {
            if self.told.get(app) != Some(commit) {
                self.narrator.say(format!("Applying release {commit}"));
            }
        }
        self.told = releases;
        let config_json = self.config.get();
        self.facts.name = fetched.device.name.clone();
        self.facts.api_endpoint = config_json.endpoint().map(str::to_owned);
        self.facts.device_key = config_json.device_api_key.clone();
        let mut built = build_target(&self.facts, &fetched.device);
        for (app, reason) in &fetched.rejected {
            self.refuse(app, reason);
            // One whose name cannot be read has nothing here either.
            built.target.untouched.extend(app.parse());
        }
        for (app, reason) in &built.rejected {
            self.refuse(app.as_str(), reason);
        }
        for warning in &built.warnings {
            warn!(warning, "left out of the target");
            self.narrator.say(format!("Warning: {warning}"));
        }
        let (config, bad) = DeviceConfig::from_variables(&fetched.device.config);
        for value in bad {
            warn!(%value, "its default holds");
        }
        self.logs_wanted.store(config.log_control, Ordering::Relaxed);
        self.memory.wish(|wishes| wishes.override_locks = config.override_lock);
        let view = DeviceView {
            uuid: Some(self.facts.uuid.clone()),
            name: fetched.device.name.clone(),
            arch: self.facts.arch.clone(),
            device_type: self.facts.device_type.clone(),
            config,
            device: fetched.device.clone(),
            rejected: built.target.untouched.clone(),
        };
        self.view.send_replace(Arc::new(view));
        self.planned.send_replace(Some(Arc::new(built.target)));
        self.wake.notify_one();
    }

    fn refuse(&self, app: &str, reason: &str) {
        warn!(app, reason, "an app cannot be run; what runs of it goes on");
        self.narrator.say(format!("Could not move to new release: {reason}"));
    }
}
