//! What an entry looks like beside its contents: owner, mode, times, attributes.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr};
use rustix::io::Errno;

use crate::layer::entry::{Entry, Mtime};
use crate::layer::{LayerError, names};

/// What overlayfs reads as: nothing of lower layers shows through here.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Owner first, then mode, then attributes: a change of owner drops set-user-id and capabilities.
pub(crate) fn style(fd: impl AsFd, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
    let (uid, gid) = owner(entry, path)?;
    fchown(&fd, Some(uid), Some(gid))
        .map_err(|error| LayerError::io("giving an owner to", path, error))?;
    fchmod(&fd, Mode::from_raw_mode(entry.mode))
        .map_err(|error| LayerError::io("giving a mode to", path, error))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| may_set(name)) {
        match fsetxattr(&fd, names::to_path(name), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(LayerError::io("giving attributes to", path, error)),
        }
    }
    Ok(())
}

/// `trusted.*` is how overlayfs is steered: a layer has no business there.
pub fn may_set(name: &[u8]) -> bool {
    let known: [&[u8]; 3] = [b"security.", b"user.", b"system.posix_acl_"];
    known.iter().any(|prefix| name.starts_with(prefix))
        && !name.starts_with(b"user.overlay.")
        && !name.contains(&0)
}

pub(crate) fn owner(entry: &Entry, path: &[u8]) -> Result<(Uid, Gid), LayerError> {
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (number(entry.uid), number(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(LayerError::Owner(names::show(path))),
    }
}

pub(crate) fn set_opaque(fd: impl AsFd, path: &[u8]) -> Result<(), LayerError> {
    fsetxattr(fd, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|error| LayerError::io("hiding what is below", path, error))
}

/// A time of change as the system takes it.
pub fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Lets the kernel begin to write a finished file, so that the sync at the end has less to wait for.
pub(crate) fn start_writing(fd: impl AsFd) {
    // The advice makes the kernel start writing dirty pages and drop clean ones. It is only a hint.
    let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
}
