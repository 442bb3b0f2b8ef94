//! `config.json` on disk: read when it has changed, rewritten whole.
//!
//! Other programs and people write the file too, so every read looks whether it is still the same
//! file, and every change is made to what is there now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use minke_common_model::config_json::{ConfigJson, ConfigJsonError};
use minke_device_store::{StoreError, write_atomic};
use tracing::warn;

/// What was being done to the file when it failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum ConfigFileError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a config.json", path.display())]
    Malformed { path: PathBuf, source: ConfigJsonError },
    #[error("changing config.json")]
    Write(#[source] StoreError),
}

/// A handle on the file; clones share it.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    config: ConfigJson,
    stamp: Option<Stamp>,
}

/// Tells two versions of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl ConfigFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path) -> Result<ConfigFile, ConfigFileError> {
        let (config, stamp) = read(path)?;
        let state = Arc::new(Mutex::new(State { config, stamp: Some(stamp) }));
        Ok(ConfigFile { path: path.into(), state })
    }

    /// The configuration as it is now. A file that has become unreadable is said and the last good
    /// configuration stays: a torn edit must not take a device off the net.
    pub fn get(&self) -> ConfigJson {
        let mut state = self.state.lock().expect("no panic while it is held");
        if stamp_of(&self.path) != state.stamp {
            match read(&self.path) {
                Ok((config, stamp)) => *state = State { config, stamp: Some(stamp) },
                Err(error) => {
                    warn!(%error, cause = crate::http::causes(&error), "config.json kept as it was");
                    state.stamp = stamp_of(&self.path);
                }
            }
        }
        state.config.clone()
    }

    /// Changes the file; durable when this returns.
    pub fn update(
        &self,
        change: impl FnOnce(&mut ConfigJson),
    ) -> Result<ConfigJson, ConfigFileError> {
        let mut config = self.get();
        let mut state = self.state.lock().expect("no panic while it is held");
        change(&mut config);
        if config == state.config {
            return Ok(config);
        }
        write_atomic(&self.path, &config.to_bytes(), 0o600).map_err(ConfigFileError::Write)?;
        *state = State { config: config.clone(), stamp: stamp_of(&self.path) };
        Ok(config)
    }
}

fn read(path: &Path) -> Result<(ConfigJson, Stamp), ConfigFileError> {
    let failed = |source| ConfigFileError::Read { path: path.to_owned(), source };
    let stamp = stamp(&fs::metadata(path).map_err(failed)?);
    let bytes = fs::read(path).map_err(failed)?;
    let config = ConfigJson::parse(&bytes)
        .map_err(|source| ConfigFileError::Malformed { path: path.to_owned(), source })?;
    Ok((config, stamp))
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| stamp(&metadata))
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    Stamp { inode: metadata.ino(), length: metadata.len(), modified: metadata.modified().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_others_wrote_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, r#"{"apiEndpoint":"http://a","wifi":"x"}"#).unwrap();
        let file = ConfigFile::open(&path).unwrap();
        fs::write(&path, r#"{"apiEndpoint":"http://b:1","wifi":"y","more":[1]}"#).unwrap();
        assert_eq!(file.get().endpoint(), Some("http://b:1"));
        file.update(|config| config.hostname = Some("h".into())).unwrap();
        let again = ConfigFile::open(&path).unwrap().get();
        assert_eq!(again.hostname.as_deref(), Some("h"));
        assert_eq!(again.other["wifi"], "y");
        assert_eq!(again.other["more"][0], 1);
    }

    #[test]
    fn a_file_torn_by_somebody_else_does_not_take_the_device_off_the_net() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, r#"{"apiEndpoint":"http://a"}"#).unwrap();
        let file = ConfigFile::open(&path).unwrap();
        fs::write(&path, r#"{"apiEndpoint":"ht"#).unwrap();
        assert_eq!(file.get().endpoint(), Some("http://a"));
    }
}
