//! What earlier builds made, by key; kept over restarts.
//!
//! A key is a chain: each step's holds its parent's. What a step made is an image without a name in the
//! store, which also keeps its layers. The file is only a hint: an entry whose image is gone is a miss,
//! and a file that cannot be read is an empty cache.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use minke_common_model::digest::Hasher;
use minke_engine_images::{DiffId, ImageConfig, ImageId, RemoveOptions, Store};
use serde::{Deserialize, Serialize};

use crate::{durable, stamp};

/// Most entries that are kept; the ones not used for longest go first.
const MAX_ENTRIES: usize = 4000;
/// Most characters of an instruction that are kept to be shown.
const MAX_TEXT: usize = 200;
/// Entries that go at once when there are too many.
const SURPLUS: usize = 400;

/// What all keys begin with. The number goes up when the meaning of keys changes: no key of another
/// number is met then, neither in the file nor in images that `--cache-from` names, and what the file
/// has of those ages and goes.
const SCHEME: &str = "base 2";

/// The key of a step: 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Key(String);

impl Key {
    /// The key of what a stage begins with.
    pub(crate) fn base(image: Option<&ImageId>, platform: &str) -> Key {
        let image = image.map_or_else(|| "scratch".to_owned(), ToString::to_string);
        Key::of(&[SCHEME, &image, platform], &[])
    }

    /// The key of a step after this one.
    pub(crate) fn then(&self, instruction: &str, inputs: &[&str], content: &[u8]) -> Key {
        let mut parts = vec![self.0.as_str(), instruction];
        parts.extend_from_slice(inputs);
        Key::of(&parts, content)
    }

    /// As it is written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    fn of(parts: &[&str], content: &[u8]) -> Key {
        let mut digest = Hasher::new();
        digest.update((parts.len() as u64).to_le_bytes());
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(content);
        Key(digest.finish().hex())
    }
}

/// Where an image's configuration keeps the keys of the steps that made it: an object, from the place in
/// the history to the key.
const KEYS: &str = "minke.build.keys";
/// Most images that `--cache-from` may name.
pub(crate) const MAX_IMPORTS: usize = 32;

/// Notes the key of the newest step in an image's configuration.
pub(crate) fn note_key(config: &mut ImageConfig, key: &Key) {
    let Some(place) = config.history.len().checked_sub(1) else { return };
    let keys = config.other.entry(KEYS).or_insert_with(|| serde_json::json!({}));
    if let Some(keys) = keys.as_object_mut() {
        keys.insert(place.to_string(), key.0.clone().into());
    }
}

/// A step of an image that somebody else may have built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The layers after it.
    pub(crate) layers: Vec<DiffId>,
    /// RFC 3339 time of making.
    pub(crate) created: String,
}

/// The steps of the images that `--cache-from` names. They are used by the build that asked, and
/// remembered for no other.
#[derive(Debug, Default)]
pub(crate) struct Imports(BTreeMap<Key, Import>);

impl Imports {
    /// Takes in the steps that an image tells of.
    pub(crate) fn add(&mut self, config: &ImageConfig) {
        let Some(keys) = config.other.get(KEYS).and_then(|keys| keys.as_object()) else { return };
        let mut layers = 0;
        for (place, step) in config.history.iter().enumerate() {
            layers += usize::from(!step.empty_layer);
            let key = keys.get(&place.to_string()).and_then(|key| key.as_str());
            let (Some(key), Some(layers)) = (key, config.rootfs.diff_ids.get(..layers)) else {
                continue;
            };
            let created = step.created.clone().unwrap_or_default();
            let import = Import { layers: layers.to_vec(), created };
            self.0.insert(Key(key.to_owned()), import);
        }
    }

    /// Whether one of the images was made by a step of this key.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The step of this key, if it goes on from these layers.
    pub(crate) fn find(&self, key: &Key, layers: &[DiffId]) -> Option<&Import> {
        self.0.get(key).filter(|import| import.layers.starts_with(layers))
    }
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The image whose layers are the result; `None` for a step that made none.
    pub(crate) image: Option<ImageId>,
    /// RFC 3339 time of making.
    pub(crate) created: String,
    /// The instruction.
    #[serde(default)]
    pub(crate) text: String,
    /// Nanoseconds since 1970.
    used: i64,
    /// How often it was used again.
    #[serde(default)]
    uses: u64,
}

impl Entry {
    /// When it was used last, nanoseconds since 1970.
    pub(crate) fn used(&self) -> i64 {
        self.used
    }

    /// How often it was used again.
    pub(crate) fn uses(&self) -> u64 {
        self.uses
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    entries: BTreeMap<Key, Entry>,
}

const VERSION: u32 = 1;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    path: Arc<PathBuf>,
    document: Arc<Mutex<Document>>,
    /// Images whose place another one took since the last save.
    replaced: Arc<Mutex<Vec<ImageId>>>,
}

