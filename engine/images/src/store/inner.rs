//! The store's directory, what is known of it in memory, and the few ways in which both change together.
//!
//! ```text
//! <dir>/version            "minke-images 1"
//! <dir>/lock               held while a process has the store open
//! <dir>/index              which images there are, and their names
//! <dir>/images/<hex>       configurations, byte for byte
//! <dir>/layers/<hex>/      manifest, fs/, extra/, info; named by DiffID
//! <dir>/blobs/<hex>        compressed layers, on build workers only
//! <dir>/partial/<hex>      the beginnings of compressed layers, for resume
//! <dir>/pending/<hex>      pulls that broke off: what to keep for them
//! <dir>/staging/           in the making; <dir>/trash/: on the way out
//! <dir>/replaced/<boot>/   damaged layers that something still ran on when they were fetched again
//! ```
//!
//! Order of a commit: contents → syncfs → rename → fsync of the directory → memory. Order of a removal:
//! index → memory → rename to trash → delete.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use minke_common_model::digest::Digest;
use tokio::sync::Semaphore;

use crate::config::ImageConfig;
use crate::durable::Ledger;
use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::image::Image;
use crate::layer::VIEW;
use crate::options::{Options, Use};
use crate::registry::Clients;
use crate::store::index::Index;
use crate::store::info::LayerInfo;

/// Layers in work at once, of all pulls together: two pulls that hang leave enough for a third.
const UNPACKERS: usize = 9;

pub(crate) struct Inner {
    pub dir: PathBuf,
    pub options: Options,
    pub ledger: Ledger,
    pub clients: Clients,
    state: Mutex<State>,
    /// Held over every change of the index, from reading it to showing it.
    index_lock: Mutex<()>,
    /// Held while a layer's directory comes or goes by its name: what a collection has forgotten is not
    /// put in place again before it has moved the old directory away.
    places: Mutex<()>,
    /// Held while somebody reads or changes the notes of pulls.
    notes: Mutex<()>,
    busy: Mutex<HashMap<DiffId, Weak<tokio::sync::Mutex<()>>>>,
    /// The right to fetch and unpack a layer: what bounds the memory of all pulls together. Whoever has it
    /// waits for nobody who has not.
    pub(crate) unpackers: Arc<Semaphore>,
    next_name: AtomicU64,
    /// Deletes what open found; whoever needs the space waits for it.
    pub(crate) sweeper: Mutex<Option<std::thread::JoinHandle<()>>>,
    _lock: File,
}

/// What is known in memory. Never locked while something waits for a disk or a network.
#[derive(Default)]
pub(crate) struct State {
    pub index: Index,
    pub configs: HashMap<ImageId, Arc<ImageConfig>>,
    pub layers: HashMap<DiffId, LayerState>,
    pub pins: HashMap<String, (ImageId, Use)>,
    pub holds: HashMap<DiffId, usize>,
    /// Pulls under way, by the digest of their configuration.
    pub pulls: HashMap<Digest, usize>,
}

pub(crate) struct LayerState {
    pub info: LayerInfo,
    pub broken: bool,
}

/// The right to work on a layer. A thread that works on it holds it until it has ended.
pub(crate) type Busy = tokio::sync::OwnedMutexGuard<()>;

/// Keeps layers that no image names yet.
pub(crate) struct Hold {
    inner: Arc<Inner>,
    layers: Vec<DiffId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        for layer in &self.layers {
            if let Some(count) = state.holds.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.holds.remove(layer);
                }
            }
        }
    }
}

/// A directory under `staging/`, removed on drop unless it was renamed away.
pub(crate) struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "removing a staging directory");
        }
    }
}

