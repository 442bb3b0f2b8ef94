//! From a fleet's provisioning key to a device of its own.
//!
//! ```text
//!   no identity ─(uuid and key made, stored)─> register ─201─> registered, provisioning key erased
//!                                                  └──409─> key exchange ─────────^
//! ```
//!
//! Each arrow ends in one atomic write of config.json and starts from what is there, so a crash
//! anywhere only repeats the arrow: the server answers the repeated registration of a uuid it knows
//! with 409, and the key exchange finds the device by the key that was stored before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minke_common_model::config_json::ConfigJson;
use minke_common_model::ids::{DeviceId, DeviceUuid};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::config_file::ConfigFileError;
use crate::http::{CloudHttp, HttpError, body, causes, send};
use crate::random;

#[cfg(test)]
mod tests;

const MAX_ANSWER: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(59);

/// A device that the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// The device's name for life.
    pub uuid: DeviceUuid,
    /// Its number on the server.
    pub id: DeviceId,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    #[error("storing what was learned")]
    Config(#[from] ConfigFileError),
    #[error("asking the kernel for randomness")]
    Random(#[source] std::io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("config.json has neither a device key that the server knows nor a provisioning key")]
    NoKey,
    #[error("config.json says no {0}")]
    Incomplete(&'static str),
}

/// What is to be done next, by what config.json says alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    MakeIdentity,
    Register,
    ExchangeKeys,
    Nothing,
}

fn next(config: &ConfigJson) -> Next {
    let is_registered = config.device_id.is_some() && config.registered_at.is_some();
    match config {
        ConfigJson { uuid: None, .. } | ConfigJson { device_api_key: None, .. } => {
            Next::MakeIdentity
        }
        ConfigJson { api_key: Some(_), .. } if !is_registered => Next::Register,
        ConfigJson { api_key: Some(_), .. } => Next::ExchangeKeys,
        _ if !is_registered => Next::ExchangeKeys,
        _ => Next::Nothing,
    }
}

/// Tries until the device is provisioned. `None` only for a device that has no server.
pub async fn provision(http: &CloudHttp) -> Option<Provisioned> {
    let delay = http.config_file().get().bootstrap_retry_delay.map(Duration::from_millis);
    let base = delay.unwrap_or(Duration::from_secs(2)).min(Duration::from_secs(30));
    let mut backoff = Backoff::new(base, Duration::from_secs(30).max(base));
    loop {
        http.config_file().get().endpoint()?;
        match attempt(http).await {
            Ok(provisioned) => return Some(provisioned),
            Err(error) => {
                let retry_after = match &error {
                    ProvisionError::Http(error) => error.retry_after(),
                    _ => None,
                };
                let wait = backoff.failed(retry_after, random::fraction());
                let cause = causes(&error);
                warn!(%error, cause, wait_ms = wait.as_millis() as u64, "not provisioned yet");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Goes from wherever config.json is to the end, or fails on the way.
async fn attempt(http: &CloudHttp) -> Result<Provisioned, ProvisionError> {
    loop {
        let config = http.config_file().get();
        match next(&config) {
            Next::MakeIdentity => make_identity(http)?,
            Next::Register => register(http, &config).await?,
            Next::ExchangeKeys => exchange_keys(http, &config).await?,
            Next::Nothing => {
                let (Some(uuid), Some(id)) = (config.uuid, config.device_id) else {
                    return Err(ProvisionError::Incomplete("uuid"));
                };
                return Ok(Provisioned { uuid, id });
            }
        }
    }
}

fn make_identity(http: &CloudHttp) -> Result<(), ProvisionError> {
    let uuid = random::hex(16).map_err(ProvisionError::Random)?;
    let key = random::hex(16).map_err(ProvisionError::Random)?;
    http.config_file().update(|config| {
        let made = uuid.parse().expect("hexadecimal digits are a uuid");
        config.uuid.get_or_insert(made);
        config.device_api_key.get_or_insert(key);
    })?;
    Ok(())
}

#[derive(Deserialize)]
struct Registered {
    id: DeviceId,
    #[serde(default)]
    api_key: Option<String>,
}

async fn register(http: &CloudHttp, config: &ConfigJson) -> Result<(), ProvisionError> {
    let request = http
        .request(config, Method::POST, "/device/register", config.api_key.as_deref())?
        .timeout(REQUEST_TIMEOUT)
        .json(&json!({
            "application": config.application_id.ok_or(ProvisionError::Incomplete("applicationId"))?,
            "uuid": config.uuid,
            "device_type": config.device_type.as_deref().ok_or(ProvisionError::Incomplete("deviceType"))?,
            "api_key": config.device_api_key,
            "supervisor_version": http.versions().supervisor,
            "os_version": http.versions().os_version,
            "os_variant": http.versions().os_variant,
            "mac_address": mac_addresses(),
        }));
    const DOING: &str = "registering the device";
    match send(DOING, request).await {
        Ok(response) => {
            let bytes = body(DOING, response, MAX_ANSWER).await?;
            let answer: Registered = serde_json::from_slice(&bytes)
                .map_err(|error| HttpError::Protocol { doing: DOING, what: error.to_string() })?;
            finish(http, answer.id, answer.api_key)
        }
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => {
            info!("the server knows this uuid already: exchanging keys");
            exchange_keys(http, config).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn exchange_keys(http: &CloudHttp, config: &ConfigJson) -> Result<(), ProvisionError> {
    let own = config.device_api_key.as_deref().ok_or(ProvisionError::NoKey)?;
    match find_device(http, config, own).await {
        Ok(Some(id)) => return finish(http, id, None),
        Ok(None) => {}
        Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => {}
        Err(error) => return Err(error.into()),
    }
    let key = config.api_key.as_deref().ok_or(ProvisionError::NoKey)?;
    let Some(id) = find_device(http, config, key).await? else {
        // The uuid is another fleet's: a copied config.json. This device takes a new identity.
        warn!("the server has this uuid for somebody else; making a new one");
        http.config_file().update(|config| {
            config.uuid = None;
            config.device_api_key = None;
            config.device_id = None;
            config.registered_at = None;
        })?;
        return Ok(());
    };
    let request = http
        .request(config, Method::POST, &format!("/api-key/device/{id}/device-key"), Some(key))?
        .timeout(REQUEST_TIMEOUT)
        .json(&json!({ "apiKey": own }));
    send("exchanging the provisioning key for a device key", request).await?;
    finish(http, id, None)
}

#[derive(Deserialize)]
struct Rows {
    d: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: DeviceId,
}

async fn find_device(
    http: &CloudHttp,
    config: &ConfigJson,
    key: &str,
) -> Result<Option<DeviceId>, HttpError> {
    const DOING: &str = "looking for this device on the server";
    let uuid = config.uuid.as_ref().map_or("", DeviceUuid::as_str);
    let path = format!("/v7/device?$filter=uuid%20eq%20'{uuid}'&$select=id");
    let request = http.request(config, Method::GET, &path, Some(key))?.timeout(REQUEST_TIMEOUT);
    let bytes = body(DOING, send(DOING, request).await?, MAX_ANSWER).await?;
    let rows: Rows = serde_json::from_slice(&bytes)
        .map_err(|error| HttpError::Protocol { doing: DOING, what: error.to_string() })?;
    Ok(rows.d.first().map(|row| row.id))
}

/// One atomic write: the server's number is in, the provisioning key is out.
fn finish(http: &CloudHttp, id: DeviceId, key: Option<String>) -> Result<(), ProvisionError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    http.config_file().update(|config| {
        config.device_id = Some(id);
        config.registered_at.get_or_insert(now.as_millis() as u64);
        config.api_key = None;
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            config.device_api_key = Some(key);
        }
    })?;
    info!(device = %id, "provisioned");
    Ok(())
}

/// The hardware addresses of the device's own links, space separated. Bridges and what is plugged into
/// them are the engine's; they come and go with containers.
pub fn mac_addresses() -> String {
    let mut addresses: Vec<String> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .map(|link| link.path())
        .filter(|link| !link.join("bridge").exists() && !link.join("brport").exists())
        .filter_map(|link| std::fs::read_to_string(link.join("address")).ok())
        .map(|address| address.trim().to_uppercase())
        .filter(|address| address.len() == 17 && address != "00:00:00:00:00:00")
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.join(" ")
}
