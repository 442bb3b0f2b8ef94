//! Calls that this engine answers with a reason instead of a result: swarm mode, plugins, BuildKit.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::Response;
use axum::routing::{any, get};

use super::reply::json;
use crate::daemon::Daemon;
use crate::error::Error;

/// Chapters of the API that are about a swarm.
const SWARM: [&str; 6] = ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"];

/// The routes of what is refused.
pub(super) fn routes() -> Router<Daemon> {
    let mut router = Router::new()
        .route("/session", any(buildkit))
        .route("/grpc", any(buildkit))
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(plugins).get(no_such_plugin));
    for chapter in SWARM {
        router =
            router.route(chapter, any(swarm)).route(&format!("{chapter}/{{*rest}}"), any(swarm));
    }
    router
}

/// BuildKit's protocol: not spoken here.
async fn buildkit() -> Error {
    Error::NotImplemented(
        "this engine builds without BuildKit: set DOCKER_BUILDKIT=0, or use a client that follows the Builder-Version of /_ping"
            .to_owned(),
    )
}

/// Docker's own status for a node that is in no swarm.
pub(super) async fn swarm() -> Error {
    Error::Unavailable(
        "this engine has no swarm mode: it runs the containers of one machine, and nodes, services, tasks, secrets and configs are not kept here"
            .to_owned(),
    )
}

/// There are none, and that can be listed.
async fn no_plugins() -> Response<Body> {
    json(&[(); 0])
}

async fn no_such_plugin(Path(name): Path<String>) -> Error {
    Error::NotFound(format!("plugin {name:?} not found: this engine has no plugins"))
}

async fn plugins() -> Error {
    Error::NotImplemented(
        "this engine has no plugins: volumes are local directories, networks are its own, logs go to files"
            .to_owned(),
    )
}
