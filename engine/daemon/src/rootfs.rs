//! A container's root file system: an overlay of its image's layers and a directory of its own.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{Error, Result};

/// An overlay to be mounted. The directories must exist.
pub(crate) struct Overlay<'a> {
    /// Top first.
    pub(crate) lower: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) target: &'a Path,
}

impl Overlay<'_> {
    /// Mounts it.
    pub(crate) fn mount(&self) -> std::result::Result<(), Errno> {
        mount_by_descriptor(self).or_else(|error| match error {
            // Kernels before 6.7 do not take layers one by one.
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => mount_by_text(self),
            other => Err(other),
        })
    }
}

/// Mounts `lower` (top first) with `upper` on it at `target`. The directories must exist.
pub(crate) fn mount(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let mounted = Overlay { lower, upper, work, target }.mount();
    mounted.map_err(|error| Error::file("mounting the overlay", target)(error.into()))
}

fn mount_by_descriptor(overlay: &Overlay<'_>) -> std::result::Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in overlay.lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, "upperdir", overlay.upper)?;
    fsconfig_set_string(&context, "workdir", overlay.work)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mount, "", CWD, overlay.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn mount_by_text(overlay: &Overlay<'_>) -> std::result::Result<(), Errno> {
    let mut options = b"lowerdir=".to_vec();
    for (index, layer) in overlay.lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend_from_slice(layer.as_os_str().as_bytes());
    }
    for (name, path) in [(",upperdir=", overlay.upper), (",workdir=", overlay.work)] {
        options.extend_from_slice(name.as_bytes());
        options.extend_from_slice(path.as_os_str().as_bytes());
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        "overlay",
        overlay.target,
        "overlay",
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    )
}

/// The host's path of what is at a path inside a tree. What is in there was put there by containers: no
/// link of theirs leads out of it.
pub(crate) fn inside(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Unmounts whatever is at `target`; nothing there is fine. A mount that is in use goes when its last
/// user goes.
pub(crate) fn unmount_all(target: &Path) -> Result<()> {
    // A crash between mount and record can have left more than one on top of another.
    for _ in 0..16 {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::file("unmounting", target)(error.into())),
        }
    }
    Ok(())
}

/// Mount points at or below `directory`, deepest first.
pub(crate) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(directory))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    found
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/plain\9"), r"/plain\9");
    }
}
