//! Pulls that have begun: which layers and which partly fetched bytes are worth keeping for them.
//!
//! The note is written before the first byte comes and removed with the last; one that is found at open
//! belongs to a pull that broke off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    if inner.state().pulls.contains_key(image) {
        return;
    }
    let path = path(inner, image);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "removing");
    }
}

/// Where the note of a pull is.
pub(crate) fn path(inner: &Inner, image: &Digest) -> PathBuf {
    inner.sub("pending").join(image.hex())
}

fn read(path: &Path) -> Option<Pending> {
    serde_json::from_slice(unseal(WHAT, &fs::read(path).ok()?)?).ok()
}

impl Pending {
    /// Notes that a pull of `image` begins. Blocking.
    ///
    /// Not synced: the first layer's sync takes it along, or a long download's first.
    pub(crate) fn begin(self, inner: &Arc<Inner>, image: Digest) -> Result<PendingGuard, Error> {
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
        let mut found = Vec::new();
        for path in list(&inner.sub("pending"))? {
            match read(&path) {
                Some(note)
                    if named_digest(&path).is_some()
                        && !is_older(&path, inner.options.keep_partial) =>
                {
                    found.push(note);
                }
                _ => fs::remove_file(&path).map_err(|e| Error::io("removing", &path, e))?,
            }
        }
        Ok(found)
    }

    /// What pulls under way need; notes of all others are removed.
    pub(crate) fn forget_broken_off(inner: &Inner) -> Result<Vec<Self>, Error> {
        let running: Vec<Digest> = inner.state().pulls.keys().copied().collect();
        let mut kept = Vec::new();
        for path in list(&inner.sub("pending"))? {
            if named_digest(&path).is_some_and(|image| running.contains(&image)) {
                kept.extend(read(&path));
            } else {
                fs::remove_file(&path).map_err(|error| Error::io("removing", &path, error))?;
            }
        }
        Ok(kept)
    }
}
