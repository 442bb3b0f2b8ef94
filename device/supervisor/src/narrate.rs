//! Tells people what is being done, as system lines in the device's log.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use minke_common_model::ids::{ServiceId, ServiceName};
use minke_device_cloud_client::{LogLine, LogSink};

use crate::plan::Plan;
use crate::state::Target;
use crate::step::{Step, Wait};

/// Writes system lines; silent without a sink.
#[derive(Clone, Default)]
pub(crate) struct Narrator {
    sink: Option<LogSink>,
    last_wait: Arc<Mutex<Option<String>>>,
}

impl Narrator {
    pub fn new(sink: LogSink) -> Narrator {
        Narrator { sink: Some(sink), last_wait: Arc::default() }
    }

    /// Says a line that is about no service.
    pub fn say(&self, message: String) {
        self.line(message, None, false);
    }

    pub fn begun(&self, step: &Step, target: &Target) {
        let Some((doing, _, what)) = words(step) else { return };
        self.line(format!("{doing} {what}"), service_id(step, target), false);
    }

    pub fn done(&self, step: &Step, target: Option<&Target>) {
        let Some((_, done, what)) = words(step) else { return };
        let service = target.and_then(|target| service_id(step, target));
        self.line(format!("{done} {what}"), service, false);
    }

    pub fn failed(&self, step: &Step, target: Option<&Target>, reason: &str) {
        let service = target.and_then(|target| service_id(step, target));
        self.line(format!("Failed to {step} due to '{reason}'"), service, true);
    }

    /// Says once what everything waits for.
    pub fn waits(&self, plan: &Plan) {
        let is_locked = plan.waits.iter().any(|wait| matches!(wait, Wait::UpdateLock(_)));
        let message = is_locked.then(|| "Updates are locked, retrying in 1s".to_owned());
        let mut last = self.last_wait.lock().expect("no panic while it is held");
        if *last != message {
            if let Some(message) = &message {
                self.line(message.clone(), None, false);
            }
            *last = message;
        }
    }

    fn line(&self, message: String, service_id: Option<ServiceId>, is_std_err: bool) {
        let Some(sink) = &self.sink else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = now.as_millis() as u64;
        sink.push([LogLine { message, timestamp, is_system: true, is_std_err, service_id }]);
    }
}

/// What is being done, what was done, and to what; `None` for what interests nobody.
fn words(step: &Step) -> Option<(&'static str, &'static str, String)> {
    let quoted = |name: &dyn std::fmt::Display| format!("'{name}'");
    Some(match step {
        Step::PullImage { reference, .. } => {
            ("Downloading image", "Downloaded image", quoted(reference))
        }
        Step::RemoveImage(image) => ("Deleting image", "Deleted image", quoted(&image.0)),
        Step::CreateNetwork(key) => ("Creating network", "Created network", quoted(key)),
        Step::RemoveNetwork(key) => ("Removing network", "Removed network", quoted(key)),
        Step::CreateVolume { volume, .. } => ("Creating volume", "Created volume", quoted(volume)),
        Step::RemoveVolume(key) => ("Removing volume", "Removed volume", quoted(key)),
        Step::CreateContainer { service, .. } => {
            ("Installing service", "Installed service", quoted(service))
        }
        Step::StartContainer { service, .. } => {
            ("Starting service", "Started service", quoted(service))
        }
        Step::StopContainer { service, .. } => {
            ("Killing service", "Killed service", quoted(service))
        }
        Step::RemoveContainer { .. }
        | Step::RenameContainer { .. }
        | Step::TakeLocks { .. }
        | Step::ReleaseLocks(_) => return None,
    })
}

fn service_id(step: &Step, target: &Target) -> Option<ServiceId> {
    let service: &ServiceName = match step {
        Step::CreateContainer { service, .. }
        | Step::StartContainer { service, .. }
        | Step::StopContainer { service, .. }
        | Step::RemoveContainer { service, .. }
        | Step::RenameContainer { service, .. } => service,
        Step::PullImage { image, .. } => {
            let services = target.apps.values().flat_map(|app| app.services.values());
            return services.into_iter().find(|it| &it.image == image).map(|it| it.id);
        }
        _ => return None,
    };
    target.apps.values().find_map(|app| app.services.get(service)).map(|service| service.id)
}
