//! Getting bytes onto the disk, and counting how often that costs a sync.
//!
//! A small document is written beside its old version, synced, renamed over it, and its directory synced:
//! after a power cut there is the old one or the new one. Every sync goes through here, so that a test can
//! hold an operation to its number of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A document with a first line that says what it is, and the BLAKE3 of the rest.
pub fn seal(what: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{what} {}\n", blake3::hash(body).to_hex());
    [head.as_bytes(), body].concat()
}

/// The body of a sealed document; nothing if a byte of it differs or it is something else.
pub fn unseal<'a>(what: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
    let hash = head.strip_prefix(what)?.strip_prefix(' ')?;
    (blake3::hash(body).to_hex().as_str() == hash).then_some(body)
}

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

    /// Replaces `directory/name` durably.
    pub(crate) fn replace(&self, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = directory.join(format!("{name}.new"));
        let written = self.write_new(&new, bytes);
        if let Err(error) = written {
            // A full disk must not be left fuller.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        fs::rename(&new, directory.join(name))?;
        self.sync_directory(directory)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        self.wrote(bytes.len() as u64);
        self.sync_file(&file)
    }
}
