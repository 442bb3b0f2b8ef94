//! Removes containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::container::Container;
use super::document::{ConfigDocument, MountDocument, Status};
use super::{shm, stop, subpaths, unmount};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::{durable, removal, rootfs};

/// In a container's directory: its anonymous volumes go with it.
const WITH_VOLUMES: &str = "with-volumes";
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
    let _turn = match how.force {
        true => stop::turn_to_kill(daemon, container).await,
        false => container.lifecycle.lock().await,
    };
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
    let status = std::mem::replace(&mut container.lock().state.status, Status::Removing);
    let turn = daemon.removals.turn().await;
    let gone = take_away(daemon, container, how.volumes)
        .inspect_err(|_| container.lock().state.status = status)?;
    if how.volumes {
        let mounts = container.lock().config.mounts.clone();
        remove_anonymous(daemon, &mounts);
    }
    erase(container.clone(), gone, turn);
    daemon.events.publish("container", "destroy", &container.id, attributes);
    container.phase.send_modify(|phase| {
        phase.running = false;
        phase.removed = true;
    });
    Ok(())
}

/// Takes the directory away. The rename makes it gone for good; what a crash leaves of the rest is
/// removed at the next start.
fn take_away(daemon: &Daemon, container: &Arc<Container>, volumes: bool) -> Result<PathBuf> {
    container.lock().tasks.end_all();
    container.lock().pending.clear();
    unmount::begin(container);
    shm::unmount(container)?;
    subpaths::unmount(daemon, &container.id)?;
    let mark = container.dir.join(WITH_VOLUMES);
    if volumes {
        durable::write_soon(&mark, b"")?
    } else {
        durable::remove(&mark)?
    }
    let parent = daemon.containers_dir();
    let gone = parent.join(format!(".{}.removed", container.id));
    std::fs::rename(&container.dir, &gone).map_err(Error::file("removing", &container.dir))?;
    durable::sync_directory(&parent)?;
    daemon.containers.remove(&container.id);
    daemon.images.unpin(&container.id);
    Ok(gone)
}

/// Removes the files of a removed container in the background, when its root file system is unmounted.
fn erase(container: Arc<Container>, gone: PathBuf, turn: Option<OwnedSemaphorePermit>) {
    tokio::spawn(async move {
        unmount::done(&container).await;
        let path = gone.clone();
        let remove = move || {
            // The rename may have come before the unmounting, which then found nothing at the old path.
            if let Err(error) = rootfs::unmount_all(&path.join("rootfs")) {
                return Err(std::io::Error::other(error.message()));
            }
            remove_tree(&path)
        };
        match tokio::task::spawn_blocking(remove).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(path = %gone.display(), %error, "a container's directory is left over");
            }
            Err(error) => tracing::warn!(%error, "removing a container's directory was cut off"),
        }
        drop(turn);
    });
}

/// Does what is left to do for a container whose removal was cut off, but for its directory.
pub(super) fn finish_cut_off(daemon: &Daemon, dir: &Path) {
    let config = durable::read_json::<ConfigDocument>(&dir.join("config.json"));
    if dir.join(WITH_VOLUMES).exists()
        && let Ok(Some(config)) = config
    {
        remove_anonymous(daemon, &config.mounts);
    }
}

/// Removes a directory that a shim may still be writing its last words into.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for _ in 0..LAST_WORDS_TRIES {
        match removal::remove_tree(path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(LAST_WORDS_PAUSE);
            }
            done => return done,
        }
    }
    removal::remove_tree(path)
}

/// Removes the volumes that were made for these mounts and that no container has any more. A volume that a
/// mount asks for by name is somebody's, even if it was made without one.
pub(super) fn remove_anonymous(daemon: &Daemon, mounts: &[MountDocument]) {
    let names = mounts.iter().filter(|mount| mount.is_unnamed()).map(|mount| &mount.volume);
    for name in names.filter(|name| daemon.volume_users(name).is_empty()) {
        match daemon.volumes.remove(name) {
            Ok(_) => {
                let driver = Attributes::from([("driver".to_owned(), "local".to_owned())]);
                daemon.events.publish("volume", "destroy", name, driver);
            }
            Err(Error::NotFound(_)) => {}
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
