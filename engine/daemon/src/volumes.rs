//! Volumes: directories that outlive containers.
//!
//! `volumes/<name>/volume.json` says what it is, `volumes/<name>/_data` holds it. Invariants: a volume
//! goes only when it is asked for by name, by prune, or with the container that it was made for
//! (anonymous ones); a directory without a document is a leftover of a crash.

mod copy;
mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use minke_engine_client::wire::{CreateVolume, Volume};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::{durable, ids, names, stamp};

pub(crate) use copy::fill_from_image;

/// What marks a volume that was made without a name.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// All volumes.
pub(crate) struct Volumes {
    directory: PathBuf,
    /// One change at a time. By volume, the containers for which something is mounted on it.
    change: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

/// A volume as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VolumeDocument {
    version: u32,
    pub(crate) name: String,
    created_at: i64,
    pub(crate) labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
}

impl Volumes {
    /// Opens the directory and removes what a crash left.
    pub(crate) fn open(directory: &Path) -> Result<Volumes> {
        for path in entries(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || !path.join("volume.json").exists() {
                fs::remove_dir_all(&path).map_err(Error::file("removing", &path))?;
            }
        }
        Ok(Volumes { directory: directory.to_owned(), change: Mutex::default() })
    }

    /// Every volume, by name.
    pub(crate) fn list(&self) -> Result<Vec<VolumeDocument>> {
        let mut found = Vec::new();
        for path in entries(&self.directory)? {
            match durable::read_json(&path.join("volume.json")) {
                Ok(document) => found.extend(document),
                // The others are to be seen all the same.
                Err(error) => tracing::error!(error = error.message(), "a volume is not listed"),
            }
        }
        found.sort_by(|one: &VolumeDocument, two| one.name.cmp(&two.name));
        Ok(found)
    }

    /// The volume of this name.
    pub(crate) fn get(&self, name: &str) -> Result<VolumeDocument> {
        let missing = || Error::NotFound(format!("get {name}: no such volume"));
        names::check_volume(name).map_err(|_| missing())?;
        durable::read_json(&self.directory.join(name).join("volume.json"))?.ok_or_else(missing)
    }

    /// Makes a volume; one that exists is left as it is. Answers whether it is new.
    pub(crate) fn create(&self, body: &CreateVolume) -> Result<(VolumeDocument, bool)> {
        if !matches!(body.driver.as_str(), "" | "local") {
            return Err(Error::NotFound(format!(
                "error looking up volume plugin {}: plugin not found",
                body.driver
            )));
        }
        mounted::read(&body.driver_opts)?;
        let mut labels = body.labels.clone();
        let name = if body.name.is_empty() {
            labels.insert(ANONYMOUS.to_owned(), String::new());
            ids::random()
        } else {
            names::check_volume(&body.name)?;
            body.name.clone()
        };
        let _change = self.lock();
        let path = self.directory.join(&name);
        let found: Option<VolumeDocument> = durable::read_json(&path.join("volume.json"))?;
        if let Some(found) = found {
            if !body.driver_opts.is_empty() && body.driver_opts != found.options {
                return Err(Error::Conflict(format!(
                    "a volume named {name} exists already, with other options"
                )));
            }
            return Ok((found, false));
        }
        let document = VolumeDocument {
            version: 1,
            name,
            created_at: stamp::now(),
            labels,
            options: body.driver_opts.clone(),
        };
        let data = path.join("_data");
        fs::create_dir_all(&data).map_err(Error::file("making", &data))?;
        durable::write_json(&path.join("volume.json"), &document)?;
        durable::sync_directory(&self.directory)?;
        Ok((document, true))
    }

