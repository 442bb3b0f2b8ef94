//! An image as the store shows it.

use std::sync::Arc;

use minke_common_model::image_reference::ImageReference;

use crate::config::ImageConfig;
use crate::ids::{DiffId, ImageId};

/// A whole, verified image.
#[derive(Debug, Clone)]
pub struct Image {
    /// SHA-256 of its configuration.
    pub id: ImageId,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// The image it was built on, if that was built here.
    pub parent: Option<ImageId>,
    /// Its names, sorted: `RepoTags`.
    pub tags: Vec<ImageReference>,
    /// Where it was pulled from or pushed to, sorted: `RepoDigests`.
    pub digests: Vec<ImageReference>,
    /// Unpacked bytes of its layers.
    pub size: u64,
    /// When it was last given a name, milliseconds since the epoch; 0 if never.
    pub last_tagged: u64,
}

impl Image {
    /// Its layers, lowest first.
    pub fn layers(&self) -> &[DiffId] {
        &self.config.rootfs.diff_ids
    }

    /// RFC 3339 time of making, as its maker wrote it.
    pub fn created(&self) -> Option<&str> {
        self.config.created.as_deref()
    }

    /// Whether it has neither name nor digest.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }
}
