//! A directory tree whose links cannot lead out of it.
//!
//! Every path is looked up by openat2 with the tree's top as `/`. A directory that was opened stays the
//! one that was checked: what is made is made relative to its descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fchmod, mkdirat, openat,
    openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::removal::remove_tree_at;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How deep directories are followed.
pub(crate) const MAX_DEPTH: usize = 128;

/// A tree.
#[derive(Debug)]
pub(crate) struct Tree {
    top: OwnedFd,
}

impl Tree {
    /// The tree below a directory.
    pub(crate) fn open(path: &Path) -> io::Result<Tree> {
        Ok(Tree { top: openat(CWD, path, DIRECTORY, Mode::empty())? })
    }

    fn look(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.top, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// Anything, as a descriptor that only names it; links are followed.
    pub(crate) fn find(&self, path: &str) -> io::Result<OwnedFd> {
        self.look(path, OFlags::PATH)
    }

    /// A directory.
    pub(crate) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.look(path, DIRECTORY)
    }

    /// A regular file, for reading. Nothing else is opened: some devices do something by that alone.
    pub(crate) fn file(&self, path: &str) -> io::Result<File> {
        let found = self.find(path)?;
        let stat = rustix::fs::fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(File::from(openat(CWD, known(found.as_fd()), flags, Mode::empty())?))
    }

    /// What is at a path, links followed; `None` when nothing is.
    pub(crate) fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        match self.find(path) {
            Ok(fd) => Ok(Some(rustix::fs::fstat(&fd)?)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A small text file.
    pub(crate) fn text(&self, path: &str, limit: u64) -> io::Result<Option<String>> {
        use io::Read;
        let file = match self.file(path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(limit + 1).read_to_string(&mut text)?;
        if text.len() as u64 > limit {
            let what = format!("more than {limit} bytes; that is the limit");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Some(text))
    }

    /// Its topmost directory.
    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// A directory, made with its parents where missing. `made` is called with each new one.
    pub(crate) fn make_directory(
        &self,
        path: &str,
        made: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let mut done = String::new();
        let mut here = self.directory("")?;
        for name in path.split('/').filter(|n| !n.is_empty() && *n != ".") {
            if name == ".." {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "`..` in a clean path"));
            }
            done.push('/');
            done.push_str(name);
            here = match self.directory(&done) {
                Ok(fd) => fd,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let fd = make_one(here.as_fd(), name)?;
                    made(fd.as_fd())?;
                    fd
                }
                Err(error) => return Err(error),
            };
        }
        Ok(here)
    }
}

/// Directories are nested too deep.
pub(crate) fn too_deep() -> io::Error {
    let what = format!("directories deeper than {MAX_DEPTH}; that is the limit");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Whether a path names nothing, also for want of a directory on the way.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a directory and opens it. A dangling link in its place is an error, not followed.
fn make_one(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let fd = openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    // The process's umask took bits away.
    fchmod(&fd, Mode::from_raw_mode(0o755))?;
    Ok(fd)
}

/// A name in a directory and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) stat: Stat,
}

impl Child {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What is in a directory, by name. Names that are no UTF-8 are an error: a tar could not say them.
pub(crate) fn children(directory: BorrowedFd<'_>) -> io::Result<Vec<Child>> {
    let own = openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut out = Vec::new();
    for entry in Dir::read_from(&own)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let name = std::str::from_utf8(bytes).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "a file name that is no UTF-8")
        })?;
        let stat = statat(&own, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        out.push(Child { name: name.to_owned(), stat });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// What a name in a directory is, not followed; `None` when there is nothing.
pub(crate) fn entry(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Stat>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a name in a directory without following it.
pub(crate) fn enter(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Opens a regular file in a directory without following it.
pub(crate) fn read(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    Ok(File::from(file))
}

/// Where a link points.
pub(crate) fn link(directory: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let target = readlinkat(directory, name, Vec::new())?;
    target
        .into_string()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a link that is no UTF-8"))
}

/// Removes a file or link of this name; a directory is an error, nothing is not.
pub(crate) fn clear(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let what = format!("cannot replace the directory `{name}` by a file");
            Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what has this name, a directory with everything in it; nothing is no error.
pub(crate) fn replace(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match remove_tree_at(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes a new file of this name, empty and writable.
pub(crate) fn create(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    Ok(File::from(file))
}

/// The host's path of an open file or directory.
pub(crate) fn host_path(fd: BorrowedFd<'_>) -> io::Result<std::path::PathBuf> {
    let target = rustix::fs::readlink(known(fd), Vec::new())?;
    Ok(Path::new(OsStr::from_bytes(target.as_bytes())).to_owned())
}

/// The name by which this process finds what is open.
fn known(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("/etc", dir.path().join("abs")).unwrap();
        symlink("../../../../etc", dir.path().join("usr/up")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for path in ["etc/passwd", "/etc/passwd", "abs/passwd", "usr/up/passwd", "../../etc/passwd"]
        {
            assert_eq!(tree.text(path, 100).unwrap().as_deref(), Some("inside"), "{path}");
        }
        let mut made = 0;
        tree.make_directory("/bin/a/b", &mut |_| {
            made += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(made, 2);
        assert!(dir.path().join("usr/bin/a/b").is_dir());
        assert!(tree.text("etc/passwd", 3).unwrap_err().to_string().contains("limit"));
        assert!(tree.stat("nothing").unwrap().is_none());
    }

    #[test]
    fn only_regular_files_are_opened() {
        use rustix::fs::{makedev, mknodat};
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "text").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        // No driver has this number: to open it fails in another way.
        for (name, kind, device) in
            [("pipe", FileType::Fifo, 0), ("device", FileType::CharacterDevice, makedev(4000, 7))]
        {
            mknodat(CWD, dir.path().join(name), kind, Mode::RUSR, device).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(io::read_to_string(tree.file("link").unwrap()).unwrap(), "text");
        for name in ["pipe", "device", ""] {
            assert_eq!(tree.file(name).unwrap_err().to_string(), "not a regular file", "{name}");
        }
    }
}
