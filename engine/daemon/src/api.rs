//! The Docker Engine API: which path is answered by what. One file per chapter.

mod archive;
mod attach_ws;
mod auth;
mod build;
mod commit;
mod containers;
mod events;
mod exec;
pub(crate) mod filters;
mod images;
mod logs;
mod networks;
pub(crate) mod params;
mod refused;
pub(crate) mod reply;
mod stats;
mod system;
mod top;
mod transfer;
mod unread;
mod verify;
pub(crate) mod versions;
mod volumes;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use hyper::body::Incoming;
use tower_service::Service;

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::serve::Gate;
use unread::Unread;

/// Answers a request of any version.
pub(crate) async fn answer(request: Request<Incoming>, gate: Gate) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let (version, path) = versions::split(parts.uri.path());
    let mut response = if let Err(error) = versions::check(version, path) {
        error.into_response()
    } else if path == "/_ping" {
        system::ping(&parts.method)
    } else {
        let (_, mut router) = gate.ready().await;
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        match format!("{path}{query}").parse::<Uri>() {
            Ok(uri) => {
                parts.uri = uri;
                parts.extensions.insert(versions::Spoken(version));
                let unread = Unread::default();
                let request = Request::from_parts(parts, Body::new(unread.lend(body)));
                let response = match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let status = response.status();
                if status.is_client_error() || status.is_server_error() {
                    tokio::spawn(async move { unread.throw_away().await });
                }
                response
            }
            Err(_) => Error::Invalid("the path cannot be read".to_owned()).into_response(),
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("api-version", crate::API_VERSION),
        ("docker-experimental", "true"),
        ("ostype", "linux"),
        ("server", concat!("Minke/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Every path, without the version.
pub(crate) async fn router(daemon: &Daemon) -> Result<Router> {
    let builder = build::open(daemon).await?;
    let router = Router::new()
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::events))
        .route("/auth", post(auth::auth))
        .route("/system/df", get(system::disk_usage).layer(Extension(builder.clone())))
        .route("/commit", post(commit::commit))
        .route("/distribution/{*rest}", get(auth::distribution))
        .merge(refused::routes())
        .merge(container_routes())
        .merge(image_routes())
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{id}/connect", post(networks::connect))
        .route("/networks/{id}/disconnect", post(networks::disconnect))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove).put(refused::swarm))
        .with_state(daemon.clone())
        .merge(crate::build::router(builder))
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_page);
    Ok(router)
}

fn container_routes() -> Router<Daemon> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/{alias}", delete(containers::remove_link))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/export", get(commit::export))
        .route("/containers/{id}/top", get(top::top))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/attach/ws", get(attach_ws::attach))
        .route("/containers/{id}/archive", get(archive::get).put(archive::put).head(archive::head))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
}

fn image_routes() -> Router<Daemon> {
    Router::new()
        .route("/images/json", get(images::list::list))
        .route("/images/create", post(transfer::create))
        .route("/images/load", post(transfer::load))
        .route("/images/get", get(transfer::get_many))
        .route("/images/prune", post(images::prune))
        .route("/images/search", get(auth::search))
        .route("/minke/verify", post(verify::verify))
        // Names of images have slashes, so what follows them is looked at by hand.
        .route("/images/{*rest}", get(images::get).post(images::post).delete(images::remove))
}

async fn no_such_page(method: Method, uri: Uri) -> Response<Body> {
    tracing::debug!(%method, %uri, "not a path of the API");
    let message = format!("{method} {} is not a call of this engine", uri.path());
    let mut response = Error::NotFound(message).into_response();
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
