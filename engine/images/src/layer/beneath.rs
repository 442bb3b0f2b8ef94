//! Opening paths inside a layer's view so that no link can lead out of it.
//!
//! Every lookup goes through openat2: first without any symbolic link, which is the common case and proves
//! that the path is what it says; only then following links, with the view as `/`. Needs Linux 5.6.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlink};
use rustix::io::Errno;

use crate::layer::LayerError;
use crate::layer::names;

/// The root of a view, and the directory used last.
pub(crate) struct Beneath {
    root: OwnedFd,
    root_path: Vec<u8>,
    last: Option<Directory>,
}

/// An open directory and where it really is.
struct Directory {
    asked: Vec<u8>,
    real: Vec<u8>,
    fd: OwnedFd,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Beneath {
    pub(crate) fn open(root: &Path) -> Result<Self, LayerError> {
        let failed = |source: Errno| LayerError::Io {
            doing: "opening",
            path: root.to_owned(),
            source: source.into(),
        };
        let root = openat(rustix::fs::CWD, root, DIRECTORY, Mode::empty()).map_err(failed)?;
        let root_path = real_path(root.as_fd()).map_err(failed)?;
        Ok(Self { root, root_path, last: None })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Forgets the directory used last: something on the way to it was replaced.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// Opens the directory `path`, making what is missing, and says where it really is.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, &[u8]), LayerError> {
        if self.last.as_ref().is_none_or(|last| last.asked != path) {
            let (fd, real) = match self.plain(path, DIRECTORY) {
                Ok(fd) => (fd, path.to_vec()),
                Err(_) => {
                    let fd = match self.lookup(path) {
                        Ok(fd) => fd,
                        Err(Errno::NOENT) => self.make_all(path)?,
                        Err(error) => return Err(lookup_error(path, error)),
                    };
                    let real = self.real(fd.as_fd(), path)?;
                    (fd, real)
                }
            };
            self.last = Some(Directory { asked: path.to_vec(), real, fd });
        }
        match &self.last {
            Some(last) => Ok((last.fd.as_fd(), &last.real)),
            None => Err(LayerError::Parent(names::show(path))),
        }
    }

    /// Opens the directory `path` if it is there, links followed inside the view.
    pub(crate) fn lookup(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match self.plain(path, DIRECTORY) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                openat2(&self.root, names::to_path(path), DIRECTORY, Mode::empty(), flags)
            }
            other => other,
        }
    }

    /// Opens `path` if no part of it is a symbolic link.
    pub(crate) fn plain(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.root, names::to_path(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Opens the regular file `path` to be read, if that is what it is and no part of it is a link.
    pub(crate) fn file(&self, path: &[u8]) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        open_file(&self.root, names::to_path(path), resolve)
    }

    fn real(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        let full = real_path(fd).map_err(|error| LayerError::io("resolving", path, error))?;
        match full.strip_prefix(&self.root_path[..]) {
            Some(b"") => Ok(Vec::new()),
            Some([b'/', rest @ ..]) => Ok(rest.to_vec()),
            _ => Err(LayerError::Escape(names::show(path))),
        }
    }

    /// Makes the directories of `path` that are missing, 0755 and root's, as Docker's daemon would.
    fn make_all(&self, path: &[u8]) -> Result<OwnedFd, LayerError> {
        let mut here = self.lookup(b"").map_err(|error| lookup_error(path, error))?;
        let mut done = Vec::new();
        for name in path.split(|b| *b == b'/') {
            done = names::join(&done, name);
            here = match self.lookup(&done) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    mkdirat(&here, names::to_path(name), Mode::from_raw_mode(0o755))
                        .map_err(|error| lookup_error(&done, error))?;
                    openat(&here, names::to_path(name), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(|error| lookup_error(&done, error))?
                }
                Err(error) => return Err(lookup_error(&done, error)),
            };
        }
        Ok(here)
    }
}

/// Opens a regular file to be read. What it is is seen before: a device may do something when it is opened.
pub(crate) fn open_file(root: impl AsFd, path: &Path, resolve: ResolveFlags) -> io::Result<File> {
    let found = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

fn lookup_error(path: &[u8], error: Errno) -> LayerError {
    match error {
        // EEXIST: a link that points to nothing stands where a directory is needed.
        Errno::NOTDIR | Errno::LOOP | Errno::EXIST | Errno::NOENT => {
            LayerError::Parent(names::show(path))
        }
        Errno::XDEV => LayerError::Escape(names::show(path)),
        error => LayerError::io("opening", path, error),
    }
}

fn real_path(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    readlink(link, Vec::new()).map(std::ffi::CString::into_bytes)
}
