//! Volumes: directories that outlive containers.
//!
//! `volumes/<name>/volume.json` says what it is, `volumes/<name>/_data` holds it. Invariants: a volume
//! goes only when it is asked for by name, by prune, or with the container that it was made for
//! (anonymous ones). A creation ends, and a removal begins, with a rename from or to a name with a dot in
//! front: whatever has a name without one and no document is a volume that has lost it.

mod again;
mod copy;
mod held;
mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use minke_engine_client::wire::{CreateVolume, Volume};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::removal::remove_tree;
use crate::{durable, ids, names, stamp};

pub(crate) use copy::fill_from_image;
use held::Holders;

/// What marks a volume that was made without a name.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// All volumes.
pub(crate) struct Volumes {
    directory: PathBuf,
    /// One change at a time, none of which takes long. By volume, for whom something is mounted on it.
    change: Mutex<BTreeMap<String, Holders>>,
    /// Volumes that are being made ready for a container or taken down, which may take long.
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
    /// document, to a repair of the file system say, gets another if it is known what was in it.
    pub(crate) fn open(data: &Path) -> Result<Volumes> {
        let volumes = Volumes {
            directory: data.join("volumes"),
            change: Mutex::default(),
            busy: Mutex::default(),
            ready: Condvar::new(),
            leaving: watch::Sender::new(0),
        };
        for path in entries(&volumes.directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.starts_with('.') {
                true => discard(&path),
                false => volumes.look_at(&name),
            }
        }
        Ok(volumes)
    }

    /// Writes a document that is lost. One volume that is not well keeps no engine from starting.
    fn look_at(&self, name: &str) {
        match self.directory.join(name).join("volume.json").try_exists() {
            Ok(true) => {}
            Ok(false) => match self.write_again(name) {
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
        self.find(name)?.ok_or_else(missing)
    }

    /// The volume of this name, if there is any. One without a document is none that could be made again:
    /// its content may be elsewhere.
    fn find(&self, name: &str) -> Result<Option<VolumeDocument>> {
        let path = self.directory.join(name);
        let document = durable::read_json(&path.join("volume.json"))?;
        if document.is_none() && path.exists() {
            return Err(Error::Conflict(format!(
                "the volume {name} has lost its document, and nobody knows its options: remove the volume, and create it again with them"
            )));
        }
        Ok(document)
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
        if let Some(found) = self.find(&name)? {
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
        self.make(&document)?;
        Ok((document, true))
    }

    /// Makes what is on the disk of a volume. It gets its name when it is whole.
    fn make(&self, document: &VolumeDocument) -> Result<()> {
        let made = self.directory.join(format!(".{}.new", ids::random()));
        let path = self.directory.join(&document.name);
        let data = made.join("_data");
        let whole = fs::create_dir_all(&data)
            .map_err(Error::file("making", data))
            .and_then(|()| durable::write_json(&made.join("volume.json"), document))
            .and_then(|()| fs::rename(&made, &path).map_err(Error::file("making", path)));
        if whole.is_err() {
            // A full disk must not be left fuller.
            let _ = fs::remove_dir_all(&made);
        }
        whole?;
        durable::sync_directory(&self.directory)
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

    /// Removes a volume. When this returns it is gone for good. What is mounted on it and its files go on a
    /// thread of their own, whose end the result waits for. The caller has checked that nobody uses it.
    pub(crate) fn remove(&self, name: &str) -> Result<JoinHandle<()>> {
        // Nothing in its document is needed: a volume can be removed whose document is damaged.
        if let Err(missing @ Error::NotFound(_)) = self.get(name) {
            return Err(missing);
        }
        let path = self.directory.join(name);
        // Another of this name may be removed before the files of this one are gone.
        let gone = self.directory.join(format!(".{}.removed", ids::random()));
        {
            let mut change = self.lock();
            fs::rename(&path, &gone).map_err(Error::file("removing", &path))?;
            change.remove(name);
            durable::sync_directory(&self.directory)?;
        }
        self.leaving.send_modify(|count| *count += 1);
        let leaving = self.leaving.clone();
        Ok(tokio::task::spawn_blocking(move || {
            discard(&gone);
            leaving.send_modify(|count| *count -= 1);
        }))
    }

    /// Waits until the files of all volumes removed so far are gone: for whoever needs their room.
    pub(crate) async fn settled(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.leaving.subscribe().wait_for(|count| *count == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Holders>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Removes the directory of a volume that is gone or was never whole, and nothing of what is mounted on it.
fn discard(path: &Path) {
    let unmounted = mounted::unmount(&path.join("_data"));
    let removed = unmounted.and_then(|()| remove_tree(path).map_err(Error::file("removing", path)));
    if let Err(error) = removed {
        tracing::warn!(error = error.message(), "a volume's files are left over");
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
        fs::create_dir_all(dir.join(".half-made.new/_data")).unwrap();
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

    #[tokio::test]
    async fn a_volume_whose_options_nobody_knows_is_no_plain_one_until_it_is_removed() {
        let data = data();
        let options = [("type", "tmpfs"), ("device", "tmpfs")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let body = CreateVolume { driver_opts: options.into(), ..named("far") };
        Volumes::open(data.path()).unwrap().create(&body).unwrap();
        fs::remove_file(data.path().join("volumes/far/volume.json")).unwrap();
        let volumes = Volumes::open(data.path()).unwrap();
        assert!(volumes.list().unwrap().is_empty());
        for body in [&named("far"), &body] {
            let refused = volumes.create(body).unwrap_err();
            assert!(refused.to_string().contains("options"), "{refused}");
        }
        let held = volumes.hold("far", "box", |_| panic!("it holds nothing"));
        assert!(matches!(held, Err(Error::Conflict(_))), "{held:?}");
        volumes.remove("far").unwrap().await.unwrap();
        assert!(volumes.create(&body).unwrap().1);
        assert_eq!(volumes.get("far").unwrap().options, body.driver_opts);
    }

    #[test]
    fn what_cannot_be_removed_keeps_no_engine_from_starting() {
        let data = data();
        let dir = data.path().join("volumes");
        fs::write(dir.join(".file.removed"), "no directory").unwrap();
        fs::create_dir(dir.join(".gone.removed")).unwrap();
        fs::create_dir(dir.join("-no-name")).unwrap();
        let volumes = Volumes::open(data.path()).unwrap();
        volumes.create(&named("data")).unwrap();
        assert_eq!(volumes.list().unwrap().len(), 1);
        assert!(!dir.join(".gone.removed").exists());
    }

    #[test]
    fn a_name_may_be_as_long_as_that_of_a_file() {
        let data = data();
        let volumes = Volumes::open(data.path()).unwrap();
        let name = "x".repeat(255);
        assert!(volumes.create(&named(&name)).unwrap().1);
        assert!(volumes.get(&name).is_ok());
        assert_eq!(entries(&data.path().join("volumes")).unwrap().len(), 1);
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
