//! Copying trees into a stage's root. Times of change are kept, although no key knows them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fgetxattr, fsetxattr, futimens, linkat, mkdirat, mknodat, symlinkat, utimensat,
};

use crate::build::owners::Owner;
use crate::build::tree::{self, Child, Tree};
use crate::build::walk::{From, Manner, Visitor, Walk, join};

/// Most files whose further names are remembered while a directory is copied; others become copies.
const MAX_LINKED: usize = 4096;

/// Copies what is in a directory into a directory of another tree, which exists.
pub(crate) fn contents(from: &From<'_>, to: &Tree, path: &str, manner: &Manner) -> io::Result<()> {
    let source = from.tree.directory(&from.path)?;
    let walk = Walk { manner };
    let place = Place { fd: Rc::new(to.directory(path)?), path: path.trim_matches('/').to_owned() };
    let mut writer = Writer { manner, target: to, linked: HashMap::new() };
    walk.inside(&mut writer, source.as_fd(), &place, "", 0)
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
pub(crate) const CAPABILITY: &str = "security.capability";

fn copy_capabilities(from: &File, to: &File) -> io::Result<()> {
    let mut value = [0u8; 64];
    match fgetxattr(from, CAPABILITY, &mut value[..]) {
        Ok(length) => Ok(fsetxattr(to, CAPABILITY, &value[..length], XattrFlags::empty())?),
        Err(_) => Ok(()),
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// An open directory of the target and its path there.
struct Place {
    fd: Rc<OwnedFd>,
    path: String,
}

/// Writes what it visits.
struct Writer<'a> {
    manner: &'a Manner,
    target: &'a Tree,
    /// Where files with several names were first written, by device and inode.
    linked: HashMap<(u64, u64), (Rc<OwnedFd>, String)>,
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
                    return Ok(Place { fd: Rc::new(linked), path });
                }
            },
            Err(error) => return Err(error.into()),
        };
        let Owner { uid, gid } = self.manner.owner(&child.stat);
        fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&made, Mode::from_raw_mode(self.manner.mode(&child.stat)))?;
        Ok(Place { fd: Rc::new(made), path })
    }

    fn file(&mut self, place: &Place, name: &str, child: &Child, file: File) -> io::Result<()> {
        if child.stat.st_nlink > 1 {
            let inode = (child.stat.st_dev, child.stat.st_ino);
            if let Some((first, other)) = self.linked.get(&inode) {
                tree::clear(place.fd.as_fd(), name)?;
                return Ok(linkat(first, other, &place.fd, name, AtFlags::empty())?);
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(inode, (place.fd.clone(), name.to_owned()));
            }
        }
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

    fn node(&mut self, place: &Place, name: &str, child: &Child) -> io::Result<()> {
        tree::clear(place.fd.as_fd(), name)?;
        mknodat(&place.fd, name, child.kind(), Mode::from_raw_mode(0o600), child.stat.st_rdev)?;
        let Owner { uid, gid } = self.manner.owner(&child.stat);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&place.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(self.manner.mode(&child.stat));
        // Just made here, so it is no link.
        chmodat(&place.fd, name, mode, AtFlags::empty())?;
        Ok(utimensat(&place.fd, name, &times(&child.stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn leave(&mut self, place: Place, stat: &Stat) -> io::Result<()> {
        Ok(futimens(&place.fd, &times(stat))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::hash::digest;
    use minke_common_dockerfile::ignore::Ignore;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    #[test]
    fn names_of_one_file_stay_names_of_one_file() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "x/one", "content");
        std::fs::hard_link(a.path().join("x/one"), a.path().join("two")).unwrap();
        let (source, target) = (Tree::open(a.path()).unwrap(), Tree::open(b.path()).unwrap());
        contents(&from(&source, ""), &target, "", &Manner::default()).unwrap();
        let inode = |path| std::fs::metadata(b.path().join(path)).unwrap().ino();
        assert_eq!(inode("x/one"), inode("two"));
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn from<'a>(tree: &'a Tree, path: &str) -> From<'a> {
        From { tree, path: path.to_owned() }
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
    fn what_is_ignored_is_neither_copied_nor_hashed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), "src/keep", "1");
        write(a.path(), "src/.git/config", "1");
        write(a.path(), "out/deep/wanted", "1");
        let exclude = Ignore::parse("**/.git\nout\n!out/deep/wanted\n*.tmp").unwrap();
        let manner = Manner { exclude, ..Manner::default() };
        let key = |root| digest(&from(&Tree::open(root).unwrap(), ""), &manner).unwrap();
        let before = key(a.path());
        write(a.path(), "src/.git/HEAD", "2");
        write(a.path(), "x.tmp", "2");
        write(a.path(), "out/other", "2");
        assert_eq!(key(a.path()), before);
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
