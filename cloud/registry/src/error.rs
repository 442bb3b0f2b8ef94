//! Errors as the distribution specification prints them: `{"errors":[{code,message,detail}]}`.

use std::error::Error as _;
use std::fmt::Write as _;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_blobs::{BlobError, Digest};
use serde::Serialize;

use crate::path::Repository;

/// The error codes of the specification that this registry uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each is named as in the specification")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    Unauthorized,
    Unknown,
    Unsupported,
}

/// A refused request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl RegistryError {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// The code that the answer carries.
    pub fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::Unsupported, "there is nothing at this path")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "this method is not supported here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
    }

    pub(crate) fn name_invalid(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::NameInvalid, message)
    }

    pub(crate) fn name_unknown(name: &Repository) -> Self {
        let message = format!("there is no repository {name}");
        Self::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
    }

    pub(crate) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, message)
    }

    pub(crate) fn blob_unknown(digest: &Digest) -> Self {
        let message = format!("this repository has no blob {digest}");
        Self::new(StatusCode::NOT_FOUND, Code::BlobUnknown, message)
    }

    pub(crate) fn manifest_unknown(what: impl std::fmt::Display) -> Self {
        let message = format!("no such manifest: {what}");
        Self::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message)
    }

    pub(crate) fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message)
    }

    pub(crate) fn manifest_blob_unknown(digest: &Digest) -> Self {
        let message = format!("the manifest names {digest}, which this repository does not have");
        Self::new(StatusCode::NOT_FOUND, Code::ManifestBlobUnknown, message)
    }

    pub(crate) fn manifest_too_large(limit: usize) -> Self {
        let message = format!("a manifest may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
    }

    pub(crate) fn upload_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, "there is no such upload")
    }

    pub(crate) fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, message)
    }

    pub(crate) fn upload_out_of_order(message: String) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
    }

    pub(crate) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Unsupported, message)
    }

    pub(crate) fn unauthorized(challenge: &str) -> Self {
        let message = "this needs a token that allows it";
        Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }
}

/// The error and its causes on one line, for the log.
fn chain(error: &BlobError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

impl From<BlobError> for RegistryError {
    fn from(error: BlobError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            BlobError::NoStage(_) => return Self::upload_unknown(),
            BlobError::Source(..) => (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid),
            BlobError::Busy(_) => (StatusCode::CONFLICT, Code::BlobUploadInvalid),
            BlobError::Offset { .. } => return Self::upload_out_of_order(message),
            BlobError::Digest { .. } => return Self::digest_invalid(message),
            BlobError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
            BlobError::TooManyStages(_) | BlobError::TooManyOfOwner { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests)
            }
            BlobError::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid),
            BlobError::Full { .. } => {
                tracing::error!(error = chain(&error), "the registry's disk is full");
                let message = "the registry's disk is full; nothing was stored";
                return Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unknown, message);
            }
            BlobError::Io { .. } => {
                tracing::error!(error = chain(&error), "the registry's storage failed");
                let message = "the registry's storage failed";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, message);
            }
        };
        Self::new(status, code, message)
    }
}

#[derive(Serialize)]
struct Body {
    errors: [Entry; 1],
}

#[derive(Serialize)]
struct Entry {
    code: Code,
    message: String,
    detail: Option<()>,
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let entry = Entry { code: self.code, message: self.message, detail: None };
        let mut response = (self.status, Json(Body { errors: [entry] })).into_response();
        for (name, value) in self.headers {
            // Names, digests, numbers and our own realm: a value that is none is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
