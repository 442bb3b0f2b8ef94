//! Keys of the device API: one for the whole device, and one for each service.
//!
//! Those of the services are derived from a secret of their own, which stays when the device's key is
//! made anew: they stand in containers that run, and nobody would tell them another.

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
    /// What the keys of services are derived from.
    secret: Arc<str>,
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Device,
    App(AppId),
}

impl ApiKeys {
    /// Reads the device's key from the file at `path` and the services' secret from the one beside it,
    /// or makes them.
    pub fn open(path: &Path) -> anyhow::Result<ApiKeys> {
        let beside = path.with_file_name("service-secret");
        let (known, secret) = (read(path), read(&beside));
        let secret = match (secret, &known) {
            (Some(secret), _) => secret,
            // Before there was a secret they were derived from the device's key, and are in use.
            (None, Some(key)) => keep(&beside, key.clone())?,
            (None, None) => keep(&beside, random_hex(16)?)?,
        };
        let global = match known {
            Some(key) => key,
            None => keep(path, random_hex(16)?)?,
        };
        let global = Arc::new(Mutex::new(global));
        Ok(ApiKeys { path: path.into(), global, secret: secret.into() })
    }

    /// The key for everything.
    pub fn global(&self) -> String {
        self.global.lock().expect("no panic while it is held").clone()
    }

    /// A new key for everything; those of the services stay.
    pub fn regenerate(&self) -> anyhow::Result<String> {
        let key = keep(&self.path, random_hex(16)?)?;
        *self.global.lock().expect("no panic while it is held") = key.clone();
        Ok(key)
    }

    /// The key of one service, good for its app only.
    pub fn for_service(&self, app: AppId, service: &ServiceName) -> String {
        let secret = *blake3::hash(self.secret.as_bytes()).as_bytes();
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

/// The key in a file, if there is a whole one. A file that cannot be read must not keep the supervisor
/// from starting.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|key| key.len() == 32)
}

fn keep(path: &Path, key: String) -> anyhow::Result<String> {
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
    }

    #[test]
    fn a_new_key_for_the_device_leaves_those_of_services_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        let keys = ApiKeys::open(&path).unwrap();
        let (old, web) = (keys.global(), "web".parse().unwrap());
        let of_service = keys.for_service(AppId::new(7), &web);
        let new = keys.regenerate().unwrap();
        for keys in [keys, ApiKeys::open(&path).unwrap()] {
            assert_eq!(keys.scope(&of_service), Some(Scope::App(AppId::new(7))));
            assert_eq!(keys.for_service(AppId::new(7), &web), of_service);
            assert_eq!((keys.scope(&new), keys.scope(&old)), (Some(Scope::Device), None));
        }
    }

    #[test]
    fn keys_of_a_supervisor_that_had_no_secret_stay_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        let global = "00112233445566778899aabbccddeeff";
        std::fs::write(&path, global).unwrap();
        // As they were made from the device's key.
        let secret = *blake3::hash(global.as_bytes()).as_bytes();
        let digest = blake3::keyed_hash(&secret, b"7/web").to_hex();
        let old = format!("7_web_{}", &digest[..32]);
        let keys = ApiKeys::open(&path).unwrap();
        assert_eq!(keys.scope(&old), Some(Scope::App(AppId::new(7))));
        keys.regenerate().unwrap();
        let keys = ApiKeys::open(&path).unwrap();
        assert_eq!(keys.scope(&old), Some(Scope::App(AppId::new(7))), "for good");
    }
}
