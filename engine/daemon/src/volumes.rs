//! Volumes: directories that outlive containers.
//!
//! `volumes/<name>/volume.json` says what it is, `volumes/<name>/_data` holds it. Invariants: a volume
//! goes only when it is asked for by name, by prune, or with the container that it was made for
//! (anonymous ones). A removal begins with a rename to a name with a dot in front, and a creation that was
//! cut off has put nothing into `_data`: everything else without a document is a volume that has lost it.

mod again;
mod copy;
mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use minke_engine_client::wire::{CreateVolume, Volume};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    /// Volumes that are being made ready for a container, which may take long.
    busy: Mutex<BTreeSet<String>>,
    ready: Condvar,
    /// How many removed volumes still have files.
    leaving: watch::Sender<usize>,
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
    /// Opens the volumes of a data directory, and removes what a crash left. A volume that has lost its
    /// document, to a repair of the file system say, gets another.
    pub(crate) fn open(data: &Path) -> Result<Volumes> {
        let directory = data.join("volumes");
        let volumes = Volumes {
            directory,
            change: Mutex::default(),
            busy: Mutex::default(),
            ready: Condvar::new(),
            leaving: watch::Sender::new(0),
        };
        for path in entries(&volumes.directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                fs::remove_dir_all(&path).map_err(Error::file("removing", &path))?;
                continue;
            }
            match path.join("volume.json").try_exists() {
                Ok(true) => continue,
                Ok(false) if remove_empty(&path.join("_data")).is_ok() => {
                    fs::remove_dir_all(&path).map_err(Error::file("removing", &path))?;
                    continue;
                }
                Ok(false) => match volumes.write_again(&name) {
                    Ok(()) => tracing::warn!(volume = name, "a lost document was written again"),
                    Err(error) => {
                        let error = error.message();
                        tracing::error!(volume = name, error, "a volume has no document");
                    }
                },
                Err(error) => {
                    tracing::error!(volume = name, %error, "a volume's document cannot be reached");
                }
            }
        }
        Ok(volumes)
    }

    /// Every volume, by name.
    pub(crate) fn list(&self) -> Result<Vec<VolumeDocument>> {
        let mut found = Vec::new();
        let hidden = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        // What is hidden is on its way out.
        for path in entries(&self.directory)?.into_iter().filter(|path| !hidden(path)) {
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

    /// Writes the document of a volume again whose own is damaged or lost. What the volume holds was never
    /// touched; its labels are lost, and nobody knows when it was made.
    pub(crate) fn write_again(&self, name: &str) -> Result<()> {
        names::check_volume(name)?;
        let _change = self.lock();
        let path = self.directory.join(name);
        let containers = self.directory.with_file_name("containers");
        let (labels, options) = again::known(&path, &again::mounts_of(&containers, name))?;
        let document = VolumeDocument {
            version: 1,
            name: name.to_owned(),
            created_at: stamp::now(),
            labels,
            options,
        };
        durable::write_json(&path.join("volume.json"), &document)
    }

    /// Removes a volume. When this returns it is gone for good; its files go on a thread of their own, whose
    /// end the result waits for. The caller has checked that nobody uses it.
    pub(crate) fn remove(&self, name: &str) -> Result<JoinHandle<()>> {
        // Nothing in its document is needed: a volume can be removed whose document is damaged.
        if let Err(missing @ Error::NotFound(_)) = self.get(name) {
            return Err(missing);
        }
        let mut change = self.lock();
        mounted::unmount(&self.data(name))?;
        change.remove(name);
        let path = self.directory.join(name);
        // Another of this name may be removed before the files of this one are gone.
        let gone = self.directory.join(format!(".{}.removed", ids::random()));
        fs::rename(&path, &gone).map_err(Error::file("removing", &path))?;
        durable::sync_directory(&self.directory)?;
        self.leaving.send_modify(|count| *count += 1);
        let leaving = self.leaving.clone();
        Ok(tokio::task::spawn_blocking(move || {
            if let Err(error) = fs::remove_dir_all(&gone) {
                tracing::warn!(path = %gone.display(), %error, "a volume's files are left over");
            }
            leaving.send_modify(|count| *count -= 1);
        }))
    }

    /// Waits until the files of all volumes removed so far are gone: for whoever needs their room.
    pub(crate) async fn settled(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.leaving.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume's content ready for a container: what its options name is mounted, then `fill` has its
    /// turn. Both may take long: this is for threads that may wait. One container at a time; the next one
    /// finds a volume that is mounted and filled.
    pub(crate) fn hold(
        &self,
        name: &str,
        container: &str,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        let _busy = self.take(name);
        let data = self.data(name);
        fs::create_dir_all(&data).map_err(Error::file("making", &data))?;
        let options = match self.get(name) {
            Err(Error::NotFound(_)) => BTreeMap::new(),
            volume => volume?.options,
        };
        if let Some(source) = mounted::read(&options)? {
            // It counts before the mount is there, which nobody takes down then.
            self.lock().entry(name.to_owned()).or_default().insert(container.to_owned());
            if !mounted::is_mounted(&data)
                && let Err(error) = source.mount(&data)
            {
                if let Some(containers) = self.lock().get_mut(name) {
                    containers.remove(container);
                }
                return Err(error);
            }
        }
        fill(&data).map_err(Error::file("filling the volume", &data))
    }

    /// Waits until no other thread makes this volume ready.
    fn take<'a>(&'a self, name: &'a str) -> Busy<'a> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ready.wait_while(busy, |busy| busy.contains(name));
        waited.unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Busy { volumes: self, name }
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

/// A volume that is being made ready.
struct Busy<'a> {
    volumes: &'a Volumes,
    name: &'a str,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.volumes.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.volumes.ready.notify_all();
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

/// Removes a directory that is not there or empty; no other, nor one on which something is mounted.
fn remove_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
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

    /// A data directory without anything.
    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for name in ["volumes", "containers"] {
            fs::create_dir(data.path().join(name)).unwrap();
        }
        data
    }

    #[tokio::test]
    async fn a_volume_stays_until_removed_and_leftovers_go() {
        let data = data();
        let dir = data.path().join("volumes");
        let volumes = Volumes::open(data.path()).unwrap();
        assert!(volumes.create(&named("data")).unwrap().1);
        assert!(!volumes.create(&named("data")).unwrap().1);
        fs::write(volumes.data("data").join("file"), "x").unwrap();
        fs::create_dir_all(dir.join("half-made/_data")).unwrap();
        fs::create_dir(dir.join("less")).unwrap();
        fs::create_dir(dir.join(".gone.removed")).unwrap();
        fs::copy(dir.join("data/volume.json"), dir.join(".gone.removed/volume.json")).unwrap();
        assert_eq!(volumes.list().unwrap().len(), 1);
        let volumes = Volumes::open(data.path()).unwrap();
        assert_eq!(volumes.list().unwrap().len(), 1);
        assert_eq!(entries(&dir).unwrap().len(), 1);
        assert!(volumes.data("data").join("file").exists());
        let gone = volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(Error::NotFound(_))));
        gone.await.unwrap();
        assert!(entries(&dir).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_volume_that_has_lost_its_document_keeps_its_data_and_gets_another() {
        let data = data();
        let volumes = Volumes::open(data.path()).unwrap();
        volumes.create(&named("keep")).unwrap();
        fs::write(volumes.data("keep").join("file"), "x").unwrap();
        fs::remove_file(data.path().join("volumes/keep/volume.json")).unwrap();
        let volumes = Volumes::open(data.path()).unwrap();
        assert_eq!(volumes.get("keep").unwrap().name, "keep");
        assert_eq!(fs::read_to_string(volumes.data("keep").join("file")).unwrap(), "x");
        // A document that cannot be looked at is not one that is missing.
        let path = data.path().join("volumes/keep/volume.json");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("volume.json", &path).unwrap();
        let volumes = Volumes::open(data.path()).unwrap();
        assert!(volumes.data("keep").join("file").exists());
        volumes.remove("keep").unwrap().await.unwrap();
        volumes.settled().await;
        assert!(entries(&data.path().join("volumes")).unwrap().is_empty());
    }

    #[test]
    fn names_cannot_lead_out_and_foreign_drivers_are_refused() {
        let data = data();
        let volumes = Volumes::open(data.path()).unwrap();
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
