//! Copying trees into a stage's root, and hashing what would be copied.
//!
//! Both walk the same way, so what a key is made of is what is written: kind, mode, owner, content and
//! link targets; not times of change, although those are kept on the copies.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use minke_common_dockerfile::ignore::Ignore;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fgetxattr, fsetxattr, futimens, mkdirat, symlinkat, utimensat,
};
use sha2::{Digest, Sha256};

use crate::build::cancel::Cancelled;
use crate::build::owners::Owner;
use crate::build::tree::{self, Child, MAX_DEPTH, Tree};

/// Who and how copies are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// `None` keeps each source's own.
    pub(crate) owner: Option<Owner>,
    /// `owner` was asked for: it also holds for what an archive brings.
    pub(crate) chown: bool,
    /// `None` keeps each source's own.
    pub(crate) mode: Option<u32>,
    /// Paths below a source that are left out.
    pub(crate) ignore: Ignore,
    /// Paths below a source that are left out by `--exclude`.
    pub(crate) exclude: Ignore,
    /// Told when nobody waits any more.
    pub(crate) cancelled: Cancelled,
}

impl Manner {
    fn owner(&self, stat: &Stat) -> Owner {
        self.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }

    fn mode(&self, stat: &Stat) -> u32 {
        self.mode.unwrap_or(stat.st_mode & 0o7777)
    }

    fn skips(&self, in_source: &str, in_context: &str) -> bool {
        self.ignore.excludes(in_context) || self.exclude.excludes(in_source)
    }
}

/// Something to copy: a file, link or directory of a tree.
pub(crate) struct From<'a> {
    pub(crate) tree: &'a Tree,
    /// Path in the tree, without a leading `/`; links in it are followed.
    pub(crate) path: String,
}

/// What a walk does with what it meets. Directories are told before what is in them.
trait Visitor {
    type Place;
    fn directory(
        &mut self,
        place: &Self::Place,
        name: &str,
        child: &Child,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Self::Place>;
    fn file(
        &mut self,
        place: &Self::Place,
        name: &str,
        child: &Child,
        file: File,
    ) -> io::Result<()>;
    fn link(&mut self, place: &Self::Place, name: &str, child: &Child, to: &str) -> io::Result<()>;
    fn leave(&mut self, _place: Self::Place, _stat: &Stat) -> io::Result<()> {
        Ok(())
    }
}

struct Walk<'a> {
    manner: &'a Manner,
    /// The source's path in its tree: `.dockerignore` speaks of the whole path.
    base: &'a str,
}