impl Inner {
    pub(crate) fn new(dir: PathBuf, options: Options, lock: File, state: State) -> Self {
        Self {
            dir,
            options,
            ledger: Ledger::default(),
            clients: Clients::default(),
            state: Mutex::new(state),
            index_lock: Mutex::new(()),
            places: Mutex::new(()),
            notes: Mutex::new(()),
            busy: Mutex::new(HashMap::new()),
            unpackers: Arc::new(Semaphore::new(UNPACKERS)),
            next_name: AtomicU64::new(0),
            sweeper: Mutex::new(None),
            _lock: lock,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to move directories of layers.
    pub(crate) fn places(&self) -> MutexGuard<'_, ()> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to the notes of pulls, and to say which beginnings of downloads are wanted.
    pub(crate) fn notes(&self) -> MutexGuard<'_, ()> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sub(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn layer_dir(&self, layer: &DiffId) -> PathBuf {
        self.dir.join("layers").join(layer.hex())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.hex())
    }

    /// One task at a time works on a layer.
    pub(crate) async fn busy(&self, layer: &DiffId) -> Busy {
        let mutex = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, mutex| mutex.strong_count() > 0);
            match busy.get(layer).and_then(Weak::upgrade) {
                Some(mutex) => mutex,
                None => {
                    let mutex = Arc::new(tokio::sync::Mutex::new(()));
                    busy.insert(*layer, Arc::downgrade(&mutex));
                    mutex
                }
            }
        };
        mutex.lock_owned().await
    }

    pub(crate) fn hold(self: &Arc<Self>, layers: &[DiffId]) -> Hold {
        let mut state = self.state();
        for layer in layers {
            *state.holds.entry(*layer).or_default() += 1;
        }
        Hold { inner: Arc::clone(self), layers: layers.to_vec() }
    }

    /// A new directory for something in the making.
    pub(crate) fn staging(&self) -> Result<Staging, Error> {
        let path = self.new_name("staging");
        fs::create_dir(&path).map_err(|error| Error::io("creating", &path, error))?;
        Ok(Staging { path })
    }

    pub(crate) fn new_name(&self, directory: &str) -> PathBuf {
        loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(directory).join(number.to_string());
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// Takes something out of sight at once; returns where it is to be deleted.
    pub(crate) fn trash(&self, path: &Path) -> Result<PathBuf, Error> {
        let to = self.new_name("trash");
        fs::rename(path, &to).map_err(|error| Error::io("moving away", path, error))?;
        Ok(to)
    }

    pub(crate) fn has_layer(&self, layer: &DiffId) -> bool {
        self.state().layers.get(layer).is_some_and(|layer| !layer.broken)
    }

    /// Changes the index on disk, then in memory. A failed write leaves both as they were.
    pub(crate) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _one_at_a_time = self.index_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.change_locked(change)
    }

    /// Looks at the index while nobody changes it.
    pub(crate) fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        let _one_at_a_time = self.index_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.state().index.clone();
        look(&index)
    }

    /// Writes both versions of the index again.
    pub(crate) fn rewrite_index(&self) -> Result<(), Error> {
        let save = |index: &Index| index.save(&self.dir, &self.ledger);
        self.with_index(|index| save(index).and_then(|()| save(index)))
            .map_err(|error| Error::io("writing", self.sub("index"), error))
    }

    fn change_locked<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.state().index.clone();
        let mut index = before.clone();
        let result = change(&mut index)?;
        index.forget_notes();
        if index != before {
            index
                .save(&self.dir, &self.ledger)
                .map_err(|error| Error::io("writing", self.sub("index"), error))?;
            self.state().index = index;
        }
        Ok(result)
    }

    /// Stores a configuration and lets `change` enter the image into the index.
    pub(crate) fn install_image(
        &self,
        id: ImageId,
        bytes: &[u8],
        config: Arc<ImageConfig>,
        change: impl FnOnce(&mut Index),
    ) -> Result<(), Error> {
        let _one_at_a_time = self.index_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let images = self.sub("images");
        let layers = config.rootfs.diff_ids.clone();
        let known = self.state().configs.contains_key(&id);
        if !known {
            self.ledger
                .replace(&images.join(id.hex()), bytes)
                .map_err(|error| Error::io("writing", images.join(id.hex()), error))?;
            // Before the index: whoever sees the image finds its configuration.
            self.state().configs.insert(id, config);
        }
        let installed = self.change_locked(|index| {
            let record = index.images.entry(id).or_default();
            record.hidden = false;
            record.layers = layers;
            change(index);
            Ok(())
        });
        if installed.is_err() && !known {
            self.state().configs.remove(&id);
            let _ = fs::remove_file(images.join(id.hex()));
        }
        installed
    }

    /// The image as shown; nothing if there is none.
    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        let state = self.state();
        let record = state.index.images.get(id).filter(|_| state.is_shown(id))?;
        state.show(id, record.parent, record.last_tagged)
    }

    /// View directories of a stack of layers, top first.
    pub(crate) fn views(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error> {
        let state = self.state();
        layers
            .iter()
            .rev()
            .map(|layer| match state.layers.get(layer) {
                Some(known) if !known.broken => Ok(self.layer_dir(layer).join(VIEW)),
                _ => Err(Error::MissingLayer(*layer)),
            })
            .collect()
    }

    /// Deletes trees and says so if that fails; what stays is deleted at the next open.
    pub(crate) fn delete(&self, paths: &[PathBuf]) {
        for path in paths {
            if let Err(error) = remove_tree(path) {
                tracing::warn!(path = %path.display(), %error, "deleting");
            }
        }
    }
}

