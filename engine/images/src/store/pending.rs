//! Pulls that have begun: which layers and which partly fetched bytes are worth keeping for them.
//!
//! The note is written before the first byte comes and removed with the last; one that is found at open
//! belongs to a pull that broke off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use minke_common_model::digest::Digest;
use minke_engine_documents::{Sync, replace, seal, unseal};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::DiffId;
use crate::store::inner::Inner;
use crate::store::open::{is_older, list, named_digest};

const WHAT: &str = "minke-pull 1";

/// What a pull needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub layers: Vec<DiffId>,
    pub blobs: Vec<Digest>,
}

/// A pull under way. The note outlives it unless [`forget_pull`] is called.
pub(crate) struct PendingGuard {
    inner: Arc<Inner>,
    image: Digest,
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        if let Some(count) = state.pulls.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                state.pulls.remove(&self.image);
            }
        }
    }
}

/// The image is here: nothing needs to be kept for it, unless another pull of it is under way.
pub(crate) fn forget_pull(inner: &Inner, image: &Digest) {
    let _notes = inner.notes();
    if inner.state().pulls.contains_key(image) {
        return;
    }
    let path = path(inner, image);
    if let Err(error) = remove(&path) {
        tracing::warn!(%error, "forgetting a pull");
    }
}

/// Where the note of a pull is.
pub(crate) fn path(inner: &Inner, image: &Digest) -> PathBuf {
    inner.sub("pending").join(image.hex())
}

/// Removes a note; one that is gone is no failure.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("removing", path, error))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Option<Pending> {
    serde_json::from_slice(unseal(WHAT, &fs::read(path).ok()?)?).ok()
}

impl Pending {
    /// Notes that a pull of `image` begins. Blocking.
    ///
    /// Not synced: the first layer's sync takes it along, or a long download's first.
    pub(crate) fn begin(self, inner: &Arc<Inner>, image: Digest) -> Result<PendingGuard, Error> {
        // Whoever looks at the notes sees neither a staged one nor a pull without its note, and two pulls
        // of one image do not stage theirs at the same time.
        let _notes = inner.notes();
        *inner.state().pulls.entry(image).or_default() += 1;
        let guard = PendingGuard { inner: Arc::clone(inner), image };
        let path = path(inner, &image);
        let bytes = serde_json::to_vec(&self).map_err(|e| Error::io("writing", &path, e.into()))?;
        replace(&path, &seal(WHAT, &bytes), Sync::Nothing)
            .map_err(|error| Error::io("writing", &path, error))?;
        Ok(guard)
    }

    /// What broken-off pulls need; notes that are too old or torn are removed.
    pub(crate) fn load_all(inner: &Inner) -> Result<Vec<Self>, Error> {
        let _notes = inner.notes();
        let mut found = Vec::new();
        for path in list(&inner.sub("pending"))? {
            match read(&path) {
                Some(note)
                    if named_digest(&path).is_some()
                        && !is_older(&path, inner.options.keep_partial) =>
                {
                    found.push(note);
                }
                _ => remove(&path)?,
            }
        }
        Ok(found)
    }

    /// What pulls under way need; notes of all others are removed.
    pub(crate) fn forget_broken_off(
        inner: &Inner,
        _notes: &MutexGuard<'_, ()>,
    ) -> Result<Vec<Self>, Error> {
        let running: Vec<Digest> = inner.state().pulls.keys().copied().collect();
        let mut kept = Vec::new();
        for path in list(&inner.sub("pending"))? {
            if named_digest(&path).is_some_and(|image| running.contains(&image)) {
                kept.extend(read(&path));
            } else {
                remove(&path)?;
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::store::Store;

    #[tokio::test]
    async fn pulls_of_one_image_begin_and_end_while_notes_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let inner = Store::open(dir.path(), Options::default()).await.unwrap().inner;
        let image = Digest::of(b"image");
        let pull = || {
            let note = Pending { layers: Vec::new(), blobs: vec![image] };
            drop(note.begin(&inner, image).unwrap());
            forget_pull(&inner, &image);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..3000).for_each(|_| pull()));
            }
            scope.spawn(|| (0..3000).for_each(|_| drop(Pending::load_all(&inner).unwrap())));
        });
        assert!(list(&inner.sub("pending")).unwrap().is_empty());
    }
}
