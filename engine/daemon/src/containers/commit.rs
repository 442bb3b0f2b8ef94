//! A container made into an image: its own layer on top of its image's, and a configuration of what it
//! was made with, what the caller says, and what Dockerfile instructions change.

use std::sync::Arc;

use minke_engine_client::wire::ContainerConfig;
use minke_engine_images::{History, ImageConfig, ImageId, RunConfig};

use super::container::Container;
use super::create::fill_in;
use super::document::Status;
use super::{stop, traces};
use crate::build;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::stamp;

/// How a container is committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commit {
    /// What goes before the container's own.
    pub(crate) config: ContainerConfig,
    /// Dockerfile instructions.
    pub(crate) changes: Vec<String>,
    pub(crate) comment: String,
    pub(crate) author: String,
    /// A running container stands still meanwhile.
    pub(crate) pause: bool,
}

/// Makes an image of a container; its id.
pub(crate) async fn commit(
    daemon: &Daemon,
    container: &Arc<Container>,
    how: Commit,
) -> Result<ImageId> {
    let _turn = container.turn("committed").await?;
    let document = container.lock().config.clone();
    let base: ImageId =
        document.image_id.parse().map_err(Error::system("reading the image's id"))?;
    let image = daemon.images.image_by_id(&base)?;
    let run = run_config(fill_in(how.config, document.config.clone()))?;
    let with_run = ImageConfig { config: run, ..(*image.config).clone() };
    // Refused before anything stands still.
    let mut config = build::with_changes(with_run, &how.changes)?;
    let own = traces::of_mounts(daemon, container)?;
    let mut paused = how.pause && container.status() == Status::Running;
    if paused {
        container.lock().still.begin();
    }
    if paused && let Err(error) = stop::freeze(container).await {
        // It may have ended a moment ago; and where nothing can be paused, images can still be made.
        tracing::warn!(container = container.id, error = error.message(), "committed unpaused");
        container.lock().still.end();
        paused = false;
    }
    let layer = daemon.images.commit_layer_without(&container.dir.join("upper"), own).await;
    if paused {
        // It may have been killed meanwhile: then there is nothing to thaw.
        stop::thaw_in_any_case(container);
        container.lock().still.end();
    }
    let layer = layer?;
    let now = stamp::rfc3339(stamp::now());
    config.created = Some(now.clone());
    config.author = Some(how.author.clone()).filter(|author| !author.is_empty());
    config.rootfs.diff_ids.push(layer.diff_id);
    let command = document.config.cmd.unwrap_or_default().join(" ");
    config.history.push(History {
        created: Some(now),
        created_by: Some(command),
        author: config.author.clone(),
        comment: Some(how.comment.clone()).filter(|comment| !comment.is_empty()),
        empty_layer: false,
    });
    if how.comment.is_empty() {
        config.other.remove("comment");
    } else {
        config.other.insert("comment".to_owned(), how.comment.into());
    }
    Ok(daemon.images.create_image(&config, Some(base)).await?)
}

/// What of a container's configuration an image keeps.
fn run_config(mut config: ContainerConfig) -> Result<RunConfig> {
    let reading = "reading the container's configuration";
    // A variable that was only taken away is nothing to inherit.
    config.env.retain(|variable| variable.contains('='));
    let value = serde_json::to_value(&config).map_err(Error::system(reading))?;
    let mut run: RunConfig = serde_json::from_value(value).map_err(Error::system(reading))?;
    // What is about this container alone.
    for name in [
        "Hostname",
        "Domainname",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Image",
        "MacAddress",
        "NetworkDisabled",
    ] {
        run.other.remove(name);
    }
    run.stop_signal = run.stop_signal.filter(|signal| !signal.is_empty());
    Ok(run)
}
