//! Removes containers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::container::Container;
use super::document::{MountKind, Status};
use super::{shm, stop, unmount};
use crate::daemon::Daemon;
use crate::durable;
use crate::error::{Error, Result};
use crate::events::Attributes;

/// How often and how long a shim is given time to end.
const LAST_WORDS_TRIES: u32 = 50;
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(20);

/// How many removed containers may have files left before the next removal waits.
const BEHIND: u32 = 32;

/// The files of removed containers that are still there.
pub(crate) struct Removals(Arc<Semaphore>);

impl Default for Removals {
    fn default() -> Removals {
        Removals(Arc::new(Semaphore::new(BEHIND as usize)))
    }
}

impl Removals {
    /// Waits for a turn; it ends when the value is dropped. `None` never comes: the queue is not closed.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }

    /// Waits until the files of all containers removed so far are gone: for whoever needs their room.
    pub(crate) async fn settled(&self) {
        drop(self.0.acquire_many(BEHIND).await);
    }
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Removal {
    /// Kills it first.
    pub(crate) force: bool,
    /// Also its anonymous volumes.
    pub(crate) volumes: bool,
}

/// Removes a container. When this returns it is gone from lists and names for good; its files go in the
/// background ([`Removals`]).
pub(crate) async fn remove(
    daemon: &Daemon,
    container: &Arc<Container>,
    how: Removal,
) -> Result<()> {
    let _lifecycle = container.lifecycle.lock().await;
    if container.phase.borrow().removed {
        return Err(Error::NotFound(format!("No such container: {}", container.id)));
    }
    let status = container.status();
    if status.counts_as_running() {
        if !how.force {
            let text = if status == Status::Paused { "paused" } else { status.word() };
            return Err(Error::Conflict(format!(
                "cannot remove container \"/{}\": container is {text}: stop the container before removing or force remove",
                container.name()
            )));
        }
        stop::kill_locked(daemon, container).await?;
    }
    let attributes = container.attributes();
    let volumes = anonymous_volumes(daemon, container);
    erase(daemon, container).await?;
    if how.volumes {
        remove_volumes(daemon, &volumes);
    }
    daemon.events.publish("container", "destroy", &container.id, attributes);
    container.phase.send_modify(|phase| {
        phase.running = false;
        phase.removed = true;
    });
    Ok(())
}

/// Takes the directory away. The rename makes it gone for good; what a crash leaves of the rest is
/// removed at the next start.
async fn erase(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    container.lock().tasks.end_all();
    container.lock().pending.clear();
    let turn = daemon.removals.turn().await;
    unmount::begin(container);
    shm::unmount(container)?;
    let parent = daemon.containers_dir();
    let gone = parent.join(format!(".{}.removed", container.id));
    std::fs::rename(&container.dir, &gone).map_err(Error::file("removing", &container.dir))?;
    durable::sync_directory(&parent)?;
    daemon.containers.remove(&container.id);
    daemon.images.unpin(&container.id);
    let container = container.clone();
    tokio::spawn(async move {
        unmount::done(&container).await;
        let path = gone.clone();
        match tokio::task::spawn_blocking(move || remove_tree(&path)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(path = %gone.display(), %error, "a container's directory is left over");
            }
            Err(error) => tracing::warn!(%error, "removing a container's directory was cut off"),
        }
        drop(turn);
    });
    Ok(())
}

/// Removes a directory that a shim may still be writing its last words into.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for _ in 0..LAST_WORDS_TRIES {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(LAST_WORDS_PAUSE);
            }
            done => return done,
        }
    }
    std::fs::remove_dir_all(path)
}

fn anonymous_volumes(daemon: &Daemon, container: &Container) -> Vec<String> {
    let cell = container.lock();
    let volumes = cell.config.mounts.iter().filter(|mount| mount.kind == MountKind::Volume);
    volumes
        .filter(|mount| daemon.volumes.get(&mount.volume).is_ok_and(|v| v.is_anonymous()))
        .map(|mount| mount.volume.clone())
        .collect()
}

fn remove_volumes(daemon: &Daemon, names: &[String]) {
    for name in names.iter().filter(|name| daemon.volume_users(name).is_empty()) {
        match daemon.volumes.remove(name) {
            Ok(()) => {
                let driver = Attributes::from([("driver".to_owned(), "local".to_owned())]);
                daemon.events.publish("volume", "destroy", name, driver);
            }
            Err(error) => {
                tracing::warn!(volume = name, error = error.message(), "a volume is left over");
            }
        }
    }
}

impl Daemon {
    /// The ids of the containers that have a volume.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let users = self.containers.all().into_iter().filter(|container| {
            container.lock().config.mounts.iter().any(|mount| mount.volume == name)
        });
        users.map(|container| container.id.clone()).collect()
    }
}
