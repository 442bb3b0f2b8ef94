//! Mounts that show files under other owners: what is user 0 on the disk is the first user of a user
//! namespace here. So files keep their in-container ids, whoever the container's users are on the host.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

/// A range of host ids: in-container id 0 is `first` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// Never 0: that would be the host's root.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// The in-container id of a host id; `None` if it is not in the range.
    pub fn inside(self, id: u32) -> Option<u32> {
        id.checked_sub(self.first).filter(|inside| *inside < self.count)
    }

    /// The host id of an in-container id; `None` if the range is too short.
    pub fn outside(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.first + id)
    }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// A copy of what is mounted at `source`, attached nowhere.
pub fn copy(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, source, flags)?)
}

/// Let a copy show its files as a user namespace maps them. Needs Linux 5.12, for layers of an overlay
/// 5.19, and a file system that can.
pub fn map(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = user_namespace.as_raw_fd() as u64;
    let attributes =
        MountAttributes { set: MOUNT_ATTR_IDMAP, user_namespace: descriptor, ..Default::default() };
    set_attributes(tree, &attributes)
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: &MountAttributes) -> io::Result<()> {
    // SAFETY: the path is an empty string with its NUL, the structure is the kernel's first version.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Mount a copy at a place.
pub fn attach(tree: OwnedFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), "", CWD, target, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_in_and_out() {
        let range = IdRange { first: 1000, count: 10 };
        assert_eq!((range.inside(1000), range.inside(1009)), (Some(0), Some(9)));
        assert_eq!((range.inside(999), range.inside(1010)), (None, None));
        assert_eq!((range.outside(9), range.outside(10)), (Some(1009), None));
    }
}