impl State {
    pub(crate) fn show(
        &self,
        id: &ImageId,
        parent: Option<ImageId>,
        last_tagged: u64,
    ) -> Option<Image> {
        let config = Arc::clone(self.configs.get(id)?);
        let sizes = config.rootfs.diff_ids.iter().filter_map(|layer| self.layers.get(layer));
        Some(Image {
            id: *id,
            parent,
            tags: Index::names(&self.index.tags, id),
            digests: Index::names(&self.index.digests, id),
            size: sizes.map(|layer| layer.info.content_bytes).sum(),
            last_tagged,
            config,
        })
    }

    /// Whether an image may be seen: not hidden, and every part of it is here and not known to be damaged.
    pub(crate) fn is_shown(&self, id: &ImageId) -> bool {
        self.index.images.get(id).is_some_and(|record| !record.hidden) && self.is_whole(id)
    }

    /// Whether every part of an image is here and not known to be damaged.
    pub(crate) fn is_whole(&self, id: &ImageId) -> bool {
        let good = |layer| self.layers.get(layer).is_some_and(|layer: &LayerState| !layer.broken);
        self.configs.get(id).is_some_and(|config| config.rootfs.diff_ids.iter().all(good))
    }

    /// Whether a running container has this layer in its root.
    pub(crate) fn runs_on(&self, layer: &DiffId) -> bool {
        let mut running = self.pins.values().filter(|(_, how)| *how == Use::Running);
        running.any(|(image, _)| self.layers_of(image).contains(layer))
    }

    /// The layers of an image, also if its configuration is damaged.
    pub(crate) fn layers_of(&self, id: &ImageId) -> &[DiffId] {
        match (self.configs.get(id), self.index.images.get(id)) {
            (Some(config), _) => &config.rootfs.diff_ids,
            (None, Some(record)) => &record.layers,
            (None, None) => &[],
        }
    }

    /// Every layer that an image names, shown or hidden, or that somebody holds.
    pub(crate) fn needed_layers(&self) -> HashSet<DiffId> {
        let named = self.index.images.keys().flat_map(|id| self.layers_of(id).iter().copied());
        named.chain(self.holds.keys().copied()).collect()
    }

    /// Images that were built on `id`.
    pub(crate) fn children(&self, id: &ImageId) -> BTreeSet<ImageId> {
        let images = self.index.images.iter();
        images.filter(|(_, record)| record.parent == Some(*id)).map(|(child, _)| *child).collect()
    }
}

/// Removes a file or a tree.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
