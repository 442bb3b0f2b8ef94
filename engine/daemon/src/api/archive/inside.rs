//! Where a path of a container is, and work done with the container's root as the root.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::UnshareFlags;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::containers::container::Container;
use crate::containers::document::{MountDocument, MountKind};
use crate::containers::{exit, mounts, prepare, start, unmount};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::options::IdRange;
use crate::users;

/// A root directory and a path below it.
pub(in crate::api) struct Place {
    root: PathBuf,
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// Host ids under which its files are seen, where they are not seen under their own.
    pub(super) users: Option<IdRange>,
    /// A container that does not run has its root file system mounted for as long as this lives.
    mounted: Option<(Daemon, Arc<Container>, OwnedMutexGuard<()>)>,
}

impl Place {
    /// Finds a path of a container that runs or not. A container that does not run has its volumes and
    /// binds looked into directly.
    pub(super) async fn find(
        daemon: &Daemon,
        container: &Arc<Container>,
        path: &str,
    ) -> Result<Place> {
        let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (pid, readonly_rootfs, all) = {
            let cell = container.lock();
            let host = &cell.config.host_config;
            (cell.state.pid, host.readonly_rootfs, cell.config.mounts.clone())
        };
        // The root itself has no clean form of a mount target, and needs none.
        let clean = mounts::clean_target(&absolute).unwrap_or_else(|_| "/".to_owned());
        let covering = covering(&all, &clean);
        let read_only = covering.map_or(readonly_rootfs, |mount| mount.read_only);
        if pid != 0 {
            let root = PathBuf::from(format!("/proc/{pid}/root"));
            let users = users::of(daemon, &container.lock().config.host_config);
            return Ok(Place { root, path: absolute.into(), read_only, users, mounted: None });
        }
        if let Some(mount) = covering {
            let root = match mount.kind {
                MountKind::Volume => prepare::volume_source(daemon, mount)?,
                _ => PathBuf::from(&mount.source),
            };
            let rest = clean[mount.target.len()..].trim_start_matches('/');
            let (root, path) = below(root, rest).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::NotFound(format!(
                    "Could not find the file {path} in container {}",
                    container.name()
                )),
                _ => Error::file("reaching", &mount.source)(error),
            })?;
            return Ok(Place { root, path, read_only, users: None, mounted: None });
        }
        if let Some((file, _)) = prepare::OWN_FILES.iter().find(|(_, target)| *target == clean) {
            return Place::own_file(container, file, read_only);
        }
        let mut place = Place::root(daemon, container).await?;
        place.path = absolute.into();
        place.read_only = read_only;
        Ok(place)
    }

    /// A file of the engine's that is mounted in the container when it runs; empty until its first start.
    fn own_file(container: &Container, file: &str, read_only: bool) -> Result<Place> {
        let path = container.dir.join(file);
        let options = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        options.map_err(Error::file("making", &path))?;
        let (root, path) = (container.dir.clone(), PathBuf::from(format!("/{file}")));
        Ok(Place { root, path, read_only, users: None, mounted: None })
    }

    /// The root file system of a container without what is mounted in it.
    pub(in crate::api) async fn root(daemon: &Daemon, container: &Arc<Container>) -> Result<Place> {
        let lifecycle = container.lock_lifecycle().await;
        container.check_stays("read")?;
        let (root, path) = (container.rootfs(), PathBuf::from("/"));
        if container.status().has_process() {
            let users = users::of(daemon, &container.lock().config.host_config);
            return Ok(Place { root, path, read_only: false, users, mounted: None });
        }
        start::mount_rootfs(daemon, container).await?;
        let mounted = Some((daemon.clone(), container.clone(), lifecycle));
        Ok(Place { root, path, read_only: false, users: None, mounted })
    }

    /// Takes down what was mounted for it.
    pub(in crate::api) async fn leave(self) {
        drop(self);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((daemon, container, lifecycle)) = self.mounted.take() else { return };
        if container.status().has_process() {
            return;
        }
        unmount::begin(&container);
        exit::pin_as_stopped(&daemon, &container);
        drop(lifecycle);
    }
}

/// The root for work on what is mounted from `source`, and the path of `rest` below that. Only a directory
/// can be a root; of the one around a file nothing else is reached, because there is nothing below a file.
fn below(source: PathBuf, rest: &str) -> io::Result<(PathBuf, PathBuf)> {
    let source = source.canonicalize()?;
    let (Some(parent), Some(name), false) = (source.parent(), source.file_name(), source.is_dir())
    else {
        return Ok((source, Path::new("/").join(rest)));
    };
    let mut path = Path::new("/").join(name);
    if !rest.is_empty() {
        path.push(rest);
    }
    Ok((parent.to_owned(), path))
}

/// The mount that a path is in.
fn covering<'a>(mounts: &'a [MountDocument], path: &str) -> Option<&'a MountDocument> {
    let below = |mount: &&MountDocument| {
        mount.kind != MountKind::Tmpfs && Path::new(path).starts_with(&mount.target)
    };
    mounts.iter().filter(below).max_by_key(|mount| mount.target.len())
}

/// Runs `work` on a thread whose root directory is the place's.
pub(super) async fn in_root<T: Send + 'static>(
    place: &Place,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let root = place.root.clone();
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        let result = enter(&root).and_then(|()| work());
        // Nobody waits any more: fine.
        let _ = sender.send(result);
    })?;
    receiver.await.map_err(io::Error::other)?
}

fn enter(root: &Path) -> io::Result<()> {
    // SAFETY: only the root and working directory of this thread, which is new and ends after its work,
    // stop being shared with the rest of the process.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS)? };
    rustix::process::chroot(root)?;
    std::env::set_current_dir("/")
}

impl Container {
    async fn lock_lifecycle(self: &Arc<Self>) -> OwnedMutexGuard<()> {
        self.lifecycle.clone().lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_file_is_the_directory_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::write(real.join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", real.join("link")).unwrap();
        let of = |name: &str, rest: &str| below(real.join(name), rest).unwrap();
        assert_eq!(of("", "a/b"), (real.clone(), "/a/b".into()));
        for name in ["file", "link"] {
            assert_eq!(of(name, ""), (real.clone(), "/file".into()));
            assert_eq!(of(name, "x"), (real.clone(), "/file/x".into()));
        }
        assert!(below(real.join("missing"), "").is_err());
    }
}
