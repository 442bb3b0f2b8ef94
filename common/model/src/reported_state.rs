//! The current-state report, version 3: the body of `PATCH /device/v3/state`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{AppUuid, Commit, DeviceUuid, ServiceName};

/// One or more devices' reports; a device sends its own only.
pub type ReportBody = BTreeMap<DeviceUuid, DeviceReport>;

/// What a device says of itself. A field that is absent has not changed since the last report
/// that the server acknowledged; one that is `null` is not known any more.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_secret: Option<String>,
    /// Space separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Space separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<BTreeMap<AppUuid, AppReport>>,
    /// Everything else that was sent: metrics, provisioning progress, what comes later.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a device says of one app.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppReport {
    /// The release that was last applied in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_uuid: Option<Commit>,
    #[serde(default)]
    pub releases: BTreeMap<Commit, ReleaseReport>,
}

/// What a device says of one release.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseReport {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    #[serde(default)]
    pub services: BTreeMap<ServiceName, ServiceReport>,
}

/// What a device says of one service.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    pub image: String,
    /// One of [`ServiceStatus`]'s spellings, or a word of the engine's own.
    pub status: String,
    /// Percent; absent when nothing is downloading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_progress: Option<f64>,
}

/// Where the update to a release stands.
#[expect(missing_docs, reason = "each variant is the word on the wire")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UpdateStatus {
    #[serde(rename = "rejected")]
    Rejected,
    #[serde(rename = "aborted")]
    Aborted,
    #[serde(rename = "downloading")]
    Downloading,
    #[serde(rename = "downloaded")]
    Downloaded,
    #[serde(rename = "applying changes")]
    ApplyingChanges,
    #[serde(rename = "done")]
    Done,
}

impl UpdateStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            UpdateStatus::Rejected => "rejected",
            UpdateStatus::Aborted => "aborted",
            UpdateStatus::Downloading => "downloading",
            UpdateStatus::Downloaded => "downloaded",
            UpdateStatus::ApplyingChanges => "applying changes",
            UpdateStatus::Done => "done",
        }
    }
}

/// Where one service stands.
#[expect(missing_docs, reason = "each variant is the word on the wire")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceStatus {
    Downloading,
    Downloaded,
    Installing,
    Installed,
    Starting,
    Running,
    Stopping,
    Stopped,
    Exited,
    Dead,
    HandingOver,
    AwaitingHandover,
    Deleting,
}

impl ServiceStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceStatus::Downloading => "Downloading",
            ServiceStatus::Downloaded => "Downloaded",
            ServiceStatus::Installing => "Installing",
            ServiceStatus::Installed => "Installed",
            ServiceStatus::Starting => "Starting",
            ServiceStatus::Running => "Running",
            ServiceStatus::Stopping => "Stopping",
            ServiceStatus::Stopped => "Stopped",
            ServiceStatus::Exited => "exited",
            ServiceStatus::Dead => "Dead",
            ServiceStatus::HandingOver => "Handing over",
            ServiceStatus::AwaitingHandover => "Awaiting handover",
            ServiceStatus::Deleting => "Deleting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_as_balenas_supervisor_sends_it_round_trips() {
        let body = r#"{"aabb":{"status":"Idle","api_port":48484,"memory_usage":120,"apps":{"app1":{"release_uuid":"c0","releases":{
            "c1":{"update_status":"applying changes","services":{"web":{"image":"r/v2/x@sha256:0","status":"Downloading","download_progress":40}}}}}}}}"#;
        let report: ReportBody = serde_json::from_str(body).unwrap();
        let device = &report["aabb"];
        assert_eq!(device.other["memory_usage"], 120);
        let release = &device.apps.as_ref().unwrap()["app1"].releases["c1"];
        assert_eq!(release.update_status, Some(UpdateStatus::ApplyingChanges));
        let again: ReportBody =
            serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again, report);
    }
}
