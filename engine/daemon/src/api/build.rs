//! `/build`: the builder of this engine.

use std::sync::Arc;

use crate::build::{BuildParts, Builder, StepContainers};
use crate::daemon::Daemon;
use crate::error::Result;

/// The builder, with what earlier ones left.
pub(super) async fn open(daemon: &Daemon) -> Result<Builder> {
    Builder::open(BuildParts {
        store: daemon.images.clone(),
        runner: Arc::new(StepContainers::open(daemon).await?),
        dir: daemon.options.data.join("build"),
        pull: daemon.pull_options(),
        shared: daemon.options.build_worker,
    })
    .await
}
