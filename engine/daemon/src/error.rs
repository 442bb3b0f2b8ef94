//! What a call to the engine can fail with, and the HTTP status that says it.

use std::io;
use std::path::PathBuf;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minke_engine_images::ErrorKind;
use minke_engine_network::NetworkError;
use minke_engine_runtime::spec::SpecError;
use minke_engine_shim::protocol::Failure;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The texts of the plain variants are whole sentences for people, in Docker's
/// words where clients are known to look at them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Forbidden(String),
    /// A registry does not know who asks.
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    NotImplemented(String),
    /// What is asked for belongs to a mode that this engine is never in.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing was done because there was nothing to do.
    #[error("not modified")]
    NotModified,
    #[error("{0}")]
    Images(#[from] minke_engine_images::Error),
    #[error("{0}")]
    Network(#[from] NetworkError),
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// A process could not be started in a container.
    #[error("{message}")]
    Start { failure: Failure, message: String },
    #[error("{doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{doing}")]
    System {
        doing: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { doing, path, source }
    }

    pub(crate) fn system<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Error::System { doing, source: source.into() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Error::Invalid(_) | Error::Spec(_) => StatusCode::BAD_REQUEST,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Error::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::NotModified => StatusCode::NOT_MODIFIED,
            Error::Images(error) => match error.kind() {
                ErrorKind::NotFound => StatusCode::NOT_FOUND,
                ErrorKind::Conflict => StatusCode::CONFLICT,
                ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                ErrorKind::Denied => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Error::Network(error) => network_status(error),
            Error::Start { failure: Failure::NotFound | Failure::NotExecutable, .. } => {
                StatusCode::BAD_REQUEST
            }
            Error::Start { .. } | Error::File { .. } | Error::System { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// The error and its causes in one line.
    pub(crate) fn message(&self) -> String {
        match self {
            Error::Images(error) => minke_engine_images::chain(error),
            other => chain(other),
        }
    }
}

/// An error and its causes, `outer: cause: cause`; a cause that the outer text already ends with is
/// not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

fn network_status(error: &NetworkError) -> StatusCode {
    match error {
        NetworkError::NotFound(_) => StatusCode::NOT_FOUND,
        NetworkError::NameInUse(_) => StatusCode::CONFLICT,
        NetworkError::InUse { .. }
        | NetworkError::AlreadyAttached { .. }
        | NetworkError::NotAttached { .. }
        | NetworkError::BridgeInUse { .. }
        | NetworkError::SubnetInUse { .. } => StatusCode::FORBIDDEN,
        NetworkError::Ambiguous { .. }
        | NetworkError::AddressOutside { .. }
        | NetworkError::NoBridge(_)
        | NetworkError::Invalid { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        let body = minke_engine_client::wire::ErrorBody { message: self.message() };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(%status, message = body.message, "a call failed");
        }
        (status, crate::api::reply::json(&body)).into_response()
    }
}
