//! Bytes by key, for the server: image layers, manifests, whatever must survive.
//!
//! ```text
//!   stage ──> append … append ──> publish(key, digest) ──> read(key, range)
//!                 (resumable)          (verified, atomic)
//! ```
//!
//! Invariants:
//!
//! * A key shows either nothing or one whole object; a crash never shows a part of one.
//! * What `put`, `publish`, `delete` and `delete_all` acknowledged is on the disk.
//! * `publish` hashes what is stored, so a wrong digest or a bit lost on the way is refused.
//! * A full disk is [`BlobError::Full`]; what was stored before is untouched.
//! * Memory is bounded by the chunk size, never by the size of an object.

mod directory;
mod error;
mod files;
mod key;
mod staging;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use directory::{DirBlobs, DirOptions};
pub use error::{BlobError, Result};
pub use key::{Key, KeyError};
pub use minke_common_model::digest::{Digest, DigestError};
pub use staging::{StageId, StageIdError};

/// A store that several parts of the server share.
pub type Store = Arc<dyn Blobs>;

/// A stream of bytes, in chunks of at most a few hundred kilobytes.
pub type ByteStream<'a> = BoxStream<'a, std::io::Result<Bytes>>;

/// What is known of a stored object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length in bytes.
    pub size: u64,
    /// When the object was published, or last [touched](Blobs::touch).
    pub modified: SystemTime,
}

/// An object being read.
pub struct Reading {
    /// What the whole object is, whatever part is read.
    pub meta: Meta,
    /// The part that is read; always inside `0..meta.size`.
    pub range: Range<u64>,
    /// The bytes of `range`.
    pub bytes: ByteStream<'static>,
}

/// One name directly below a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// The last part of the key.
    pub name: String,
    /// Whether more keys lie below it (then it is no object itself).
    pub is_prefix: bool,
}

/// The store as its users see it. A directory today ([`DirBlobs`]).
pub trait Blobs: Send + Sync + 'static {
    /// What is stored under `key`; `None` when nothing is.
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Meta>>>;

    /// Opens `key` for reading, whole or a part (cut to the object's end).
    /// `None` when nothing is stored there.
    fn read<'a>(
        &'a self,
        key: &'a Key,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<Option<Reading>>>;

    /// Reads a small object whole; more than `limit` bytes is [`BlobError::TooLarge`].
    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Stores a small object, replacing what was there in one step.
    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Sets the object's `modified` to now; false when nothing is stored there.
    fn touch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>>;

    /// Removes an object; false when nothing was there.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>>;

    /// Removes every object below `prefix`, all of them out of sight in one step.
    fn delete_all<'a>(&'a self, prefix: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// The names directly below `prefix` that sort after `after`, in order, at most `limit`.
    fn children<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Child>>>;

    /// Begins an upload of `owner` that can be resumed, also by the next process. An owner may have
    /// so many open, so that nobody can use up what is for all.
    fn stage<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<StageId>>;

    /// Bytes received so far; `None` when there is no such upload.
    fn staged<'a>(&'a self, id: &'a StageId) -> BoxFuture<'a, Result<Option<u64>>>;

    /// Appends `bytes` at offset `at` (at the end when `None`) and answers the new length.
    ///
    /// When the source fails, what came before is kept and the upload can go on. When the
    /// store fails, or the upload would pass `limit` bytes, it is cut back to where it was.
    fn append<'a>(
        &'a self,
        id: &'a StageId,
        at: Option<u64>,
        bytes: ByteStream<'a>,
        limit: u64,
    ) -> BoxFuture<'a, Result<u64>>;

    /// Ends an upload: its SHA-256 must be `digest`; then it is visible as `key`.
    /// Answers its length. After [`BlobError::Digest`] the upload is still there.
    fn publish<'a>(
        &'a self,
        id: &'a StageId,
        key: &'a Key,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<u64>>;

    /// Drops an upload; false when there was none.
    fn discard<'a>(&'a self, id: &'a StageId) -> BoxFuture<'a, Result<bool>>;

    /// Drops uploads that nobody touched since `before`; answers how many.
    fn discard_stale(&self, before: SystemTime) -> BoxFuture<'_, Result<usize>>;
}
