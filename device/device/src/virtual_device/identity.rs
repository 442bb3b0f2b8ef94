//! config.json of a virtual device: what the caller gives, and what the device has become.

use std::fs;
use std::path::Path;

use anyhow::Context;
use minke_common_model::config_json::ConfigJson;
use minke_device_cloud_client::random_hex;
use minke_device_store::write_atomic;

/// Puts config.json into the data directory and gives the device its uuid and key.
///
/// A device that has an identity keeps it: of a newer file from the caller everything else is taken,
/// so that a server that moved is found.
pub fn prepare(given: Option<&Path>, own: &Path) -> anyhow::Result<ConfigJson> {
    let stored = read_if_there(own)?;
    let given = given.filter(|given| fs::canonicalize(given).ok() != fs::canonicalize(own).ok());
    let mut config = match (given.map(read).transpose()?, &stored) {
        (Some(given), Some(stored)) => merge(given, stored),
        (Some(given), None) => given,
        (None, Some(stored)) => stored.clone(),
        (None, None) => anyhow::bail!("{} does not exist; give --config", own.display()),
    };
    if config.uuid.is_none() {
        config.uuid = Some(random_hex(16)?.parse().context("a uuid")?);
    }
    if config.device_api_key.is_none() {
        config.device_api_key = Some(random_hex(16)?);
    }
    if stored.as_ref() != Some(&config) {
        write_atomic(own, &config.to_bytes(), 0o600)?;
    }
    Ok(config)
}

fn merge(given: ConfigJson, stored: &ConfigJson) -> ConfigJson {
    let is_registered = stored.registered_at.is_some();
    ConfigJson {
        uuid: stored.uuid.clone().or(given.uuid),
        device_api_key: stored.device_api_key.clone().or(given.device_api_key),
        device_id: stored.device_id.or(given.device_id),
        registered_at: stored.registered_at.or(given.registered_at),
        // The provisioning key was erased for a reason.
        api_key: given.api_key.filter(|_| !is_registered),
        ..given
    }
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<ConfigJson>> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

fn read(path: &Path) -> anyhow::Result<ConfigJson> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ConfigJson::parse(&bytes).with_context(|| format!("{} is not usable", path.display()))
}

/// `host:port` of a server without TLS: its registry has none either.
pub fn insecure_registry(config: &ConfigJson) -> Option<String> {
    let rest = config.endpoint()?.strip_prefix("http://")?;
    let authority = rest.split('/').next()?.to_owned();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { authority } else { format!("{authority}:80") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_itself_when_its_server_moves() {
        let dir = tempfile::tempdir().unwrap();
        let (given, own) = (dir.path().join("given.json"), dir.path().join("config.json"));
        fs::write(&given, r#"{"apiEndpoint":"http://10.0.0.1:8080","apiKey":"p","more":1}"#)
            .unwrap();
        let first = prepare(Some(&given), &own).unwrap();
        assert!(first.uuid.is_some() && first.device_api_key.is_some());
        assert_eq!(first.api_key.as_deref(), Some("p"));
        assert_eq!(insecure_registry(&first).as_deref(), Some("10.0.0.1:8080"));

        let registered = ConfigJson { api_key: None, registered_at: Some(1), ..first.clone() };
        fs::write(&own, registered.to_bytes()).unwrap();
        fs::write(&given, r#"{"apiEndpoint":"https://fleet.example","apiKey":"p"}"#).unwrap();
        let moved = prepare(Some(&given), &own).unwrap();
        assert_eq!((moved.uuid, moved.device_api_key), (first.uuid, first.device_api_key));
        assert_eq!(moved.api_key, None);
        assert_eq!(moved.api_endpoint.as_deref(), Some("https://fleet.example"));
        assert_eq!(prepare(None, &own).unwrap().api_endpoint, moved.api_endpoint);
    }
}