impl Walk<'_> {
    /// Visits everything in a directory. A directory that is left out is entered all the same while a
    /// `!` pattern may bring something in it back.
    fn inside<V: Visitor>(
        &self,
        visitor: &mut V,
        directory: BorrowedFd<'_>,
        place: &V::Place,
        path: &str,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            let what = format!("directories deeper than {MAX_DEPTH}; that is the limit");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        for child in tree::children(directory)? {
            self.manner.cancelled.check()?;
            let path = join(path, &child.name);
            let whole = join(self.base, &path);
            let skipped = self.manner.skips(&path, &whole);
            match child.kind() {
                FileType::Directory => {
                    let prunes =
                        self.manner.ignore.prunes(&whole) || self.manner.exclude.prunes(&path);
                    if skipped && (prunes || !self.keeps_below(directory, &child, &path, depth)?) {
                        continue;
                    }
                    let inner = tree::enter(directory, &child.name)?;
                    let below = visitor.directory(place, &child.name, &child, inner.as_fd())?;
                    self.inside(visitor, inner.as_fd(), &below, &path, depth + 1)?;
                    visitor.leave(below, &child.stat)?;
                }
                _ if skipped => {}
                FileType::RegularFile => {
                    let file = tree::read(directory, &child.name)?;
                    visitor.file(place, &child.name, &child, file)?;
                }
                FileType::Symlink => {
                    let to = tree::link(directory, &child.name)?;
                    visitor.link(place, &child.name, &child, &to)?;
                }
                // Sockets, pipes and devices have no content to copy.
                _ => {}
            }
        }
        Ok(())
    }

    fn keeps_below(
        &self,
        directory: BorrowedFd<'_>,
        child: &Child,
        path: &str,
        depth: usize,
    ) -> io::Result<bool> {
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        let inner = tree::enter(directory, &child.name)?;
        for grandchild in tree::children(inner.as_fd())? {
            let path = join(path, &grandchild.name);
            if !self.manner.skips(&path, &join(self.base, &path)) {
                return Ok(true);
            }
            if grandchild.kind() == FileType::Directory
                && self.keeps_below(inner.as_fd(), &grandchild, &path, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") }
}

/// Copies what is in a directory into a directory of another tree, which exists.
pub(crate) fn contents(from: &From<'_>, to: &Tree, path: &str, manner: &Manner) -> io::Result<()> {
    let source = from.tree.directory(&from.path)?;
    let walk = Walk { manner, base: &from.path };
    let place = Place { fd: to.directory(path)?, path: path.trim_matches('/').to_owned() };
    walk.inside(&mut Writer { manner, target: to }, source.as_fd(), &place, "", 0)
}

/// Copies one file to a name in a directory, replacing a file or link there.
pub(crate) fn file(
    from: &From<'_>,
    to: BorrowedFd<'_>,
    name: &str,
    manner: &Manner,
) -> io::Result<()> {
    let file = from.tree.file(&from.path)?;
    let stat = rustix::fs::fstat(&file)?;
    write_file(file, &stat, to, name, manner)
}

fn write_file(
    mut file: File,
    stat: &Stat,
    to: BorrowedFd<'_>,
    name: &str,
    manner: &Manner,
) -> io::Result<()> {
    tree::clear(to, name)?;
    let mut out = tree::create(to, name)?;
    let mut buffer = vec![0u8; 128 << 10];
    loop {
        manner.cancelled.check()?;
        match file.read(&mut buffer)? {
            0 => break,
            n => out.write_all(&buffer[..n])?,
        }
    }
    let Owner { uid, gid } = manner.owner(stat);
    fchown(&out, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    // After the owner: changing that takes set-id bits away.
    fchmod(&out, Mode::from_raw_mode(manner.mode(stat)))?;
    if manner.owner.is_none() {
        copy_capabilities(&file, &out)?;
    }
    futimens(&out, &times(stat))?;
    Ok(())
}

/// File capabilities are part of a program as much as its mode is.
fn copy_capabilities(from: &File, to: &File) -> io::Result<()> {
    const NAME: &str = "security.capability";
    let mut value = [0u8; 64];
    match fgetxattr(from, NAME, &mut value[..]) {
        Ok(length) => Ok(fsetxattr(to, NAME, &value[..length], XattrFlags::empty())?),
        Err(_) => Ok(()),
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// An open directory of the target and its path there.
struct Place {
    fd: OwnedFd,
    path: String,
}

/// Writes what it visits.
struct Writer<'a> {
    manner: &'a Manner,
    target: &'a Tree,
}

impl Visitor for Writer<'_> {
    type Place = Place;

    fn directory(
        &mut self,
        place: &Place,
        name: &str,
        child: &Child,
        _fd: BorrowedFd<'_>,
    ) -> io::Result<Place> {
        let path = join(&place.path, name);
        let made = match mkdirat(&place.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => tree::enter(place.fd.as_fd(), name)?,
            Err(rustix::io::Errno::EXIST) => match tree::enter(place.fd.as_fd(), name) {
                Ok(fd) => fd,
                // `/bin` is a link to `usr/bin` in most images: what is copied to it goes there.
                Err(_) => {
                    let linked = self.target.directory(&path).map_err(|_| {
                        let what = format!("cannot copy a directory over the file `/{path}`");
                        io::Error::new(io::ErrorKind::AlreadyExists, what)
                    })?;
                    return Ok(Place { fd: linked, path });
                }
            },
            Err(error) => return Err(error.into()),
        };
        let Owner { uid, gid } = self.manner.owner(&child.stat);
        fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&made, Mode::from_raw_mode(self.manner.mode(&child.stat)))?;
        Ok(Place { fd: made, path })
    }

    fn file(&mut self, place: &Place, name: &str, child: &Child, file: File) -> io::Result<()> {
        write_file(file, &child.stat, place.fd.as_fd(), name, self.manner)
    }

    fn link(&mut self, place: &Place, name: &str, child: &Child, to: &str) -> io::Result<()> {
        tree::clear(place.fd.as_fd(), name)?;
        symlinkat(to, &place.fd, name)?;
        let Owner { uid, gid } = self.manner.owner(&child.stat);
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&place.fd, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), no_follow)?;
        utimensat(&place.fd, name, &times(&child.stat), no_follow)?;
        Ok(())
    }

    fn leave(&mut self, place: Place, stat: &Stat) -> io::Result<()> {
        Ok(futimens(&place.fd, &times(stat))?)
    }
}

