//! Small durable documents: a device's whole memory is plain files.
//!
//! ```text
//!   save:  name.tmp ──write, fsync──> name ──rename──> name.prev
//!                                     name.tmp ──rename──> name ──> fsync(dir)
//! ```
//!
//! Invariants, held by the tests in `document/tests.rs`:
//!
//! * A document that [`Document::load`] gives is byte for byte one that was saved: the current one, or
//!   the previous one when the current is missing or damaged. Never anything else.
//! * When [`Document::save`] has returned, the document survives a power cut. When it has failed (disk
//!   full), the one before is untouched.
//! * Files are readable by their owner only: many hold keys.

mod atomic;
mod document;

pub use atomic::{remove_durably, write_atomic};
pub use document::{Document, Loaded, MAX_BYTES};

use std::path::PathBuf;

/// What was being done to which file when it failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum StoreError {
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("writing {}: the disk is full", path.display())]
    DiskFull { path: PathBuf, source: std::io::Error },
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("removing {}", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged ({reason}) and there is no previous generation", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("writing {} as JSON", path.display())]
    Encode { path: PathBuf, source: serde_json::Error },
    #[error("{} would have {bytes} bytes; the limit is {MAX_BYTES}", path.display())]
    TooLong { path: PathBuf, bytes: usize },
}

impl StoreError {
    /// Whether there was no room left on the disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. })
    }

    pub(crate) fn write(path: PathBuf, source: std::io::Error) -> StoreError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            StoreError::DiskFull { path, source }
        } else {
            StoreError::Write { path, source }
        }
    }
}
