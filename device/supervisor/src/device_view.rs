//! The device as the rest of the supervisor sees it: what the target and config.json say of it.

use std::collections::BTreeSet;

use minke_common_model::config_variables::DeviceConfig;
use minke_common_model::ids::{AppUuid, DeviceUuid};
use minke_common_model::target_state::DeviceTarget;

/// Replaced whole with each target.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceView {
    /// `None` until the device has an identity.
    pub uuid: Option<DeviceUuid>,
    pub name: String,
    pub arch: String,
    pub device_type: String,
    pub config: DeviceConfig,
    /// What the server sent.
    pub device: DeviceTarget,
    /// Apps that cannot be run.
    pub rejected: BTreeSet<AppUuid>,
}

impl DeviceView {
    /// The first seven digits of the uuid.
    pub fn short_uuid(&self) -> String {
        self.uuid.as_ref().map(|uuid| uuid.as_str().chars().take(7).collect()).unwrap_or_default()
    }
}
