//! A container's files, ready for copies: whether it runs or not, all that it has at its start is where it
//! has it ([`super::view`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use minke_engine_client::wire::HostNetwork;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;

use super::view::{Part, Plan, Users, View, has_ended};
use crate::api::containers::detached;
use crate::containers::container::Container;
use crate::containers::document::{MountDocument, MountKind};
use crate::containers::{exit, mounts, prepare, start};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::options::IdRange;
use crate::{users, volumes};

/// How long after its files have gone a container may take to be recorded as ended.
const END: Duration = Duration::from_secs(10);

/// A container's files and a path among them.
pub(in crate::api) struct Place {
    /// There until the place is left.
    view: Option<View>,
    pub(super) path: PathBuf,
    /// Host ids under which its files are seen, where they are not seen under their own.
    pub(super) users: Option<IdRange>,
    opened: Option<Opened>,
}

/// How much of a container is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// With what is mounted in it.
    Whole,
    /// The root file system, for reading.
    Root,
}

impl Place {
    /// Finds a path of a container.
    pub(super) async fn find(
        daemon: &Daemon,
        container: &Arc<Container>,
        path: &str,
    ) -> Result<Place> {
        let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut place = Place::open(daemon, container, Extent::Whole).await?;
        // The root itself has no clean form of a mount target, and needs none.
        let clean = mounts::clean_target(&absolute).unwrap_or_else(|_| "/".to_owned());
        let absent = place.view.iter().flat_map(|view| &view.absent);
        if absent.into_iter().any(|target| Path::new(&clean).starts_with(target)) {
            place.leave().await;
            return Err(Error::NotFound(format!(
                "Could not find the file {path} in container {}: what is mounted there is not on the host",
                container.name()
            )));
        }
        place.path = absolute.into();
        Ok(place)
    }

    /// The root file system of a container without what is mounted in it.
    pub(in crate::api) async fn root(daemon: &Daemon, container: &Arc<Container>) -> Result<Place> {
        Place::open(daemon, container, Extent::Root).await
    }

    async fn open(daemon: &Daemon, container: &Arc<Container>, extent: Extent) -> Result<Place> {
        let (daemon, container) = (daemon.clone(), container.clone());
        // Whatever becomes of the client, what is mounted is taken down by a place that is dropped.
        detached(async move {
            // Heard of before it is looked for.
            let end = container.next_end();
            if container.status().has_process() {
                match Place::of_running(&daemon, &container, extent).await {
                    Err(error) if has_ended(&error) => drop(tokio::time::timeout(END, end).await),
                    place => return place.map_err(failed),
                }
            }
            let lifecycle = container.lifecycle.clone().lock_owned().await;
            container.check_stays("read")?;
            if container.status().has_process() {
                return Place::of_running(&daemon, &container, extent).await.map_err(failed);
            }
            Place::of_stopped(daemon, container, lifecycle, extent).await
        })
        .await
    }

    async fn of_running(
        daemon: &Daemon,
        container: &Container,
        extent: Extent,
    ) -> io::Result<Place> {
        let (pid, host) = {
            let cell = container.lock();
            (cell.state.pid, cell.config.host_config.clone())
        };
        let users = users::of(daemon, &host);
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/user"));
        let owners = users.map(|range| Users { first: range.first, namespace });
        let plan = plan(daemon, container, owners, extent)?;
        let (view, _) = View::make(plan).await?;
        Ok(Place { view: Some(view), path: PathBuf::from("/"), users, opened: None })
    }

    async fn of_stopped(
        daemon: Daemon,
        container: Arc<Container>,
        lifecycle: OwnedMutexGuard<()>,
        extent: Extent,
    ) -> Result<Place> {
        let mut opened = Opened { daemon, container, _lifecycle: lifecycle, end: None };
        match opened.view(extent).await {
            Ok(view) => {
                let path = PathBuf::from("/");
                Ok(Place { view: Some(view), path, users: None, opened: Some(opened) })
            }
            Err(error) => {
                opened.close().await;
                Err(error)
            }
        }
    }