/// Hashes what it visits.
struct Hasher<'a> {
    manner: &'a Manner,
    digest: Sha256,
}

impl Hasher<'_> {
    fn head(&mut self, kind: u8, name: &str, stat: &Stat) {
        let Owner { uid, gid } = self.manner.owner(stat);
        let mode = if kind == b'l' { 0 } else { self.manner.mode(stat) };
        self.digest.update([kind]);
        self.text(name);
        for number in [mode, uid, gid] {
            self.digest.update(number.to_le_bytes());
        }
    }

    /// Length first: no two lists of texts look the same.
    fn text(&mut self, text: &str) {
        self.digest.update((text.len() as u64).to_le_bytes());
        self.digest.update(text);
    }

    fn content(&mut self, file: &mut File, stat: &Stat) -> io::Result<()> {
        self.digest.update((stat.st_size as u64).to_le_bytes());
        let mut buffer = vec![0u8; 128 << 10];
        loop {
            self.manner.cancelled.check()?;
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.digest.update(&buffer[..n]),
            }
        }
    }
}

impl Visitor for Hasher<'_> {
    type Place = ();

    fn directory(
        &mut self,
        _: &(),
        name: &str,
        child: &Child,
        _: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.head(b'd', name, &child.stat);
        Ok(())
    }

    fn file(&mut self, _: &(), name: &str, child: &Child, mut file: File) -> io::Result<()> {
        self.head(b'f', name, &child.stat);
        self.content(&mut file, &child.stat)
    }

    fn link(&mut self, _: &(), name: &str, child: &Child, to: &str) -> io::Result<()> {
        self.head(b'l', name, &child.stat);
        self.text(to);
        Ok(())
    }

    fn leave(&mut self, _: (), _: &Stat) -> io::Result<()> {
        self.digest.update(b".");
        Ok(())
    }
}

