//! `.balena/registry-secrets.json`: credentials for the registries that base images come from.
//! The file is taken out of the project before anything is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use minke_engine_client::wire::RegistryAuth;
use serde::Deserialize;

use crate::project::{ProjectError, optional_text};

const FILE: &str = ".balena/registry-secrets.json";

#[derive(Deserialize)]
struct Secret {
    username: String,
    password: String,
}

/// Reads and removes the file. The empty key means Docker Hub.
pub(crate) fn take(root: &Path) -> Result<BTreeMap<String, RegistryAuth>, ProjectError> {
    let Some(text) = optional_text(root, FILE)? else { return Ok(BTreeMap::new()) };
    let unreadable = |source| ProjectError::Unreadable { path: FILE.to_owned(), source };
    fs::remove_file(root.join(FILE)).map_err(unreadable)?;
    // The parser's message would quote the file.
    let secrets: BTreeMap<String, Secret> = serde_json::from_str(&text).map_err(|e| {
        let message = format!(
            "line {}, column {}: expected {{\"registry\": {{\"username\": …, \"password\": …}}}}",
            e.line(),
            e.column()
        );
        ProjectError::Invalid { file: FILE.to_owned(), message }
    })?;
    Ok(secrets.into_iter().map(|(host, secret)| entry(&host, secret)).collect())
}

fn entry(host: &str, secret: Secret) -> (String, RegistryAuth) {
    let host = match host {
        "" | "docker.io" | "index.docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.trim_end_matches('/').to_owned(),
    };
    let auth = RegistryAuth {
        username: secret.username,
        password: secret.password,
        serveraddress: host.clone(),
        ..RegistryAuth::default()
    };
    (host, auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_once_and_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".balena")).unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, r#"{"": {"username": "u", "password": "p"}}"#).unwrap();
        let secrets = take(dir.path()).unwrap();
        assert_eq!(secrets["https://index.docker.io/v1/"].password, "p");
        assert!(!file.exists());
        fs::write(&file, r#"{"r": {"username": "hunter2"}}"#).unwrap();
        let message = take(dir.path()).unwrap_err().to_string();
        assert!(message.contains("line 1") && !message.contains("hunter2"), "{message}");
    }
}
