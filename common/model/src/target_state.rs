//! The target state, version 3: what a server wants a device to run.
//!
//! The server writes [`TargetState`]; the device reads with [`DeviceTarget::parse`], which rejects
//! an app that breaks a rule and keeps the others, so that one bad app stops no other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{
    AppId, AppUuid, Commit, DeviceUuid, ImageId, MAX_NAME, NetworkName, ReleaseId, ServiceId,
    ServiceName, VolumeName,
};
use crate::{labels, lenient};

/// Longest target state, in bytes, that a device reads.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most apps in one target.
pub const MAX_APPS: usize = 64;
/// Most services, volumes or networks in one release.
pub const MAX_PARTS: usize = 256;
/// Most variables or labels of one service.
pub const MAX_ENTRIES: usize = 4096;

/// The body of `GET /device/v3/:uuid/state`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetState(pub BTreeMap<DeviceUuid, DeviceTarget>);

/// What one device should be.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceTarget {
    pub name: String,
    /// Configuration variables; see [`crate::config_variables`].
    #[serde(default, deserialize_with = "lenient::text_map")]
    pub config: BTreeMap<String, String>,
    #[serde(default)]
    pub apps: BTreeMap<AppUuid, AppTarget>,
}

/// What kind of thing an app is.
#[expect(missing_docs, reason = "each variant is the word on the wire")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppClass {
    #[default]
    Fleet,
    App,
    Block,
}

/// One app of a target.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppTarget {
    pub id: AppId,
    pub name: String,
    #[serde(default)]
    pub class: AppClass,
    #[serde(default)]
    pub is_host: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_app: Option<AppUuid>,
    /// At most one is acted on.
    #[serde(default)]
    pub releases: BTreeMap<Commit, ReleaseTarget>,
}

/// One release of an app.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseTarget {
    pub id: ReleaseId,
    #[serde(default)]
    pub services: BTreeMap<ServiceName, ServiceTarget>,
    /// Compose's volume definitions; `null` is the default one.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeName, Value>,
    /// Compose's network definitions; `null` is the default one.
    #[serde(default)]
    pub networks: BTreeMap<NetworkName, Value>,
}

/// One service of a release.
#[expect(missing_docs, reason = "each field is named as on the wire")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceTarget {
    pub id: ServiceId,
    pub image_id: ImageId,
    /// Where to pull from: `host/v2/<hex>@sha256:<digest>`.
    pub image: String,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub running: bool,
    #[serde(default, deserialize_with = "lenient::text_map")]
    pub environment: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "lenient::text_map")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Value>,
    /// The compose service without `build`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composition: Option<Map<String, Value>>,
}

fn yes() -> bool {
    true
}

fn is_yes(truth: &bool) -> bool {
    *truth
}

