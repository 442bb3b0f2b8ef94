//! What can go wrong with images, and what a caller may do about it.
//!
//! A variant says what was being done to what; the cause is the error's source.

use std::io;
use std::path::PathBuf;

use minke_common_model::digest::Digest;

use crate::ids::{DiffId, ImageId};
use crate::layer::LayerError;
use crate::registry::RegistryError;

/// A failed operation on the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name, id or id prefix.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// An id prefix that fits more than one image.
    #[error("the id prefix {0} fits more than one image")]
    Ambiguous(String),
    /// The name given is not an image reference.
    #[error("invalid reference format")]
    Reference(#[from] minke_common_model::image_reference::ImageReferenceError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The image is used and must not go. The text is Docker's.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A layer that an image or a build needs is not in the store, or is damaged.
    #[error("layer {0} is missing or damaged; pull its image again")]
    MissingLayer(DiffId),
    /// The image's configuration does not hold together.
    #[error("configuration of image {id}: {why}")]
    Config {
        /// The image.
        id: Digest,
        /// What is wrong.
        why: String,
    },
    /// The configuration lists other layers than the manifest.
    #[error("layers from manifest don't match image configuration: {manifest} and {config} layers")]
    LayerCount {
        /// Layers in the manifest.
        manifest: usize,
        /// DiffIDs in the configuration.
        config: usize,
    },
    /// The image is not for the platform that was asked for.
    #[error("no matching manifest for {wanted} in the manifest list entries (it has {offered})")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What the index or image offers.
        offered: String,
    },
    /// Talking to a registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer could not be unpacked, packed or read.
    #[error("layer {layer}")]
    Layer {
        /// The layer's digest: compressed in a pull, else the DiffID.
        layer: Digest,
        /// What went wrong.
        #[source]
        source: Box<LayerError>,
    },
    /// A tar that is not yet known by a digest.
    #[error("unpacking")]
    Unpack(#[source] Box<LayerError>),
    /// A layer that is being made from a directory.
    #[error("packing {}", .path.display())]
    Pack {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<LayerError>,
    },
    /// An archive given to load is not one, or breaks a limit.
    #[error("loading an image archive: {0}")]
    Archive(String),
    /// Another process has the store open.
    #[error("the image store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store was written by a newer version.
    #[error("the image store {} has version {found}; this program knows {known}", .path.display())]
    Version {
        /// The store.
        path: PathBuf,
        /// What its version file says.
        found: String,
        /// The version this program writes.
        known: u32,
    },
    /// A file of the store.
    #[error("{doing} {}", .path.display())]
    Io {
        /// `writing`, `opening`, …
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A pull that cannot fit on the disk, found before anything is fetched.
    #[error(
        "not enough space for {name}: it needs at least {needed} in {}, where {free} are free",
        .path.display()
    )]
    NoRoom {
        /// The image.
        name: String,
        /// The store.
        path: PathBuf,
        /// The least that it takes, for people.
        needed: String,
        /// What is free, for people.
        free: String,
    },
    /// The image has been removed while it was being used.
    #[error("image {0} was removed meanwhile")]
    Gone(ImageId),
    /// The operation was given up by its caller.
    #[error("the operation was cancelled")]
    Cancelled,
}

/// What kind of failure it is: what decides an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 400.
    Invalid,
    /// 401 or 403 from the registry.
    Denied,
    /// The registry cannot be reached or keeps failing.
    Unavailable,
    /// The disk is full.
    NoSpace,
    /// Anything else: 500.
    System,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        if self.is_no_space() {
            return ErrorKind::NoSpace;
        }
        match self {
            Self::NoSuchImage(_) | Self::Platform { .. } | Self::Gone(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Ambiguous(_) | Self::Reference(_) | Self::Archive(_) | Self::Invalid(_) => {
                ErrorKind::Invalid
            }
            Self::Registry(error) => error.kind(),
            _ => ErrorKind::System,
        }
    }

    /// Whether the disk (or quota) was full at the bottom of it.
    pub fn is_no_space(&self) -> bool {
        if matches!(self, Self::NoRoom { .. }) {
            return true;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && is_full(error)
            {
                return true;
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error and all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