    /// Does something on a thread whose root is the container's.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match &self.view {
            Some(view) => view.run(work).await,
            None => Err(io::Error::other("the container's files have been left")),
        }
    }

    /// Takes down what was mounted for it.
    pub(in crate::api) async fn leave(mut self) {
        if let Some(closing) = self.end() {
            let _ = closing.await;
        }
    }

    fn end(&mut self) -> Option<JoinHandle<()>> {
        self.view = None;
        Some(tokio::spawn(self.opened.take()?.close()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It goes on by itself.
        drop(self.end());
    }
}

/// A container that does not run, with its root file system mounted and its volumes made ready. It is not
/// started meanwhile.
struct Opened {
    daemon: Daemon,
    container: Arc<Container>,
    _lifecycle: OwnedMutexGuard<()>,
    /// Of the view.
    end: Option<oneshot::Receiver<()>>,
}

impl Opened {
    async fn view(&mut self, extent: Extent) -> Result<View> {
        start::mount_rootfs(&self.daemon, &self.container).await?;
        if extent == Extent::Whole {
            let (daemon, container) = (self.daemon.clone(), self.container.clone());
            // A server may be slow to answer, and what an image has for a volume may be large.
            let held = tokio::task::spawn_blocking(move || hold_volumes(&daemon, &container));
            held.await.map_err(Error::system("making volumes ready"))??;
        }
        let plan = plan(&self.daemon, &self.container, None, extent).map_err(failed)?;
        let (view, end) = View::make(plan).await.map_err(failed)?;
        self.end = Some(end);
        Ok(view)
    }

    async fn close(mut self) {
        if let Some(end) = self.end.take() {
            // An error: its thread has ended.
            let _ = end.await;
        }
        exit::take_down(&self.daemon, &self.container).await;
    }
}

fn failed(error: io::Error) -> Error {
    Error::system("opening the container's files")(error)
}

/// Makes the volumes of a container ready as a start does.
fn hold_volumes(daemon: &Daemon, container: &Container) -> Result<()> {
    let (mounts, first) = {
        let cell = container.lock();
        (cell.config.mounts.clone(), cell.state.started_at == 0)
    };
    for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let fill = first && !mount.no_copy && mount.subpath.is_empty();
        daemon.volumes.hold(&mount.volume, &container.id, |data| match fill {
            true => volumes::fill_from_image(&container.rootfs(), &mount.target, data),
            false => Ok(()),
        })?;
    }
    Ok(())
}

fn plan(
    daemon: &Daemon,
    container: &Container,
    users: Option<Users>,
    extent: Extent,
) -> io::Result<Plan> {
    let root = container.rootfs();
    if extent == Extent::Root {
        return Ok(Plan { root, read_only: true, parts: Vec::new(), users });
    }
    let document = container.lock().config.clone();
    let mut parts = own_files(daemon, container, &document.mounts)?;
    parts.extend(document.mounts.iter().filter_map(|mount| part(daemon, mount)));
    parts.sort_by_key(|part| part.target.components().count());
    Ok(Plan { root, read_only: document.host_config.readonly_rootfs, parts, users })
}

/// The engine's files, which are empty until the first start.
fn own_files(
    daemon: &Daemon,
    container: &Container,
    mounts: &[MountDocument],
) -> io::Result<Vec<Part>> {
    let host = container.lock().config.host_config.clone();
    let other = match host.network() {
        HostNetwork::Container(other) => daemon.containers.find(other).ok(),
        _ => None,
    };
    let mut parts = Vec::new();
    for (file, target) in prepare::OWN_FILES {
        if mounts.iter().any(|mount| mount.target == target) {
            continue;
        }
        let own = container.dir.join(file);
        let shared = other.as_ref().map(|other| other.dir.join(file)).filter(|path| path.exists());
        if shared.is_none() {
            std::fs::OpenOptions::new().create(true).append(true).open(&own)?;
        }
        parts.push(Part {
            source: shared.unwrap_or(own),
            below: PathBuf::new(),
            target: target.into(),
            recursive: false,
            read_only: false,
            own_ids: true,
            is_made: false,
        });
    }
    Ok(parts)
}

/// What of a mount is seen: memory is the container's own.
fn part(daemon: &Daemon, mount: &MountDocument) -> Option<Part> {
    let is_volume = match mount.kind {
        MountKind::Tmpfs => return None,
        MountKind::Bind => false,
        MountKind::Volume => true,
    };
    Some(Part {
        source: match is_volume {
            true => daemon.volumes.data(&mount.volume),
            false => PathBuf::from(&mount.source),
        },
        below: PathBuf::from(&mount.subpath),
        target: PathBuf::from(&mount.target),
        recursive: is_volume || !mount.non_recursive,
        read_only: mount.read_only,
        own_ids: is_volume,
        is_made: mount.make_source,
    })
}