/// Removes the image of a step if it is nothing but that; whether it is gone. With a name it is somebody's
/// image; what it was made from has records of its own.
pub(crate) async fn let_go(store: &Store, image: &ImageId) -> bool {
    let Ok(found) = store.image_by_id(image) else { return true };
    if !(found.tags.is_empty() && found.digests.is_empty()) {
        return false;
    }
    let options = RemoveOptions { no_prune: true, ..RemoveOptions::default() };
    let removed = store.remove(&image.to_string(), options).await;
    if let Err(error) = &removed {
        tracing::debug!(%error, %image, "an image of the build cache stays");
    }
    removed.is_ok()
}

impl Cache {
    /// Reads the file.
    pub(crate) fn open(path: &Path) -> Cache {
        let read = durable::read_json::<Document>(path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the build cache cannot be read; it begins anew");
            None
        });
        let document = read.filter(|d| d.version == VERSION).unwrap_or_default();
        Cache {
            path: Arc::new(path.to_owned()),
            document: Arc::new(Mutex::new(document)),
            replaced: Arc::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Document> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a step made, if that is still there.
    pub(crate) fn find(&self, key: &Key, store: &Store) -> Option<Entry> {
        let mut document = self.lock();
        let entry = document.entries.get_mut(key)?;
        if let Some(image) = &entry.image
            && store.image_by_id(image).is_err()
        {
            document.entries.remove(key);
            return None;
        }
        entry.used = stamp::now();
        entry.uses += 1;
        Some(entry.clone())
    }

    /// Remembers what a step made, and when.
    pub(crate) fn put(&self, key: Key, text: &str, image: Option<ImageId>, created: String) {
        let text = text.chars().take(MAX_TEXT).collect();
        let entry = Entry { image, created, text, used: stamp::now(), uses: 0 };
        let before = self.lock().entries.insert(key, entry).and_then(|before| before.image);
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.extend(before.filter(|before| Some(*before) != image));
    }

    /// Writes the file and lets go of what was not used for longest, if there is too much.
    pub(crate) async fn save(&self, store: &Store) {
        let mut old = self.take_surplus();
        old.extend(self.take_replaced());
        for image in old {
            // One that has children stays.
            let_go(store, &image).await;
        }
        let bytes = {
            let mut document = self.lock();
            document.version = VERSION;
            serde_json::to_vec(&*document)
        };
        let written = bytes
            .map_err(|e| e.to_string())
            .and_then(|bytes| durable::write_soon(&self.path, &bytes).map_err(|e| e.message()));
        if let Err(error) = written {
            tracing::warn!(error, "the build cache was not written");
        }
    }

    /// Images that no record names any more.
    fn take_replaced(&self) -> Vec<ImageId> {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let document = self.lock();
        let named: HashSet<ImageId> =
            document.entries.values().filter_map(|entry| entry.image).collect();
        // Children were made after what they were made from.
        replaced.drain(..).rev().filter(|image| !named.contains(image)).collect()
    }

    fn take_surplus(&self) -> Vec<ImageId> {
        let mut document = self.lock();
        if document.entries.len() <= MAX_ENTRIES {
            return Vec::new();
        }
        let mut ages: Vec<(i64, Key)> =
            document.entries.iter().map(|(key, entry)| (entry.used, key.clone())).collect();
        ages.sort();
        let surplus = document.entries.len() - MAX_ENTRIES + SURPLUS;
        let keys = ages.into_iter().take(surplus).map(|(_, key)| key);
        let gone: Vec<Entry> = keys.filter_map(|key| document.entries.remove(&key)).collect();
        gone.into_iter().filter_map(|entry| entry.image).collect()
    }

    /// Everything in it.
    pub(crate) fn entries(&self) -> Vec<(Key, Entry)> {
        let document = self.lock();
        document.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Forgets what the step of a key made.
    pub(crate) fn forget(&self, key: &str) {
        self.lock().entries.remove(&Key(key.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_everything_and_nothing_else() {
        let base = Key::base(None, "linux/amd64");
        let step = base.then("RUN make", &["A=1"], b"");
        assert_eq!(step, Key::base(None, "linux/amd64").then("RUN make", &["A=1"], b""));
        for other in [
            Key::base(None, "linux/arm64").then("RUN make", &["A=1"], b""),
            base.then("RUN make", &["A=2"], b""),
            base.then("RUN make", &["A=", "1"], b""),
            base.then("RUN makeA", &["=1"], b""),
            base.then("RUN make", &["A=1"], b"x"),
            step.then("RUN make", &["A=1"], b""),
        ] {
            assert_ne!(other, step);
        }
    }
}
