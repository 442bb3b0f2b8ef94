//! Keys of the device API: one for the whole device, one for each service, derived from it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use minke_common_model::ids::{AppId, ServiceName};
use minke_device_cloud_client::random_hex;
use minke_device_store::write_atomic;

/// The keys; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ApiKeys {
    path: Arc<Path>,
    global: Arc<Mutex<String>>,
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Device,
    App(AppId),
}

impl ApiKeys {
    /// Reads the device's key from the file at `path`, or makes it.
    pub fn open(path: &Path) -> anyhow::Result<ApiKeys> {
        let known = std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let global = match known.filter(|key| key.len() == 32) {
            Some(key) => key,
            None => make(path)?,
        };
        Ok(ApiKeys { path: path.into(), global: Arc::new(Mutex::new(global)) })
    }

    /// The key for everything.
    pub fn global(&self) -> String {
        self.global.lock().expect("no panic while it is held").clone()
    }

    /// A new key for everything; those of the services change with it.
    pub fn regenerate(&self) -> anyhow::Result<String> {
        let key = make(&self.path)?;
        *self.global.lock().expect("no panic while it is held") = key.clone();
        Ok(key)
    }

    /// The key of one service, good for its app only.
    pub fn for_service(&self, app: AppId, service: &ServiceName) -> String {
        let secret = *blake3::hash(self.global().as_bytes()).as_bytes();
        let name = format!("{app}/{service}");
        // The app is in front, so that the key says which one to check against.
        let digest = blake3::keyed_hash(&secret, name.as_bytes()).to_hex();
        format!("{app}_{service}_{}", &digest[..32])
    }

    /// What `key` allows, if anything.
    pub fn scope(&self, key: &str) -> Option<Scope> {
        if is_equal(key, &self.global()) {
            return Some(Scope::Device);
        }
        let (rest, _) = key.rsplit_once('_')?;
        let (app, service) = rest.split_once('_')?;
        let (app, service): (AppId, ServiceName) = (app.parse().ok()?, service.parse().ok()?);
        is_equal(key, &self.for_service(app, &service)).then_some(Scope::App(app))
    }
}

fn make(path: &Path) -> anyhow::Result<String> {
    let key = random_hex(16)?;
    write_atomic(path, key.as_bytes(), 0o600)?;
    Ok(key)
}

/// Compares in a time that does not say where two keys differ.
fn is_equal(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_scoped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        let keys = ApiKeys::open(&path).unwrap();
        assert_eq!(ApiKeys::open(&path).unwrap().global(), keys.global());
        assert_eq!(keys.scope(&keys.global()), Some(Scope::Device));
        let key = keys.for_service(AppId::new(7), &"my_web-1".parse().unwrap());
        assert_eq!(keys.scope(&key), Some(Scope::App(AppId::new(7))));
        assert_eq!(keys.scope(&key.replacen('7', "8", 1)), None);
        assert_eq!(keys.scope(""), None);
        keys.regenerate().unwrap();
        assert_eq!(keys.scope(&key), None);
    }
}
