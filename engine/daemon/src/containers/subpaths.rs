//! Parts of volumes. What is at a path in a volume is looked up once, when the container starts, and
//! mounted at a place of the engine's. By its path it could be another thing a moment later, put there by
//! somebody else who has the volume: a link to anywhere on the host.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::container::Container;
use super::document::MountDocument;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::rootfs;

/// Where those of a container are mounted. Not in its directory: that is removed with all that is in it.
fn folder(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.options.data.join("run/subpaths").join(id)
}

/// Where a mount of a container is to be found: the one with this number.
pub(super) fn place(daemon: &Daemon, id: &str, number: usize) -> PathBuf {
    folder(daemon, id).join(number.to_string())
}

/// Mounts those of a container that is about to start.
pub(super) fn mount(daemon: &Daemon, container: &Container) -> Result<()> {
    unmount(daemon, &container.id)?;
    let mounts = container.lock().config.mounts.clone();
    for (number, mount) in mounts.iter().enumerate().filter(|(_, mount)| !mount.subpath.is_empty())
    {
        let place = place(daemon, &container.id, number);
        attach(&daemon.volumes.data(&mount.volume), Path::new(&mount.subpath), &place)
            .map_err(|error| no_access(mount, &error))?;
    }
    Ok(())
}

/// What is said of a path that leads nowhere, or outside.
pub(crate) fn no_access(mount: &MountDocument, error: &io::Error) -> Error {
    Error::Invalid(format!(
        "cannot access path {} of volume {}: {error}",
        mount.subpath, mount.volume
    ))
}

fn attach(data: &Path, subpath: &Path, place: &Path) -> io::Result<()> {
    let found = rootfs::open_inside(data, subpath)?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    match kind {
        FileType::Directory => fs::create_dir(place)?,
        _ => drop(fs::File::create_new(place)?),
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&found, "", flags)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), "", CWD, place, empty)?)
}

/// Takes them down; a container that has them keeps them.
pub(super) fn unmount(daemon: &Daemon, id: &str) -> Result<()> {
    let folder = folder(daemon, id);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("reading", &folder)(error)),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        rootfs::unmount_all(&path)?;
        // Nothing but an empty file or directory: were anything else there, it stays.
        let removed = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
        removed.map_err(Error::file("removing", &path))?;
    }
    fs::remove_dir(&folder).map_err(Error::file("removing", &folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_what_was_found() {
        // SAFETY: only this thread gets a mount namespace of its own.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS).unwrap() };
        let private = rustix::mount::MountPropagationFlags::PRIVATE
            | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(data.join("sub/right"), "").unwrap();
        fs::write(data.join("file"), "text").unwrap();
        std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();

        attach(&data, Path::new("sub"), &dir.path().join("p/0")).unwrap();
        attach(&data, Path::new("file"), &dir.path().join("p/1")).unwrap();
        assert!(attach(&data, Path::new("link"), &dir.path().join("p/2")).is_err());
        // What stands in its place afterwards is another thing.
        fs::rename(data.join("sub"), data.join("away")).unwrap();
        std::os::unix::fs::symlink(&outside, data.join("sub")).unwrap();
        assert!(dir.path().join("p/0/right").exists());
        assert_eq!(fs::read_to_string(dir.path().join("p/1")).unwrap(), "text");
    }
}
