//! `config.json`: what a device is told before it first speaks, and what it keeps of that.
//!
//! Keys that are not known here are kept as they are: other programs of the host own them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{AppId, DeviceId, DeviceUuid};
use crate::lenient;

/// Longest `config.json`, in bytes, that is read.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The port of the device API where `config.json` names none.
pub const DEFAULT_LISTEN_PORT: u16 = 48484;

/// The known keys, typed, and all the others.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigJson {
    /// `http://` or `https://` address of the server; empty means a device of nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_endpoint: Option<String>,
    /// Provisioning key of the fleet; erased when the device has a key of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The device's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_api_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<DeviceUuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// Milliseconds since 1970; absent until the server knows the device.
    #[serde(
        default,
        rename = "registered_at",
        deserialize_with = "lenient::optional_whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub registered_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_id: Option<AppId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// Milliseconds.
    #[serde(
        default,
        deserialize_with = "lenient::optional_whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub app_update_poll_interval: Option<u64>,
    /// Milliseconds between two tries to register.
    #[serde(
        default,
        deserialize_with = "lenient::optional_whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub bootstrap_retry_delay: Option<u64>,
    #[serde(
        default,
        deserialize_with = "lenient::optional_whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub listen_port: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_device_name: Option<String>,
    /// Keys that others own.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Why a text is not a `config.json`.
#[expect(missing_docs, reason = "each variant's message says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum ConfigJsonError {
    #[error("config.json has {bytes} bytes; the limit is {MAX_BYTES}")]
    TooLong { bytes: usize },
    #[error("reading config.json")]
    Malformed(#[source] serde_json::Error),
}

impl ConfigJson {
    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<ConfigJson, ConfigJsonError> {
        if bytes.len() > MAX_BYTES {
            return Err(ConfigJsonError::TooLong { bytes: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(ConfigJsonError::Malformed)
    }

    /// The file's bytes, for people to read too.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a tree of texts and numbers");
        bytes.push(b'\n');
        bytes
    }

    /// The server's address without a slash at its end; `None` for a device of nobody.
    pub fn endpoint(&self) -> Option<&str> {
        self.api_endpoint.as_deref().map(|url| url.trim_end_matches('/')).filter(|u| !u.is_empty())
    }

    /// Whether the server knows this device and the provisioning key is gone.
    pub fn is_provisioned(&self) -> bool {
        self.uuid.is_some()
            && self.device_id.is_some()
            && self.registered_at.is_some()
            && self.api_key.is_none()
    }

    /// Between two looks for a new target, before a target says otherwise.
    pub fn poll_interval(&self) -> Option<Duration> {
        self.app_update_poll_interval.map(Duration::from_millis)
    }

    /// The port of the device API.
    pub fn port(&self) -> u16 {
        self.listen_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_LISTEN_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_others_are_kept() {
        let text = r#"{"apiEndpoint":"http://10.1.0.1:8080/","applicationId":"12","appUpdatePollInterval":"60000",
            "deviceType":"qemux86-64","wifiSsid":"x","os":{"network":{"a":[1,2]}},"registered_at":null,"mixpanelToken":null}"#;
        let config = ConfigJson::parse(text.as_bytes()).unwrap();
        assert_eq!(config.endpoint(), Some("http://10.1.0.1:8080"));
        assert_eq!(config.application_id, Some(AppId::new(12)));
        assert_eq!(config.poll_interval(), Some(Duration::from_secs(60)));
        let again: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        assert_eq!(again["os"]["network"]["a"][1], 2);
        assert_eq!(again["mixpanelToken"], Value::Null);
        assert!(again.as_object().unwrap().contains_key("mixpanelToken"));
        assert!(!again.as_object().unwrap().contains_key("deviceApiKey"));
    }

    #[test]
    fn a_key_that_is_left_means_not_yet_provisioned() {
        let text = r#"{"uuid":"ab","deviceId":1,"registered_at":5,"apiKey":"k"}"#;
        let mut config = ConfigJson::parse(text.as_bytes()).unwrap();
        assert!(!config.is_provisioned());
        config.api_key = None;
        assert!(config.is_provisioned());
    }
}