/// A digest of what copying this would write, whatever the name it gets.
pub(crate) fn digest(from: &From<'_>, manner: &Manner) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher { manner, digest: Sha256::new() };
    let found = rustix::fs::fstat(from.tree.find(&from.path)?)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        let source = from.tree.directory(&from.path)?;
        hasher.digest.update(b"D");
        let walk = Walk { manner, base: &from.path };
        walk.inside(&mut hasher, source.as_fd(), &(), "", 0)?;
    } else {
        let mut file = from.tree.file(&from.path)?;
        hasher.head(b'F', "", &found);
        hasher.content(&mut file, &found)?;
    }
    Ok(hasher.digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn from<'a>(tree: &'a Tree, path: &str) -> From<'a> {
        From { tree, path: path.to_owned() }
    }

    fn key(root: &Path, manner: &Manner) -> [u8; 32] {
        digest(&from(&Tree::open(root).unwrap(), ""), manner).unwrap()
    }

    #[test]
    fn copies_have_content_mode_owner_and_links() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "src/x/run", "hi");
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(a.path().join("src/x/run"), mode).unwrap();
        symlink("/etc/passwd", a.path().join("src/l")).unwrap();
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        let manner = Manner { owner: Some(Owner { uid: 5, gid: 6 }), ..Manner::default() };
        contents(&from(&source, "src"), &target, "", &manner).unwrap();
        let meta = std::fs::metadata(b.path().join("x/run")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o4755));
        assert_eq!(std::fs::read_link(b.path().join("l")).unwrap(), Path::new("/etc/passwd"));
        let link = std::fs::symlink_metadata(b.path().join("l")).unwrap();
        assert_eq!(link.uid(), 5);
    }

    #[test]
    fn a_copied_link_is_replaced_not_followed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::NamedTempFile::new().unwrap();
        write(a.path(), "f", "new");
        symlink(outside.path(), b.path().join("f")).unwrap();
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        let manner = Manner::default();
        contents(&from(&source, ""), &target, "", &manner).unwrap();
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
        assert_eq!(std::fs::read(b.path().join("f")).unwrap(), b"new");
    }

    #[test]
    fn the_key_sees_content_mode_owner_and_names_but_no_times() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/f", "one");
        let plain = Manner::default();
        let first = key(dir.path(), &plain);
        let old = std::time::SystemTime::UNIX_EPOCH;
        let file = File::open(dir.path().join("a/f")).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(key(dir.path(), &plain), first);
        let owned = Manner { owner: Some(Owner { uid: 9, gid: 9 }), ..Manner::default() };
        assert_ne!(key(dir.path(), &owned), first);
        std::fs::set_permissions(dir.path().join("a/f"), std::fs::Permissions::from_mode(0o711))
            .unwrap();
        let second = key(dir.path(), &plain);
        assert_ne!(second, first);
        write(dir.path(), "a/f", "two");
        let third = key(dir.path(), &plain);
        assert_ne!(third, second);
        std::fs::rename(dir.path().join("a/f"), dir.path().join("a/g")).unwrap();
        assert_ne!(key(dir.path(), &plain), third);
    }

    #[test]
    fn what_is_ignored_is_neither_copied_nor_hashed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "src/keep", "1");
        write(a.path(), "src/.git/config", "1");
        write(a.path(), "out/deep/wanted", "1");
        let ignore = Ignore::parse("**/.git\nout\n!out/deep/wanted\n*.tmp").unwrap();
        let manner = Manner { ignore, ..Manner::default() };
        let before = key(a.path(), &manner);
        write(a.path(), "src/.git/HEAD", "2");
        write(a.path(), "x.tmp", "2");
        write(a.path(), "out/other", "2");
        assert_eq!(key(a.path(), &manner), before);
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        contents(&from(&source, ""), &target, "", &manner).unwrap();
        assert!(b.path().join("out/deep/wanted").exists() && b.path().join("src/keep").exists());
        for gone in ["src/.git", "x.tmp", "out/other"] {
            assert!(!b.path().join(gone).exists(), "{gone}");
        }
    }

    #[test]
    fn a_directory_goes_where_a_link_of_its_name_leads_inside_the_tree() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "bin/tool", "x");
        std::fs::create_dir_all(b.path().join("usr/bin")).unwrap();
        symlink("/usr/bin", b.path().join("bin")).unwrap();
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        contents(&from(&source, ""), &target, "", &Manner::default()).unwrap();
        assert!(b.path().join("usr/bin/tool").exists());
        assert!(b.path().join("bin").is_symlink());
    }

    #[test]
    fn a_cancelled_copy_stops() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "f", "x");
        let manner = Manner::default();
        manner.cancelled.set();
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        let result = contents(&from(&source, ""), &target, "", &manner);
        assert!(result.unwrap_err().to_string().contains("cancelled"));
    }
}
