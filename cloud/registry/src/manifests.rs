//! Manifests: `GET`, `HEAD`, `PUT` and `DELETE /v2/<name>/manifests/<tag or digest>`.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use minke_cloud_blobs::Digest;

use crate::blobs::CONTENT_DIGEST;
use crate::layout::{Pushing, blob_key, tags_key};
use crate::manifest::Manifest;
use crate::path::{Reference, Repository};
use crate::{Registry, RegistryError};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

pub(crate) async fn get(
    registry: &Registry,
    repo: &Repository,
    reference: &Reference,
    method: &Method,
) -> Result<Response, RegistryError> {
    let digest = resolve(registry, repo, reference).await?;
    let unknown = || RegistryError::manifest_unknown(digest);
    let layout = registry.layout();
    let media_type = layout.manifest_type(repo, &digest).await?.ok_or_else(unknown)?;
    let limit = registry.limits().manifest as u64;
    let bytes = layout.store.get(&blob_key(&digest), limit).await?.ok_or_else(unknown)?;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let length = HeaderMap::from_iter([(header::CONTENT_LENGTH, bytes.len().into())]);
    let is_head = *method == Method::HEAD;
    let body = if is_head { Body::empty() } else { Body::from(bytes) };
    Ok((headers, length, body).into_response())
}

async fn resolve(
    registry: &Registry,
    repo: &Repository,
    reference: &Reference,
) -> Result<Digest, RegistryError> {
    match reference {
        Reference::Digest(digest) => Ok(*digest),
        Reference::Tag(tag) => {
            let tagged = registry.layout().tagged(repo, tag).await?;
            tagged.ok_or_else(|| RegistryError::manifest_unknown(tag.as_str()))
        }
    }
}

pub(crate) async fn put(
    registry: &Registry,
    repo: &Repository,
    reference: &Reference,
    request: Request,
) -> Result<Response, RegistryError> {
    let limits = registry.limits();
    let header = request.headers().get(header::CONTENT_TYPE);
    let content_type = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let bytes = read_whole(request, limits.manifest).await?;
    let digest = Digest::of(&bytes);
    if let Reference::Digest(expected) = reference
        && *expected != digest
    {
        let message = format!("the manifest is {digest}, not {expected}");
        return Err(RegistryError::digest_invalid(message));
    }
    let manifest = Manifest::parse(&bytes, content_type.as_deref(), limits.descriptors)
        .map_err(|error| RegistryError::manifest_invalid(error.to_string()))?;

    let layout = registry.layout();
    let held = layout.pushing().await;
    require_contents(registry, &held, repo, &manifest).await?;
    layout.put_manifest(&held, repo, &digest, manifest.media_type, bytes.clone()).await?;
    if let Some(subject) = &manifest.subject {
        let descriptor = manifest.referrer(&digest, bytes.len());
        let descriptor = serde_json::to_vec(&descriptor).expect("a descriptor is plain JSON");
        let pair = (subject, &digest);
        layout.put_referrer(&held, repo, pair, Bytes::from(descriptor)).await?;
    }
    if let Reference::Tag(tag) = reference {
        layout.put_tag(&held, repo, tag, &digest).await?;
    }
    drop(held);

    let location = format!("/v2/{repo}/manifests/{digest}");
    let headers = [(header::LOCATION, location), (CONTENT_DIGEST, digest.to_string())];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if let Some(subject) = manifest.subject {
        let subject = subject.to_string().try_into().expect("a digest makes a header value");
        response.headers_mut().insert(OCI_SUBJECT, subject);
    }
    Ok(response)
}

async fn read_whole(request: Request, limit: usize) -> Result<Bytes, RegistryError> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(RegistryError::manifest_too_large(limit));
    }
    to_bytes(request.into_body(), limit).await.map_err(|error| {
        // The only failure that is not the connection's is the limit, and then nobody is gone.
        tracing::debug!(%error, "a manifest did not arrive");
        RegistryError::manifest_too_large(limit)
    })
}

/// Everything that is named must be here, with the length that is named, and stay.
async fn require_contents(
    registry: &Registry,
    held: &Pushing<'_>,
    repo: &Repository,
    manifest: &Manifest,
) -> Result<(), RegistryError> {
    let layout = registry.layout();
    for blob in &manifest.blobs {
        let found = layout.hold_layer(held, repo, &blob.digest).await?;
        let found = found.ok_or_else(|| RegistryError::manifest_blob_unknown(&blob.digest))?;
        if found.size != blob.size {
            let message = format!(
                "the manifest says that {} has {} bytes; it has {}",
                blob.digest, blob.size, found.size
            );
            return Err(RegistryError::manifest_invalid(message));
        }
    }
    for child in &manifest.manifests {
        if layout.manifest_type(repo, &child.digest).await?.is_none() {
            return Err(RegistryError::manifest_blob_unknown(&child.digest));
        }
    }
    Ok(())
}

/// By tag: the tag goes. By digest: the manifest goes, and every tag that points to it.
pub(crate) async fn delete(
    registry: &Registry,
    repo: &Repository,
    reference: &Reference,
) -> Result<Response, RegistryError> {
    let layout = registry.layout();
    let existed = match reference {
        Reference::Tag(tag) => layout.delete_tag(repo, tag).await?,
        Reference::Digest(digest) => {
            delete_tags_of(registry, repo, digest).await?;
            forget_referrer(registry, repo, digest).await?;
            layout.delete_manifest(repo, digest).await?
        }
    };
    if existed {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        let name = match reference {
            Reference::Tag(tag) => tag.as_str().to_owned(),
            Reference::Digest(digest) => digest.to_string(),
        };
        Err(RegistryError::manifest_unknown(name))
    }
}

async fn delete_tags_of(
    registry: &Registry,
    repo: &Repository,
    digest: &Digest,
) -> Result<(), RegistryError> {
    let layout = registry.layout();
    for child in layout.store.children(&tags_key(repo), None, usize::MAX).await? {
        let Ok(tag) = child.name.parse() else { continue };
        if layout.tagged(repo, &tag).await?.as_ref() == Some(digest) {
            layout.delete_tag(repo, &tag).await?;
        }
    }
    Ok(())
}

/// A deleted manifest is no longer listed with the one it is about.
async fn forget_referrer(
    registry: &Registry,
    repo: &Repository,
    digest: &Digest,
) -> Result<(), RegistryError> {
    let (layout, limits) = (registry.layout(), registry.limits());
    let bytes = layout.store.get(&blob_key(digest), limits.manifest as u64).await?;
    let media_type = layout.manifest_type(repo, digest).await?;
    let (Some(bytes), Some(media_type)) = (bytes, media_type) else { return Ok(()) };
    if let Ok(manifest) = Manifest::parse(&bytes, Some(&media_type), limits.descriptors)
        && let Some(subject) = manifest.subject
    {
        layout.delete_referrer(repo, &subject, digest).await?;
    }
    Ok(())
}
