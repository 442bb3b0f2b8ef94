//! Blobs: `GET`, `HEAD` and `DELETE /v2/<name>/blobs/<digest>`.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_blobs::Digest;

use crate::layout::blob_key;
use crate::path::Repository;
use crate::range::{Wanted, wanted};
use crate::{Registry, RegistryError};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Answers with the blob or a part of it. To a caller who may push, "it exists" is a
/// promise that it will still be there when the manifest follows.
pub(crate) async fn get(
    registry: &Registry,
    repo: &Repository,
    digest: &Digest,
    request: &Parts,
    pushing: bool,
) -> Result<Response, RegistryError> {
    let layout = registry.layout();
    let found = if pushing && request.method == Method::HEAD {
        layout.hold_layer(&layout.pushing().await, repo, digest).await?
    } else {
        layout.layer(repo, digest).await?
    };
    let size = found.ok_or_else(|| RegistryError::blob_unknown(digest))?.size;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    if request.method == Method::HEAD {
        return Ok((headers, length(size), Body::empty()).into_response());
    }
    let range = request.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, part) = match wanted(range, size) {
        Wanted::Whole => (StatusCode::OK, None),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, Some(part)),
        Wanted::Nothing => {
            let message = format!("the blob has {size} bytes");
            return Err(RegistryError::upload_out_of_order(message)
                .with_header(header::CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let reading = registry.layout().store.read(&blob_key(digest), part.clone()).await?;
    let reading = reading.ok_or_else(|| RegistryError::blob_unknown(digest))?;
    let length = length(reading.range.end - reading.range.start);
    let mut response = (status, headers, length, Body::from_stream(reading.bytes)).into_response();
    if let Some(part) = part {
        let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        let range = range.try_into().expect("digits and dashes make a header value");
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

/// Takes the blob out of this repository; its bytes go with the next collection.
pub(crate) async fn delete(
    registry: &Registry,
    repo: &Repository,
    digest: &Digest,
) -> Result<Response, RegistryError> {
    if registry.layout().unlink_layer(repo, digest).await? {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(RegistryError::blob_unknown(digest))
    }
}

fn length(bytes: u64) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_LENGTH, bytes.into())])
}
