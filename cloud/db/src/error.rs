//! What can go wrong, by what the caller of the API should be told.

use std::time::Duration;

use thiserror::Error;

/// A failed operation. Reads never say "not found": rows that are not there are not in the answer.
#[derive(Debug, Error)]
pub enum Error {
    /// 400: the request is not one of this model, or breaks a rule.
    #[error("{0}")]
    Validation(String),
    /// 401: no permission for this write.
    #[error("{0} is not allowed to you")]
    Denied(String),
    /// 403: known, and never allowed.
    #[error("{0}")]
    Forbidden(String),
    /// 409: another row has this key.
    #[error("{resource}: {} must be unique", .key.join(", "))]
    Conflict {
        /// The resource of the rows.
        resource: String,
        /// The fields that together are taken.
        key: Vec<String>,
    },
    /// 503: the statement was stopped.
    #[error("{action} took longer than {} ms, the limit: ask for less at once", .limit.as_millis())]
    TooSlow {
        /// What was being done.
        action: &'static str,
        /// How long it might take.
        limit: Duration,
    },
    /// 500: the storage failed.
    #[error("{action}")]
    Storage {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// 500: the stored data or the model is not as this program wants it.
    #[error("{0}")]
    Corrupt(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn storage(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Storage { action, source }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Validation(message.into())
    }

    /// The HTTP status that says this.
    pub fn status(&self) -> u16 {
        match self {
            Self::Validation(_) => 400,
            Self::Denied(_) => 401,
            Self::Forbidden(_) => 403,
            Self::Conflict { .. } => 409,
            Self::TooSlow { .. } => 503,
            Self::Storage { .. } | Self::Corrupt(_) => 500,
        }
    }
}
