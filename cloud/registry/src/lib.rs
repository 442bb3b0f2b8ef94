//! An OCI distribution registry: manifests, blobs, uploads, tags, referrers.
//!
//! One file per chapter of the distribution specification; [`layout`] says where things are
//! kept in the blob store, [`gc`] when they go.
//!
//! Invariants:
//!
//! * A blob is visible only in repositories it was pushed to or mounted into.
//! * A manifest is accepted only when everything it names is in its repository, and is
//!   visible only whole: bytes first, then the link that shows them, then the tag.
//! * Memory does not depend on the size of a layer: bodies are streamed both ways.
//! * Garbage collection never removes what a manifest names, nor what a push in progress
//!   was told exists.

mod auth;
mod blobs;
mod error;
pub mod gc;
mod layout;
mod listing;
mod manifest;
mod manifests;
mod path;
mod range;
mod referrers;
pub mod token;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

pub use auth::Auth;
pub use error::{Code, RegistryError};
pub use path::{NameError, Repository, Tag};

use auth::{Action, Caller};
use layout::Layout;
use path::Route;

/// What a registry accepts at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one manifest.
    pub manifest: usize,
    /// Bytes of one blob.
    pub blob: u64,
    /// Things one manifest may name.
    pub descriptors: usize,
    /// Entries of one page of tags, repositories or referrers.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { manifest: 4 << 20, blob: 64 << 30, descriptors: 4096, page: 1000 }
    }
}

/// A registry over a blob store. Cheap to clone; all clones are the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    layout: Layout,
    auth: Auth,
    limits: Limits,
}

impl Registry {
    /// A registry that keeps everything in `blobs`. Two registries over one store would not
    /// see each other's pushes while they collect garbage: make one and clone it.
    pub fn new(blobs: minke_cloud_blobs::Store, auth: Auth) -> Self {
        Self::with_limits(blobs, auth, Limits::default())
    }

    /// As [`Registry::new`], with other limits.
    pub fn with_limits(blobs: minke_cloud_blobs::Store, auth: Auth, limits: Limits) -> Self {
        Self(Arc::new(Inner { layout: Layout::new(blobs), auth, limits }))
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// All repositories in which anything is stored, in order.
    pub async fn repositories(&self) -> Result<Vec<Repository>, RegistryError> {
        listing::all_repositories(self).await
    }

    /// Removes a repository with all its manifests and tags. Its blobs go with the next
    /// [collection](gc), unless another repository has them.
    pub async fn delete_repository(&self, name: &Repository) -> Result<(), RegistryError> {
        Ok(self.layout().delete_repository(name).await?)
    }
}

/// The routes `/v2/…`, ready to be merged into the server's router.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2", any(dispatch))
        .route("/v2/", any(dispatch))
        .route("/v2/{*path}", any(dispatch))
        .with_state(registry)
}

async fn dispatch(State(registry): State<Registry>, request: Request) -> Response {
    let mut response = match answer(&registry, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn answer(registry: &Registry, request: Request) -> Result<Response, RegistryError> {
    let route = Route::parse(request.uri().path())?;
    let method = request.method().clone();
    let uri = request.uri().clone();
    let caller = registry.0.auth.caller(request.headers());
    let may = |action, repo: &Repository| registry.0.auth.require(&caller, action, repo);
    match (route, method.clone()) {
        (Route::Base, Method::GET | Method::HEAD) => {
            registry.0.auth.require_any(&caller)?;
            Ok(StatusCode::OK.into_response())
        }
        (Route::Catalog, Method::GET) => {
            registry.0.auth.require_catalog(&caller)?;
            listing::catalog(registry, &uri).await
        }
        (Route::Tags(repo), Method::GET) => {
            let effective = may(Action::Pull, &repo)?;
            listing::tags(registry, &effective, &repo, &uri).await
        }
        (Route::Referrers(repo, digest), Method::GET) => {
            let repo = may(Action::Pull, &repo)?;
            referrers::list(registry, &repo, &digest, &uri).await
        }
        (Route::Manifest(repo, reference), Method::GET | Method::HEAD) => {
            manifests::get(registry, &may(Action::Pull, &repo)?, &reference, &method).await
        }
        (Route::Manifest(repo, reference), Method::PUT) => {
            manifests::put(registry, &may(Action::Push, &repo)?, &reference, request).await
        }
        (Route::Manifest(repo, reference), Method::DELETE) => {
            manifests::delete(registry, &may(Action::Delete, &repo)?, &reference).await
        }
        (Route::Blob(repo, digest), Method::GET | Method::HEAD) => {
            let repo = may(Action::Pull, &repo)?;
            let pushing = may(Action::Push, &repo).is_ok();
            let (parts, _) = request.into_parts();
            blobs::get(registry, &repo, &digest, &parts, pushing).await
        }
        (Route::Blob(repo, digest), Method::DELETE) => {
            blobs::delete(registry, &may(Action::Delete, &repo)?, &digest).await
        }
        (Route::Uploads(repo), Method::POST) => {
            let repo = may(Action::Push, &repo)?;
            uploads::begin(registry, &caller, &repo, request).await
        }
        (Route::Upload(repo, id), method) => {
            let repo = may(Action::Push, &repo)?;
            match method {
                Method::GET | Method::HEAD => uploads::status(registry, &repo, &id).await,
                Method::PATCH => uploads::append(registry, &repo, &id, request).await,
                Method::PUT => uploads::finish(registry, &repo, &id, request).await,
                Method::DELETE => uploads::cancel(registry, &id).await,
                _ => Err(RegistryError::method_not_allowed()),
            }
        }
        _ => Err(RegistryError::method_not_allowed()),
    }
}

impl Registry {
    /// The repository that `caller` may pull from under the name `from`.
    fn may_mount_from(&self, caller: &Caller, from: &Repository) -> Option<Repository> {
        self.0.auth.require(caller, Action::Pull, from).ok()
    }
}
