//! Removes trees that containers have made.
//!
//! They may be deeper than a process may have files open, and may have been mounted on. So only a few
//! directories are open at a time, no link is followed, and no mount is entered: what is in there belongs to
//! somebody else.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::ids;

/// How many directories are open at most, one in another. What is deeper is moved up first.
const DEPTH: usize = 16;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory and everything below it. Goes on after a failure, and says the first.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = openat(CWD, path, DIRECTORY, Mode::empty())?;
    empty(&top)?;
    fs::remove_dir(path)
}

/// Removes what has this name in a directory, with everything below it. That something is mounted in there
/// is a failure of the kind [`io::ErrorKind::ResourceBusy`].
pub(crate) fn remove_tree_at(parent: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = CString::new(name.as_ref().as_bytes())?;
    match unlinkat(parent, &*name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        removed => return Ok(removed?),
    }
    empty(&enter(parent, &name)?)?;
    Ok(unlinkat(parent, &*name, AtFlags::REMOVEDIR)?)
}

fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut removal = Removal { top: top.as_fd(), moved: true, failure: None };
    while std::mem::take(&mut removal.moved) {
        removal.empty(Dir::read_from(top)?, 1);
    }
    removal.failure.map_or(Ok(()), Err)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// Something was moved to the top, which may have been read already.
    moved: bool,
    failure: Option<io::Error>,
}

impl Removal<'_> {
    fn empty(&mut self, mut directory: Dir, depth: usize) {
        // It ends after an error.
        while let Some(entry) = directory.read() {
            let removed = entry.map_err(io::Error::from).and_then(|entry| {
                match entry.file_name().to_bytes() {
                    b"." | b".." => Ok(()),
                    _ => self.remove(directory.fd()?, entry.file_name(), depth),
                }
            });
            self.failure = self.failure.take().or(removed.err());
        }
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        if depth == DEPTH {
            // No name that is there already.
            renameat(parent, name, self.top, ids::random())?;
            self.moved = true;
            return Ok(());
        }
        self.empty(Dir::new(enter(parent, name)?)?, depth + 1);
        Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }
}

/// Opens a directory, if nothing is mounted on it.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    match openat2(parent, name, DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV) {
        Err(Errno::XDEV) => {
            let name = name.to_string_lossy();
            let why = format!("something is mounted on the directory {name:?}");
            Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
        }
        opened => Ok(opened?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
    };
    use rustix::process::{Resource, getrlimit, setrlimit};
    use rustix::thread::UnshareFlags;

    /// Makes directories one in another, longer than a path may be.
    fn nest(top: &Path, depth: usize) {
        let mut here: OwnedFd = openat(CWD, top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&here, "deep", Mode::RWXU).unwrap();
            openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            here = openat(&here, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_descriptors_go_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for branch in ["one", "two"] {
            fs::create_dir_all(top.join(branch)).unwrap();
            nest(&top.join(branch), 3000);
        }
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(64), ..before })
            .unwrap();
        let removed = remove_tree(&top);
        setrlimit(Resource::Nofile, before).unwrap();
        removed.unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn neither_links_nor_mounts_are_gone_through_and_all_else_goes() {
        // SAFETY: only this thread gets a mount namespace of its own, which goes with it.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS).unwrap() };
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        for path in [top.join("a/mounted"), top.join("b/c"), outside.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("file"), "").unwrap();
        symlink(&outside, top.join("b/link")).unwrap();
        let mounted = top.join("a/mounted");
        mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(mounted.join("file"), "").unwrap();
        let error = remove_tree(&top).unwrap_err().to_string();
        assert!(error.contains("mounted"), "{error}");
        assert!(mounted.join("file").exists() && !top.join("b").exists());
        unmount(&mounted, UnmountFlags::DETACH).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists() && outside.join("file").exists());
    }
}
