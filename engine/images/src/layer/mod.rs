//! One layer on disk: a directory with a manifest and a view.
//!
//! ```text
//! <layer>/manifest   every byte of the tar that is not file contents, and size + BLAKE3 of each file
//! <layer>/fs/        the view: an overlay lower directory, whiteouts as overlayfs wants them
//! <layer>/extra/     contents that a later entry of the same tar replaced (rare)
//! ```
//!
//! [`unpack`] makes both from a tar stream, [`Rebuilt`] gives the tar back, [`check`] compares view and
//! manifest down to modes and times, [`pack`] writes a container's upper directory as a tar.
//!
//! The view is derived: whatever damages it can be found, and nothing but the manifest says what belongs
//! there.

mod beneath;
mod check;
mod entry;
mod header;
mod kept;
mod large;
mod manifest;
mod names;
mod pack;
mod pax;
mod rebuild;
mod stamp;
mod stream;
mod style;
mod unpack;

use std::io;
use std::path::PathBuf;

pub(crate) use beneath::open_file;
pub use check::{check, check_gently};
pub use entry::{Attribute, Entry, Kind, Mtime, Sparse, TarReader};
pub use header::{Item, attributes};
pub use large::Large;
pub use manifest::{Change, Changed, Footer, Manifest, ManifestWriter, Record};
pub use pack::{Packed, pack, pack_without};
pub use rebuild::Rebuilt;
pub use stamp::stamp;
pub use stream::Stream;
pub use style::{may_set, timestamps};
pub use unpack::{Unpacked, unpack};

/// Name of the manifest inside a layer's directory.
pub const MANIFEST: &str = "manifest";
/// Name of the view inside a layer's directory.
pub const VIEW: &str = "fs";
/// Name of the replaced contents inside a layer's directory.
pub const EXTRA: &str = "extra";

/// Why a layer cannot be unpacked, packed, rebuilt or trusted.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The compressed or plain stream could not be read.
    #[error("reading the layer's stream")]
    Read(#[source] io::Error),
    /// The stream ended inside an entry.
    #[error("the tar ends in the middle of an entry")]
    Truncated,
    /// A header whose checksum is wrong or whose numbers cannot be read.
    #[error("the tar has a broken header at byte {offset}: {why}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// An entry type that no image uses.
    #[error("{path} has the unsupported tar type `{kind}`")]
    Type {
        /// The entry.
        path: String,
        /// The type byte.
        kind: char,
    },
    /// A limit of [`Limits`](crate::Limits).
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A name that leads outside.
    #[error("{0} leads outside of the layer")]
    Escape(String),
    /// A hard link whose target is not in the layer, or is a directory.
    #[error("{path} is a hard link to {target}, which is no file of this layer")]
    LinkTarget {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A parent that is a file, a dangling link or a loop.
    #[error("{0} lies under something that is no directory")]
    Parent(String),
    /// An owner that does not fit the system's numbers.
    #[error("{0} has an owner or group over 4294967294")]
    Owner(String),
    /// Something on the disk.
    #[error("{doing} {}", .path.display())]
    Io {
        /// `writing`, `creating`, …
        doing: &'static str,
        /// The path, inside the layer where possible.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A manifest that cannot be read.
    #[error("the layer's manifest is damaged: {0}")]
    Manifest(&'static str),
    /// A manifest of a version this program does not know.
    #[error("the layer's manifest has version {0}, which this program does not know")]
    ManifestVersion(u8),
    /// The view differs from the manifest.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Path inside the view.
        path: String,
        /// What differs.
        why: &'static str,
    },
    /// The rebuilt tar has another digest.
    #[error("the layer's tar has digest {found}")]
    Digest {
        /// What came out.
        found: minke_common_model::digest::Digest,
    },
    /// An upper directory with an overlayfs feature that a tar cannot express.
    #[error(
        "{0} was renamed or metadata-copied by overlayfs; mount with redirect_dir=off,metacopy=off"
    )]
    Overlay(String),
}

impl LayerError {
    fn io(doing: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: names::to_path(path).to_owned(), source: source.into() }
    }

    fn damaged(path: &[u8], why: &'static str) -> Self {
        Self::Damaged { path: names::show(path), why }
    }
}
