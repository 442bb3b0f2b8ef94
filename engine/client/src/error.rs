//! Why a call failed.

#![allow(missing_docs, reason = "the fields say what the message says")]

use std::path::PathBuf;

/// Why a call failed: nobody there, refused, or not understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No engine answers at the socket.
    #[error("the engine at {} cannot be reached", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection broke during {call}")]
    Broken {
        call: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine answered with an error.
    #[error("the engine refused {call}: {message}")]
    Refused { call: String, status: u16, message: String },
    /// The answer is not what the API describes.
    #[error("the engine's answer to {call} cannot be read")]
    Unreadable {
        call: String,
        #[source]
        source: serde_json::Error,
    },
    /// The answer is larger than this client takes.
    #[error("the engine's answer to {call} is larger than {limit} bytes")]
    TooLarge { call: String, limit: usize },
}

impl Error {
    /// Whether the thing named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the thing's state stands against the call (a name taken, a container running).
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Whether the engine itself is not there, so that trying again later makes sense.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Broken { .. })
    }

    /// The HTTP status, where the engine answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}
