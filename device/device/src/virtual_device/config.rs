//! The device's own config.json, and the one that it is started with.

use std::path::Path;

use anyhow::Context;
use minke_common_model::config_json::ConfigJson;

/// The device keeps its configuration among its data, where it is rewritten. One that the server knows
/// already stays who it is; one that it does not know yet goes by the newest file.
pub fn take(data: &Path, given: &Path) -> anyhow::Result<()> {
    let own = data.join("config.json");
    if given == own {
        return Ok(());
    }
    let mut config = read(given)?;
    if own.exists() {
        let known = read(&own)?;
        if known.registered_at.is_some() {
            for difference in differences(&known, &config) {
                tracing::warn!(
                    "the device in {} is registered and goes on with its own config.json: {} has {difference}. To move it, change {} while it is off; to begin anew, remove {}",
                    data.display(),
                    given.display(),
                    own.display(),
                    data.display()
                );
            }
            return Ok(());
        }
        // It may have told the server of these without having heard the answer.
        config.uuid = known.uuid.or(config.uuid);
        config.device_api_key = known.device_api_key.or(config.device_api_key);
    }
    minke_device_store::write_atomic(&own, &config.to_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", own.display()))
}

/// What makes a device another's, where it is another than the device goes by.
fn differences(known: &ConfigJson, given: &ConfigJson) -> Vec<String> {
    let mut differences = Vec::new();
    if given.api_endpoint != known.api_endpoint {
        let endpoint = given.api_endpoint.as_deref().unwrap_or("");
        differences.push(format!("another apiEndpoint, {endpoint}"));
    }
    if given.application_id != known.application_id {
        differences.push("another applicationId".to_owned());
    }
    if given.uuid.is_some() && given.uuid != known.uuid {
        differences.push("another uuid".to_owned());
    }
    differences
}

/// Reads a `config.json`.
pub(super) fn read(path: &Path) -> anyhow::Result<ConfigJson> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ConfigJson::parse(&text).with_context(|| format!("{} is not a config.json", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"apiEndpoint":"http://a","applicationId":1,"apiKey":"p","extra":7}"#;
    const SECOND: &str = r#"{"apiEndpoint":"http://b","applicationId":2,"apiKey":"q"}"#;

    /// A device that was started with [`FIRST`], its own file, and the one of the next start.
    fn device() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (data, given) = (folder.path().join("data"), folder.path().join("given.json"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(&given, FIRST).unwrap();
        take(&data, &given).unwrap();
        std::fs::write(&given, SECOND).unwrap();
        (folder, data, given)
    }

    #[test]
    fn a_device_that_nobody_knows_yet_goes_by_the_newest_file_and_stays_one_device() {
        let (_folder, data, given) = device();
        let own = data.join("config.json");
        let mut known = read(&own).unwrap();
        assert_eq!(known, ConfigJson::parse(FIRST.as_bytes()).unwrap());
        known.uuid = Some("aabb".parse().unwrap());
        known.device_api_key = Some("own".to_owned());
        std::fs::write(&own, known.to_bytes()).unwrap();
        take(&data, &given).unwrap();
        let now = read(&own).unwrap();
        assert_eq!(now.api_endpoint.as_deref(), Some("http://b"));
        assert_eq!((now.uuid, now.device_api_key), (known.uuid, known.device_api_key));
    }

    #[test]
    fn a_registered_device_keeps_its_own_file_and_the_differences_are_named() {
        let (_folder, data, given) = device();
        let own = data.join("config.json");
        let mut known = read(&own).unwrap();
        known.registered_at = Some(1);
        std::fs::write(&own, known.to_bytes()).unwrap();
        take(&data, &given).unwrap();
        assert_eq!(read(&own).unwrap(), known);
        let said = differences(&known, &read(&given).unwrap());
        assert_eq!(said, ["another apiEndpoint, http://b", "another applicationId"]);
        assert!(differences(&known, &known).is_empty());
    }

    #[test]
    fn what_is_no_config_json_is_named() {
        let (_folder, data, given) = device();
        std::fs::write(&given, "hello").unwrap();
        let error = take(&data, &given).unwrap_err().to_string();
        assert!(error.contains("given.json is not a config.json"), "{error}");
    }
}
