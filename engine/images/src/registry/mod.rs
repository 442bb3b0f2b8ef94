//! Talking to registries: the OCI distribution protocol from the client's side.
//!
//! A [`Session`] is one repository on one endpoint. It owns authentication and every retry; what it gives
//! out was bounded and, where a digest was known, checked by it or is checked by whoever reads the stream.

mod auth;
mod documents;
mod download;
mod endpoint;
mod session;
mod upload;

use std::io;

use minke_common_model::digest::Digest;

use crate::error::ErrorKind;

pub(crate) use documents::Document;
pub use documents::{Descriptor, Index, IndexEntry, ManifestDocument, media};
pub use endpoint::{Clients, Endpoint, endpoints};
pub(crate) use session::Fetched;
pub use session::{Access, Session};
pub use upload::{Mounted, UploadSource};

/// The largest manifest, index or configuration accepted, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Why a registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The HTTP client cannot be made: no certificates, for one.
    #[error("preparing TLS")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke.
    #[error("{what} {url}")]
    Transport {
        /// `asking`, `reading from`, …
        what: &'static str,
        /// Without query and user.
        url: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for too long.
    #[error("{url} gave nothing for {seconds} s")]
    Stalled {
        /// Who.
        url: String,
        /// The limit.
        seconds: u64,
    },
    /// 404.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the registry said.
        detail: String,
    },
    /// 401 or 403, with the credentials there were.
    #[error("{what}: access denied: {detail}")]
    Denied {
        /// What was asked for.
        what: String,
        /// What the registry said.
        detail: String,
    },
    /// A challenge that cannot be answered.
    #[error("the registry asks for an unknown kind of authentication: {0}")]
    Challenge(String),
    /// Another status, also after all tries.
    #[error("{what}: the registry answered {status}: {detail}")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        detail: String,
    },
    /// An answer longer than announced or allowed.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What came.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not those of the digest.
    #[error("{what}: the bytes have digest {found}, not {expected}")]
    Digest {
        /// What came.
        what: String,
        /// What they should be.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// A document that is not what it should be.
    #[error("{what} cannot be understood: {why}")]
    Document {
        /// Which.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Reading what is to be sent.
    #[error("reading a layer to send it")]
    Source(#[source] io::Error),
    /// Every place was tried.
    #[error("{}", join(.0))]
    Nowhere(Vec<(String, RegistryError)>),
}

fn join(tried: &[(String, RegistryError)]) -> String {
    let lines: Vec<_> = tried
        .iter()
        .map(|(place, error)| format!("{place}: {}", crate::error::chain(error)))
        .collect();
    lines.join("; ")
}

impl RegistryError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Denied { .. } | Self::Challenge(_) => ErrorKind::Denied,
            Self::Client(_)
            | Self::Transport { .. }
            | Self::Stalled { .. }
            | Self::Status { .. } => ErrorKind::Unavailable,
            Self::Nowhere(tried) => {
                tried.last().map_or(ErrorKind::Unavailable, |(_, error)| error.kind())
            }
            Self::TooLong { .. }
            | Self::Digest { .. }
            | Self::Document { .. }
            | Self::Source(_) => ErrorKind::System,
        }
    }
}
