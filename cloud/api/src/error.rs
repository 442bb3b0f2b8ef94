//! What an endpoint answers when it cannot do what was asked: a status and a JSON string.
//!
//! A cause that is the server's own (5xx) is logged whole and never sent.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: the request does not say what it must.
    #[error("{0}")]
    BadRequest(String),
    /// 401: no credential, one that does not hold, or one that may not do this.
    #[error("{0}")]
    Unauthorized(String),
    /// 403: understood, and never allowed.
    #[error("{0}")]
    Forbidden(String),
    /// 404: no such endpoint or resource.
    #[error("{0}")]
    NotFound(String),
    /// 409: something else has the uuid, the slug or the natural key.
    #[error("{0}")]
    Conflict(String),
    /// 413: more than the limit, which the text says.
    #[error("{0}")]
    TooLarge(String),
    /// 415: a body in a form that is not read.
    #[error("{0}")]
    UnsupportedMedia(String),
    /// 429: too often.
    #[error("{what}: too many requests; try again in {retry_after} s")]
    TooMany {
        /// What was asked for too often.
        what: &'static str,
        /// Seconds.
        retry_after: u64,
    },
    /// 502: a device did not answer as it should.
    #[error("{0}")]
    BadGateway(String),
    /// 503: not now.
    #[error("{0}")]
    Unavailable(String),
    /// 500: the server's own fault.
    #[error("the server failed while {doing}")]
    Internal {
        /// What it was doing.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ApiError {
    /// 401 with the usual text.
    pub fn unauthorized() -> ApiError {
        ApiError::Unauthorized("Unauthorized".to_owned())
    }

    /// 400 with a text.
    pub fn bad(text: impl Into<String>) -> ApiError {
        ApiError::BadRequest(text.into())
    }

    /// 500 with its cause.
    pub fn internal(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ApiError {
        ApiError::Internal { doing, source: source.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::BadGateway(_) => StatusCode::BAD_GATEWAY,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The error and everything behind it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Both engines say it only in words: SQLite "database or disk is full", PostgreSQL the system's own.
fn is_full(error: &dyn std::error::Error) -> bool {
    let text = chain(error);
    ["disk is full", "No space left"].iter().any(|words| text.contains(words))
}

impl From<minke_cloud_db::Error> for ApiError {
    fn from(error: minke_cloud_db::Error) -> ApiError {
        let text = error.to_string();
        match error.status() {
            400 => ApiError::BadRequest(text),
            401 => ApiError::Unauthorized(text),
            403 => ApiError::Forbidden(text),
            409 => ApiError::Conflict(text),
            503 => ApiError::Unavailable(text),
            _ if is_full(&error) => {
                tracing::error!("{}", chain(&error));
                let text = "the server's disk is full: nothing was written";
                ApiError::Unavailable(text.to_owned())
            }
            _ => ApiError::internal("using the database", error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!("{}", chain(&self));
        }
        let mut response = (status, axum::Json(self.to_string())).into_response();
        if let ApiError::TooMany { retry_after, .. } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        response
    }
}
