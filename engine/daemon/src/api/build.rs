//! `/build`: the builder of this engine.

use std::sync::Arc;

use axum::Router;

use crate::build::{BuildParts, Builder, StepContainers};
use crate::daemon::Daemon;
use crate::error::Result;

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
