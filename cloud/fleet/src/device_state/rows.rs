//! The rows of a device's target state, as the queries' answers name them.
#![expect(non_snake_case, reason = "each field is named as the resource model names it")]
#![expect(missing_docs, reason = "each field is named as the resource model names it")]

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A list that an answer may leave out or write as `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(input)?.unwrap_or_default())
}

/// A device.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceRow {
    pub id: i64,
    pub uuid: String,
    pub device_name: String,
    #[serde(default, deserialize_with = "list")]
    pub device_config_variable: Vec<NamedValue>,
    #[serde(default, deserialize_with = "list")]
    pub device_environment_variable: Vec<NamedValue>,
    #[serde(default, deserialize_with = "list")]
    pub service_install: Vec<ServiceInstallRow>,
    #[serde(default, deserialize_with = "list")]
    pub belongs_to__application: Vec<AppRow>,
    #[serde(default, deserialize_with = "list")]
    pub should_be_running__release: Vec<ReleaseRow>,
    #[serde(default, deserialize_with = "list")]
    pub should_be_managed_by__release: Vec<ReleaseRow>,
    #[serde(default, deserialize_with = "list")]
    pub should_be_operated_by__release: Vec<ReleaseRow>,
}

/// What says how often a device polls.
#[derive(Debug, Clone, Deserialize)]
pub struct PollingRow {
    #[serde(default, deserialize_with = "list")]
    pub device_config_variable: Vec<NamedValue>,
    #[serde(default, deserialize_with = "list")]
    pub belongs_to__application: Vec<PollingFleetRow>,
}

/// The fleet's part in how often a device polls.
#[derive(Debug, Clone, Deserialize)]
pub struct PollingFleetRow {
    #[serde(default, deserialize_with = "list")]
    pub application_config_variable: Vec<NamedValue>,
}

/// An application with the releases that were asked for.
#[derive(Debug, Clone, Deserialize)]
pub struct FleetRow {
    #[serde(flatten)]
    pub app: AppRow,
    #[serde(default, deserialize_with = "list")]
    pub should_be_running__release: Vec<ReleaseRow>,
    #[serde(default, deserialize_with = "list")]
    pub owns__release: Vec<ReleaseRow>,
}

/// An application.
#[derive(Debug, Clone, Deserialize)]
pub struct AppRow {
    pub id: i64,
    pub uuid: String,
    pub app_name: String,
    pub is_of__class: String,
    pub is_host: bool,
    #[serde(default, deserialize_with = "list")]
    pub application_environment_variable: Vec<NamedValue>,
    #[serde(default, deserialize_with = "list")]
    pub application_config_variable: Vec<NamedValue>,
}

/// A release; its application only where it is not the device's own.
#[derive(Debug, Clone, Deserialize)]
pub struct ReleaseRow {
    pub id: i64,
    pub commit: String,
    #[serde(default)]
    pub composition: Value,
    #[serde(default, deserialize_with = "list")]
    pub release_image: Vec<ReleaseImageRow>,
    #[serde(default, deserialize_with = "list")]
    pub belongs_to__application: Vec<AppRow>,
}

/// An image's place in a release.
#[derive(Debug, Clone, Deserialize)]
pub struct ReleaseImageRow {
    #[serde(default, deserialize_with = "list")]
    pub image: Vec<ImageRow>,
    #[serde(default, deserialize_with = "list")]
    pub image_label: Vec<LabelRow>,
    #[serde(default, deserialize_with = "list")]
    pub image_environment_variable: Vec<NamedValue>,
}

/// An image.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageRow {
    pub id: i64,
    pub is_stored_at__image_location: String,
    pub content_hash: Option<String>,
    pub contract: Option<Value>,
    #[serde(default, deserialize_with = "list")]
    pub is_a_build_of__service: Vec<ServiceRow>,
}

impl ImageRow {
    /// Where to pull it from: `host/v2/<hex>@sha256:…`.
    pub fn reference(&self, registry_host: &str) -> String {
        let location = &self.is_stored_at__image_location;
        match &self.content_hash {
            Some(hash) => format!("{registry_host}/{location}@{hash}"),
            None => format!("{registry_host}/{location}"),
        }
    }
}

/// A service of an application.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceRow {
    pub id: i64,
    pub service_name: String,
    #[serde(default, deserialize_with = "list")]
    pub service_label: Vec<LabelRow>,
    #[serde(default, deserialize_with = "list")]
    pub service_environment_variable: Vec<NamedValue>,
}

/// A service on a device.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceInstallRow {
    pub installs__service: Deferred,
    #[serde(default, deserialize_with = "list")]
    pub device_service_environment_variable: Vec<NamedValue>,
}

/// A navigation that was not expanded.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Deferred {
    #[serde(rename = "__id")]
    pub id: i64,
}

/// A variable.
#[derive(Debug, Clone, Deserialize)]
pub struct NamedValue {
    pub name: String,
    pub value: String,
}

/// A label.
#[derive(Debug, Clone, Deserialize)]
pub struct LabelRow {
    pub label_name: String,
    pub value: String,
}