    /// Writes the document of a volume again whose own is damaged. What it holds was never touched; its
    /// labels are lost, and nobody knows when it was made.
    pub(crate) fn write_again(&self, name: &str) -> Result<()> {
        names::check_volume(name)?;
        let _change = self.change.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let document = VolumeDocument {
            version: 1,
            name: name.to_owned(),
            created_at: stamp::now(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        durable::write_json(&self.directory.join(name).join("volume.json"), &document)
    }

    /// Removes a volume with all it holds. The caller has checked that nobody uses it.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        let mut change = self.lock();
        mounted::unmount(&self.data(name))?;
        change.remove(name);
        let path = self.directory.join(name);
        let gone = self.directory.join(format!(".{name}.removed"));
        fs::rename(&path, &gone).map_err(Error::file("removing", &path))?;
        durable::sync_directory(&self.directory)?;
        fs::remove_dir_all(&gone).map_err(Error::file("removing", &gone))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume's content ready for a container: what its options name is mounted.
    pub(crate) fn hold(&self, name: &str, container: &str) -> Result<()> {
        let options = match self.get(name) {
            Err(Error::NotFound(_)) => return Ok(()),
            volume => volume?.options,
        };
        let Some(source) = mounted::read(&options)? else { return Ok(()) };
        let mut held = self.lock();
        let data = self.data(name);
        if !mounted::is_mounted(&data) {
            source.mount(&data)?;
        }
        held.entry(name.to_owned()).or_default().insert(container.to_owned());
        Ok(())
    }

    /// A container needs its volumes no longer. What was mounted for it is taken down, unless another
    /// container has it, of which an earlier daemon may have known: `in_use` says that.
    pub(crate) fn release(
        &self,
        name: &str,
        container: &str,
        in_use: impl Fn() -> bool,
    ) -> Result<()> {
        let options = self.get(name)?.options;
        if options.is_empty() {
            return Ok(());
        }
        let mut held = self.lock();
        let others = held.get_mut(name).is_some_and(|containers| {
            containers.remove(container);
            !containers.is_empty()
        });
        if others || in_use() {
            return Ok(());
        }
        held.remove(name);
        mounted::unmount(&self.data(name))
    }

    /// Where a volume's content is.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("_data")
    }

    /// A volume as the API shows it.
    pub(crate) fn show(&self, document: &VolumeDocument) -> Volume {
        Volume {
            name: document.name.clone(),
            driver: "local".to_owned(),
            mountpoint: self.data(&document.name).to_string_lossy().into_owned(),
            created_at: stamp::rfc3339(document.created_at),
            labels: document.labels.clone(),
            scope: "local".to_owned(),
            options: document.options.clone(),
            usage_data: None,
        }
    }
}

impl VolumeDocument {
    /// Whether it was made without a name.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(Error::file("reading", directory))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Bytes that a directory's files take.
pub(crate) fn disk_usage(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| match metadata.is_dir() {
            true => disk_usage(&path),
            false => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CreateVolume {
        CreateVolume { name: name.to_owned(), ..CreateVolume::default() }
    }

    #[test]
    fn a_volume_stays_until_removed_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        assert!(volumes.create(&named("data")).unwrap().1);
        assert!(!volumes.create(&named("data")).unwrap().1);
        fs::write(volumes.data("data").join("file"), "x").unwrap();
        fs::create_dir(dir.path().join("half-made")).unwrap();
        fs::create_dir(dir.path().join(".gone.removed")).unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        assert_eq!(volumes.list().unwrap().len(), 1);
        assert_eq!(entries(dir.path()).unwrap().len(), 1);
        assert!(volumes.data("data").join("file").exists());
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(Error::NotFound(_))));
        assert!(entries(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn names_cannot_lead_out_and_foreign_drivers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        assert!(volumes.create(&named("../x")).is_err());
        assert!(matches!(volumes.get("../x"), Err(Error::NotFound(_))));
        let nfs = CreateVolume { driver: "nfs".to_owned(), ..named("data") };
        assert!(volumes.create(&nfs).is_err());
        let other = BTreeMap::from([
            ("type".to_owned(), "tmpfs".to_owned()),
            ("device".to_owned(), "tmpfs".to_owned()),
        ]);
        volumes.create(&named("plain")).unwrap();
        let other = CreateVolume { driver_opts: other, ..named("plain") };
        assert!(matches!(volumes.create(&other), Err(Error::Conflict(_))));
        let (anonymous, _) = volumes.create(&named("")).unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.len() == 64);
    }
}
