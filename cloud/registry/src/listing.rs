//! Lists: the tags of a repository, and all repositories. Both in pages, with a `Link` header.

use axum::Json;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use minke_cloud_blobs::Key;
use serde::Deserialize;
use serde_json::json;

use crate::layout::tags_key;
use crate::path::Repository;
use crate::{Registry, RegistryError};

/// Which page is asked for.
#[derive(Deserialize)]
pub(crate) struct Page {
    n: Option<usize>,
    pub(crate) last: Option<String>,
}

impl Page {
    pub(crate) fn of(uri: &Uri) -> Result<Self, RegistryError> {
        let query = Query::<Self>::try_from_uri(uri);
        query.map(|query| query.0).map_err(|error| RegistryError::bad_query(error.to_string()))
    }

    /// Entries to answer with, given the most that one page may have.
    pub(crate) fn size(&self, limit: usize) -> usize {
        self.n.unwrap_or(limit).min(limit)
    }
}

/// Cuts `names`, which has one more than the page when there is more, and says how to go on.
pub(crate) fn cut<T>(
    names: &mut Vec<T>,
    size: usize,
    path: &str,
    name: impl Fn(&T) -> &str,
) -> HeaderMap {
    let more = names.len() > size;
    names.truncate(size);
    let mut headers = HeaderMap::new();
    if let (true, Some(last)) = (more, names.last()) {
        let link = format!("<{path}?n={size}&last={}>; rel=\"next\"", name(last));
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert(header::LINK, link);
        }
    }
    headers
}

/// `GET /v2/<name>/tags/list`; `name` is what the caller called the repository `repo`.
pub(crate) async fn tags(
    registry: &Registry,
    repo: &Repository,
    name: &Repository,
    uri: &Uri,
) -> Result<Response, RegistryError> {
    let layout = registry.layout();
    if !layout.exists(repo).await? {
        return Err(RegistryError::name_unknown(name));
    }
    let page = Page::of(uri)?;
    let size = page.size(registry.limits().page);
    let children = layout.store.children(&tags_key(repo), page.last.as_deref(), size + 1).await?;
    let mut tags: Vec<_> = children.into_iter().map(|child| child.name).collect();
    let headers = cut(&mut tags, size, uri.path(), String::as_str);
    Ok((headers, Json(json!({"name": name.as_str(), "tags": tags}))).into_response())
}

/// `GET /v2/_catalog`
pub(crate) async fn catalog(registry: &Registry, uri: &Uri) -> Result<Response, RegistryError> {
    let page = Page::of(uri)?;
    let size = page.size(registry.limits().page);
    let names = repositories(registry).await?;
    let after = |name: &String| page.last.as_ref().is_none_or(|last| name > last);
    let mut names: Vec<_> = names.into_iter().filter(after).take(size + 1).collect();
    let headers = cut(&mut names, size, uri.path(), String::as_str);
    Ok((headers, Json(json!({"repositories": names}))).into_response())
}

/// The names of all repositories that have a manifest, in order.
pub(crate) async fn repositories(registry: &Registry) -> Result<Vec<String>, RegistryError> {
    let mut names = all_repositories(registry).await?;
    let mut with_manifest = Vec::new();
    for name in names.drain(..) {
        let key = crate::layout::manifests_key(&name);
        if !registry.layout().store.children(&key, None, 1).await?.is_empty() {
            with_manifest.push(name.as_str().to_owned());
        }
    }
    Ok(with_manifest)
}

/// All repositories in which anything is linked, in order.
pub(crate) async fn all_repositories(
    registry: &Registry,
) -> Result<Vec<Repository>, RegistryError> {
    let root = Key::new("repositories").expect("a plain word is a key");
    let mut names = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(prefix) = open.pop() {
        let mut is_repository = false;
        for child in registry.layout().store.children(&prefix, None, usize::MAX).await? {
            if child.name.starts_with('_') {
                is_repository = true;
            } else if let (true, Ok(below)) = (child.is_prefix, prefix.join(&child.name)) {
                open.push(below);
            }
        }
        let name = prefix.as_str().strip_prefix("repositories/");
        if let (true, Some(Ok(name))) = (is_repository, name.map(str::parse)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
