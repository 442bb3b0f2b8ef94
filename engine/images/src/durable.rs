//! Getting bytes onto the disk, and counting how often that costs a sync.
//!
//! Every sync goes through here, so that a test can hold an operation to its number of them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use minke_engine_documents::Sync;

/// What a store has asked of the disk so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fsyncs: AtomicU64,
    syncfs: AtomicU64,
    bytes: AtomicU64,
}

/// A reading of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Writes {
    /// Syncs of one file or directory.
    pub fsyncs: u64,
    /// Syncs of the whole file system.
    pub syncfs: u64,
    /// Bytes of documents, manifests, layer contents and compressed blobs written.
    pub bytes: u64,
}

impl Ledger {
    pub(crate) fn reading(&self) -> Writes {
        Writes {
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            syncfs: self.syncfs.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        File::open(path)?.sync_all()
    }

    /// What a file holds, and that it is there under a new name.
    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        file.sync_all()
    }

    /// Everything on the file system of `path`, and on no other.
    pub(crate) fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        self.syncfs.fetch_add(1, Ordering::Relaxed);
        rustix::fs::syncfs(File::open(path)?)?;
        Ok(())
    }

    /// Replaces the file at `path` durably.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.wrote(bytes.len() as u64);
        // The file and its directory.
        self.fsyncs.fetch_add(2, Ordering::Relaxed);
        minke_engine_documents::replace(path, bytes, Sync::New)
    }
}
