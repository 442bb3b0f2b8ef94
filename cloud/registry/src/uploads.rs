//! Uploads: whole in one request, in chunks, resumed after a break, or mounted from another
//! repository without sending a byte.
//!
//! An upload's id is a 122-bit secret known only to who began it, so the session needs no
//! row of its own: whoever may push here and knows the id may go on with it.

use axum::extract::{Query, Request};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use minke_cloud_blobs::{BlobError, ByteStream, Digest, StageId};
use serde::Deserialize;

use crate::auth::Caller;
use crate::blobs::CONTENT_DIGEST;
use crate::path::Repository;
use crate::range::chunk;
use crate::{Registry, RegistryError};

#[derive(Deserialize)]
struct UploadQuery {
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
}

fn query(uri: &Uri) -> Result<UploadQuery, RegistryError> {
    let query = Query::<UploadQuery>::try_from_uri(uri);
    query.map(|query| query.0).map_err(|error| RegistryError::bad_query(error.to_string()))
}

fn body(request: Request) -> ByteStream<'static> {
    let stream = request.into_body().into_data_stream();
    stream.map(|chunk| chunk.map_err(std::io::Error::other)).boxed()
}

/// `POST …/blobs/uploads/`
pub(crate) async fn begin(
    registry: &Registry,
    caller: &Caller,
    repo: &Repository,
    request: Request,
) -> Result<Response, RegistryError> {
    let query = query(request.uri())?;
    if let Some(mount) = &query.mount
        && let Some(digest) = mount_from(registry, caller, repo, mount, &query).await?
    {
        return Ok(created(repo, &digest));
    }
    let store = &registry.layout().store;
    let owner = caller.owner_of_uploads(repo);
    let Some(digest) = query.digest else {
        let id = store.stage(owner).await?;
        return Ok(progress(StatusCode::ACCEPTED, repo, &id, 0));
    };
    let digest: Digest = digest.parse()?;
    let id = store.stage(owner).await?;
    let sent = store.append(&id, None, body(request), registry.limits().blob).await;
    let published = match sent {
        Ok(_) => registry.layout().publish_layer(repo, &id, &digest).await,
        Err(error) => Err(error),
    };
    if let Err(error) = published {
        store.discard(&id).await?;
        return Err(error.into());
    }
    Ok(created(repo, &digest))
}

/// Shows the blob here when it is where the caller may read it. Anything else is no error:
/// the client is told to upload.
async fn mount_from(
    registry: &Registry,
    caller: &Caller,
    repo: &Repository,
    mount: &str,
    query: &UploadQuery,
) -> Result<Option<Digest>, RegistryError> {
    let digest: Digest = mount.parse()?;
    let Some(from) = &query.from else { return Ok(None) };
    let Some(from) = registry.may_mount_from(caller, &from.parse()?) else { return Ok(None) };
    let layout = registry.layout();
    let held = layout.pushing().await;
    if layout.hold_layer(&held, &from, &digest).await?.is_none() {
        return Ok(None);
    }
    layout.link_layer(&held, repo, &digest).await?;
    Ok(Some(digest))
}

/// `GET …/blobs/uploads/<id>`
pub(crate) async fn status(
    registry: &Registry,
    repo: &Repository,
    id: &StageId,
) -> Result<Response, RegistryError> {
    let size = registry.layout().store.staged(id).await?;
    let size = size.ok_or_else(RegistryError::upload_unknown)?;
    Ok(progress(StatusCode::NO_CONTENT, repo, id, size))
}

/// `PATCH …/blobs/uploads/<id>`
pub(crate) async fn append(
    registry: &Registry,
    repo: &Repository,
    id: &StageId,
    request: Request,
) -> Result<Response, RegistryError> {
    let size = receive(registry, repo, id, request).await?;
    Ok(progress(StatusCode::ACCEPTED, repo, id, size))
}

/// `PUT …/blobs/uploads/<id>?digest=…`, with or without a last chunk.
pub(crate) async fn finish(
    registry: &Registry,
    repo: &Repository,
    id: &StageId,
    request: Request,
) -> Result<Response, RegistryError> {
    let digest = query(request.uri())?.digest;
    let digest = digest.ok_or_else(|| RegistryError::digest_invalid("the digest is missing"))?;
    let digest: Digest = digest.parse()?;
    receive(registry, repo, id, request).await?;
    match registry.layout().publish_layer(repo, id, &digest).await {
        Ok(()) => Ok(created(repo, &digest)),
        Err(error) => {
            if matches!(error, BlobError::Digest { .. }) {
                registry.layout().store.discard(id).await?;
            }
            Err(error.into())
        }
    }
}

/// `DELETE …/blobs/uploads/<id>`
pub(crate) async fn cancel(registry: &Registry, id: &StageId) -> Result<Response, RegistryError> {
    if registry.layout().store.discard(id).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(RegistryError::upload_unknown())
    }
}

/// Appends the body; a chunk that does not continue the upload is told where to continue.
async fn receive(
    registry: &Registry,
    repo: &Repository,
    id: &StageId,
    request: Request,
) -> Result<u64, RegistryError> {
    let header = request.headers().get(header::CONTENT_RANGE);
    let range = header.map(|value| value.to_str().ok().and_then(chunk));
    let at = match range {
        None => None,
        Some(Some((first, _))) => Some(first),
        Some(None) => return Err(RegistryError::upload_invalid("Content-Range is unreadable")),
    };
    let store = &registry.layout().store;
    match store.append(id, at, body(request), registry.limits().blob).await {
        Err(BlobError::Offset { have, .. }) => {
            let message = format!("the upload goes on at byte {have}");
            Err(RegistryError::upload_out_of_order(message)
                .with_header(header::RANGE, &received(have))
                .with_header(header::LOCATION, &location(repo, id)))
        }
        result => Ok(result?),
    }
}

fn location(repo: &Repository, id: &StageId) -> String {
    format!("/v2/{repo}/blobs/uploads/{id}")
}

/// The specification has no way to say "nothing yet"; `0-0` is what everybody sends.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, repo: &Repository, id: &StageId, size: u64) -> Response {
    let headers = [
        ("location", location(repo, id)),
        ("range", received(size)),
        ("docker-upload-uuid", id.to_string()),
    ];
    (status, headers).into_response()
}

fn created(repo: &Repository, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repo}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    (StatusCode::CREATED, headers).into_response()
}
