//! What can go wrong with a store, in words for the person who reads the log.

use std::io;

use crate::{Digest, Key, StageId};

/// The result of a call on a store.
pub type Result<T, E = BlobError> = std::result::Result<T, E>;

/// Why a call on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No space or quota is left; nothing was changed.
    #[error("the disk is full: cannot {doing} {what}")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// To which object or upload.
        what: String,
        /// The system's own error.
        #[source]
        cause: io::Error,
    },
    /// The disk failed in some other way.
    #[error("cannot {doing} {what}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which object or upload.
        what: String,
        /// The system's own error.
        #[source]
        cause: io::Error,
    },
    /// The bytes to be stored stopped coming.
    #[error("the upload {0} was cut off by its sender")]
    Source(StageId, #[source] io::Error),
    /// There is no such upload (any more).
    #[error("there is no upload {0}")]
    NoStage(StageId),
    /// Another request is appending to, or publishing, the same upload.
    #[error("the upload {0} is in use by another request")]
    Busy(StageId),
    /// The chunk does not begin where the upload ends.
    #[error("the upload {stage} has {have} bytes; the chunk begins at {at}")]
    Offset {
        /// The upload.
        stage: StageId,
        /// Bytes it has.
        have: u64,
        /// Where the chunk wants to begin.
        at: u64,
    },
    /// What was uploaded is not what was announced.
    #[error("expected {expected}, but the bytes received are {actual}")]
    Digest {
        /// The digest that the sender named.
        expected: Digest,
        /// The digest of what is stored.
        actual: Digest,
    },
    /// More bytes than allowed.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which object or upload.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// More uploads are open than the store allows.
    #[error("{0} uploads are open already, which is the limit")]
    TooManyStages(usize),
    /// More uploads of one owner are open than the store allows.
    #[error("{limit} uploads of {owner} are open already, which is the limit: end or cancel one")]
    TooManyOfOwner {
        /// Whose.
        owner: String,
        /// How many may be open.
        limit: usize,
    },
    /// The range begins behind the object's end.
    #[error("{key} has {size} bytes; the range begins at {start}")]
    Range {
        /// The object.
        key: Key,
        /// Its length in bytes.
        size: u64,
        /// The first byte asked for.
        start: u64,
    },
}

impl BlobError {
    pub(crate) fn io(doing: &'static str, what: impl ToString, cause: io::Error) -> Self {
        let what = what.to_string();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { doing, what, cause }
            }
            _ => Self::Io { doing, what, cause },
        }
    }
}
