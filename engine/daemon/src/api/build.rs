//! `/build`: the builder of this engine, and what is said to those who look for another.

use std::sync::Arc;

use axum::Router;

use crate::build::{BuildParts, Builder, StepContainers};
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// The builder's routes.
pub(super) async fn router(daemon: &Daemon) -> Result<Router> {
    let builder = Builder::open(BuildParts {
        store: daemon.images.clone(),
        runner: Arc::new(StepContainers::open(daemon).await?),
        dir: daemon.options.data.join("build"),
        pull: daemon.pull_options(),
    })
    .await?;
    Ok(crate::build::router(builder))
}

/// BuildKit's protocol: not spoken here.
pub(super) async fn session() -> Error {
    Error::NotImplemented(
        "this engine builds without BuildKit: set DOCKER_BUILDKIT=0, or use a client that follows the Builder-Version of /_ping"
            .to_owned(),
    )
}