/// Why a target, or one app of it, cannot be acted on.
#[expect(missing_docs, reason = "each variant's message says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("the target state has {bytes} bytes; the limit is {MAX_BYTES}")]
    TooLong { bytes: usize },
    #[error("reading the target state")]
    Malformed(#[source] serde_json::Error),
    #[error("the target state says nothing of device {0}")]
    OtherDevice(DeviceUuid),
    #[error("the target state has {count} apps; the limit is {MAX_APPS}")]
    TooManyApps { count: usize },
    #[error("the device name is longer than {MAX_NAME} characters or has a line break")]
    DeviceName,
    #[error("the configuration variable name {0:?} is not allowed")]
    ConfigName(String),
    #[error("reading app {app}")]
    MalformedApp { app: String, source: serde_json::Error },
    #[error("app {app}: {count} {what}; the limit is {limit}")]
    TooMany { app: AppUuid, what: &'static str, count: usize, limit: usize },
    #[error("app {app}, service {service}: the {what} name {name:?} is not allowed")]
    Name { app: AppUuid, service: ServiceName, what: &'static str, name: String },
    #[error("app {app}, service {service}: no image, or one of more than {limit} characters")]
    Image { app: AppUuid, service: ServiceName, limit: usize },
    #[error("app {app} has {count} releases; a device runs one")]
    Releases { app: AppUuid, count: usize },
}

/// A target that was read, and the apps of it that were not.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Everything that was read.
    pub device: DeviceTarget,
    /// By app uuid as it was sent.
    pub rejected: BTreeMap<String, TargetError>,
}

/// Every field must be there: a body without `apps` would otherwise be one that wants no apps, and
/// all of them would be removed with their volumes.
#[derive(Deserialize)]
struct RawDevice {
    name: String,
    #[serde(deserialize_with = "lenient::text_map")]
    config: BTreeMap<String, String>,
    apps: BTreeMap<String, Value>,
}

impl DeviceTarget {
    /// Reads the body of a state answer for `uuid`.
    pub fn parse(body: &[u8], uuid: &DeviceUuid) -> Result<Parsed, TargetError> {
        if body.len() > MAX_BYTES {
            return Err(TargetError::TooLong { bytes: body.len() });
        }
        let mut devices: BTreeMap<String, RawDevice> =
            serde_json::from_slice(body).map_err(TargetError::Malformed)?;
        let raw =
            devices.remove(uuid.as_str()).ok_or_else(|| TargetError::OtherDevice(uuid.clone()))?;
        if raw.apps.len() > MAX_APPS {
            return Err(TargetError::TooManyApps { count: raw.apps.len() });
        }
        if raw.name.chars().count() > MAX_NAME || raw.name.contains('\n') {
            return Err(TargetError::DeviceName);
        }
        if let Some(name) = raw.config.keys().find(|name| !is_config_name(name)) {
            return Err(TargetError::ConfigName(name.clone()));
        }
        let mut parsed = Parsed::default();
        parsed.device.name = raw.name;
        parsed.device.config = raw.config;
        for (uuid, value) in raw.apps {
            match read_app(&uuid, value) {
                Ok((app_uuid, app)) => {
                    parsed.device.apps.insert(app_uuid, app);
                }
                Err(error) => {
                    parsed.rejected.insert(uuid, error);
                }
            }
        }
        Ok(parsed)
    }
}

fn read_app(uuid: &str, value: Value) -> Result<(AppUuid, AppTarget), TargetError> {
    let malformed = |source| TargetError::MalformedApp { app: uuid.to_owned(), source };
    let app_uuid: AppUuid =
        serde_json::from_value(Value::String(uuid.to_owned())).map_err(malformed)?;
    let app: AppTarget = serde_json::from_value(value).map_err(malformed)?;
    app.check(&app_uuid)?;
    Ok((app_uuid, app))
}

impl AppTarget {
    /// The release to run, if there is one.
    pub fn release(&self) -> Option<(&Commit, &ReleaseTarget)> {
        self.releases.first_key_value()
    }

    /// Checks what the types do not say; the server may ask before it sends.
    pub fn check(&self, uuid: &AppUuid) -> Result<(), TargetError> {
        if self.releases.len() > 1 {
            let count = self.releases.len();
            return Err(TargetError::Releases { app: uuid.clone(), count });
        }
        for release in self.releases.values() {
            release.check(uuid)?;
        }
        Ok(())
    }
}

impl ReleaseTarget {
    fn check(&self, app: &AppUuid) -> Result<(), TargetError> {
        for (what, count) in [
            ("services", self.services.len()),
            ("volumes", self.volumes.len()),
            ("networks", self.networks.len()),
        ] {
            if count > MAX_PARTS {
                let limit = MAX_PARTS;
                return Err(TargetError::TooMany { app: app.clone(), what, count, limit });
            }
        }
        self.services.iter().try_for_each(|(name, service)| service.check(app, name))
    }
}

impl ServiceTarget {
    fn check(&self, app: &AppUuid, name: &ServiceName) -> Result<(), TargetError> {
        for (what, count) in [("variables", self.environment.len()), ("labels", self.labels.len())]
        {
            if count > MAX_ENTRIES {
                let limit = MAX_ENTRIES;
                return Err(TargetError::TooMany { app: app.clone(), what, count, limit });
            }
        }
        let refuse = |what, bad: &String| TargetError::Name {
            app: app.clone(),
            service: name.clone(),
            what,
            name: bad.clone(),
        };
        if let Some(bad) = self.environment.keys().find(|key| !is_variable_name(key)) {
            return Err(refuse("variable", bad));
        }
        if let Some(bad) = self.labels.keys().find(|key| !labels::is_label_name(key)) {
            return Err(refuse("label", bad));
        }
        let limit = 4 * MAX_NAME;
        if self.image.is_empty() || self.image.len() > limit {
            return Err(TargetError::Image { app: app.clone(), service: name.clone(), limit });
        }
        Ok(())
    }
}

/// Whether `name` may name an environment variable: `[a-zA-Z_][a-zA-Z0-9_]*`, 255 at most.
pub fn is_variable_name(name: &str) -> bool {
    is_name(name, |b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` may name a configuration variable: as a variable, with ':' too.
pub fn is_config_name(name: &str) -> bool {
    is_name(name, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

fn is_name(name: &str, is_allowed: fn(u8) -> bool) -> bool {
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = r#"{"aabb":{"name":"quiet-dawn","config":{"RESIN_SUPERVISOR_POLL_INTERVAL":"900000","BALENA_HOST_CONFIG_dtparam:1":"x"},
      "apps":{"app1":{"id":7,"name":"weather","class":"fleet","is_host":false,"releases":{"c0ffee":{"id":"9","services":{
        "web":{"id":1,"image_id":"2","image":"10.0.0.1:8080/v2/abc@sha256:00","environment":{"PORT":80,"DEBUG":true},"labels":{"io.balena.features.dbus":"1"},"composition":{"ports":["80:80"]}}},
        "volumes":{"data":{}},"networks":{}}}}}}}"#;

    fn uuid() -> DeviceUuid {
        "aabb".parse().unwrap()
    }

    #[test]
    fn a_target_as_servers_send_it_is_read() {
        let parsed = DeviceTarget::parse(TARGET.as_bytes(), &uuid()).unwrap();
        assert!(parsed.rejected.is_empty());
        let app = &parsed.device.apps["app1"];
        let (commit, release) = app.release().unwrap();
        assert_eq!(commit.as_str(), "c0ffee");
        let web = &release.services["web"];
        assert_eq!(web.environment["PORT"], "80");
        assert_eq!(web.image_id, ImageId::new(2));
        assert!(web.running);
    }

    #[test]
    fn what_was_read_is_written_so_that_it_reads_the_same() {
        let parsed = DeviceTarget::parse(TARGET.as_bytes(), &uuid()).unwrap().device;
        let state = TargetState(BTreeMap::from([(uuid(), parsed.clone())]));
        let again =
            DeviceTarget::parse(&serde_json::to_vec(&state).unwrap(), &uuid()).unwrap().device;
        assert_eq!(again, parsed);
    }

    #[test]
    fn one_bad_app_is_rejected_alone() {
        let body = TARGET.replace(
            "\"apps\":{",
            r#""apps":{"bad":{"id":1,"name":"x","releases":{"c":{"id":1,"services":{"../up":{"id":1,"image_id":1,"image":"i"}}}}},
               "two":{"id":1,"name":"x","releases":{"c":{"id":1},"d":{"id":2}}},
               "env":{"id":1,"name":"x","releases":{"c":{"id":1,"services":{"s":{"id":1,"image_id":1,"image":"i","environment":{"A B":"1"}}}}}},"#,
        );
        let parsed = DeviceTarget::parse(body.as_bytes(), &uuid()).unwrap();
        assert_eq!(parsed.device.apps.len(), 1);
        assert_eq!(parsed.rejected.keys().collect::<Vec<_>>(), ["bad", "env", "two"]);
    }

    #[test]
    fn a_target_that_leaves_something_out_is_no_target_at_all() {
        for body in [
            r#"{"aabb":{}}"#,
            r#"{"aabb":{"name":"d","config":{}}}"#,
            r#"{"aabb":{"name":"d","apps":{}}}"#,
            r#"{"aabb":{"config":{},"apps":{}}}"#,
            r#"{"aabb":{"name":"d","config":{},"apps":null}}"#,
        ] {
            let error = DeviceTarget::parse(body.as_bytes(), &uuid()).unwrap_err();
            assert!(matches!(error, TargetError::Malformed(_)), "{body}: {error}");
        }
        let empty = br#"{"aabb":{"name":"d","config":{},"apps":{}}}"#;
        assert!(DeviceTarget::parse(empty, &uuid()).unwrap().device.apps.is_empty());
    }

    #[test]
    fn a_target_for_another_device_is_an_error() {
        let error = DeviceTarget::parse(TARGET.as_bytes(), &"ccdd".parse().unwrap()).unwrap_err();
        assert!(matches!(error, TargetError::OtherDevice(_)));
    }

    #[test]
    fn a_huge_target_is_refused_with_the_limit() {
        let error = DeviceTarget::parse(&vec![b' '; MAX_BYTES + 1], &uuid()).unwrap_err();
        assert!(error.to_string().contains(&MAX_BYTES.to_string()));
    }
}
