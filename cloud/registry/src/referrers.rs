//! `GET /v2/<name>/referrers/<digest>`: the manifests that are about another one.

use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_blobs::Digest;
use serde::Deserialize;
use serde_json::json;

use crate::layout::referrers_key;
use crate::listing::{Page, cut};
use crate::manifest::{OCI_INDEX, Referrer};
use crate::path::Repository;
use crate::{Registry, RegistryError};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    artifact_type: Option<String>,
}

/// Answers with an index, which is empty when nothing refers to `subject`.
pub(crate) async fn list(
    registry: &Registry,
    repo: &Repository,
    subject: &Digest,
    uri: &Uri,
) -> Result<Response, RegistryError> {
    let filter = Query::<Filter>::try_from_uri(uri)
        .map_err(|error| RegistryError::bad_query(error.to_string()))?
        .0
        .artifact_type;
    let page = Page::of(uri)?;
    let size = page.size(registry.limits().page);
    let layout = registry.layout();
    let key = referrers_key(repo, subject);
    let mut children = layout.store.children(&key, page.last.as_deref(), size + 1).await?;
    let mut headers = cut(&mut children, size, uri.path(), |child| child.name.as_str());
    let mut manifests = Vec::new();
    for child in children {
        let Ok(digest) = Digest::from_hex(&child.name) else { continue };
        let Some(bytes) = layout.referrer(repo, subject, &digest).await? else { continue };
        let Ok(referrer) = serde_json::from_slice::<Referrer>(&bytes) else { continue };
        if filter.is_none() || filter == referrer.artifact_type {
            manifests.push(referrer);
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if filter.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    Ok((headers, index.to_string()).into_response())
}
