//! Unpacks archives, with the container's root as the root of the calling thread.
//!
//! Invariant: nothing outside of the destination is made, changed or removed, also while the container
//! moves its own files about. Names are cut down to their plain parts once, and `..` is refused. A
//! directory on the way to an entry is looked at after links in it are followed, and then opened without
//! following any; what is in it is made, changed and removed by its descriptor.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use minke_engine_images::Limits;
use minke_engine_images::layer::{Entry, Kind, Mtime, TarReader, may_set, timestamps};
use minke_engine_runtime::privileges::as_owner;
use minke_engine_runtime::spec::Accounts;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::pack::plainly;
use crate::options::IdRange;
use crate::removal::remove_tree_at;

/// Directories whose times are set at the end, in bytes of their paths.
const MOST_DIRECTORY_NAMES: usize = 32 << 20;

/// How an archive is unpacked.
#[derive(Debug, Clone, Default)]
pub(super) struct Unpacking {
    /// A directory and what is none do not take each other's place.
    pub(super) keep_kinds: bool,
    /// Host ids that stand for the owners.
    pub(super) users: Option<IdRange>,
    /// Everything belongs to this user (`user[:group]` as in a container's configuration), whatever the
    /// archive says.
    pub(super) owner: Option<String>,
}

/// Whether something can be unpacked at a path: it is a directory that can be written to.
pub(super) fn check(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    match rustix::fs::statvfs(path)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        true => Err(Errno::ROFS.into()),
        false => Ok(()),
    }
}

/// Unpacks a tar into the existing directory `path`.
pub(super) fn unpack(path: &Path, reader: impl Read, how: &Unpacking) -> io::Result<()> {
    check(path)?;
    let owner = match &how.owner {
        None => None,
        Some(user) => {
            let accounts = Accounts::read(Path::new("/"))?;
            let identity = accounts.resolve(user, &[]);
            let identity = identity.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            Some((u64::from(identity.uid), u64::from(identity.gid)))
        }
    };
    let root = path.canonicalize()?;
    let mut unpacker =
        Unpacker { root, how, owner, parent: None, directories: Vec::new(), directory_names: 0 };
    match how.users {
        None => unpacker.all(reader),
        // The host's root is nobody in there, and can make nothing.
        Some(range) => as_owner(range.first, || unpacker.all(reader)),
    }
}

struct Unpacker<'a> {
    /// The destination, without links.
    root: PathBuf,
    how: &'a Unpacking,
    owner: Option<(u64, u64)>,
    /// The last directory that was found to be inside of the destination.
    parent: Option<(PathBuf, OwnedFd)>,
    directories: Vec<(PathBuf, Mtime)>,
    directory_names: usize,
}

/// Where an entry goes.
#[derive(Clone, Copy)]
struct Spot<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
    /// For what is said of it.
    path: &'a Path,
}

impl Unpacker<'_> {
    fn all(&mut self, reader: impl Read) -> io::Result<()> {
        // Only the container's disk limits what a client may put there.
        let limits = Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() };
        let mut tar = TarReader::new(reader, limits);
        let mut raw = Vec::new();
        while let Some(entry) = tar.entry(&mut raw).map_err(plainly)? {
            self.entry(&entry, &mut tar)?;
            tar.padding(entry.size, &mut raw).map_err(plainly)?;
            raw.clear();
        }
        // Every file made in a directory changes its time.
        for (path, mtime) in &self.directories {
            match self.date(path, *mtime) {
                // A later entry has taken its place.
                Err(error) if is_missing(&error) => {}
                dated => dated?,
            }
        }
        Ok(())
    }

    fn date(&self, path: &Path, mtime: Mtime) -> io::Result<()> {
        let parent = self.directory(path.parent().unwrap_or(&self.root))?;
        let (name, times) = (path.file_name().unwrap_or_default(), timestamps(mtime));
        Ok(utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
        let path = self.inside(&entry.name)?;
        let (Some(above), Some(name), false) = (path.parent(), path.file_name(), path == self.root)
        else {
            return match entry.kind {
                // The destination stays as it is.
                Kind::Directory => Ok(()),
                _ => Err(refused("an entry has no name".to_owned())),
            };
        };
        let parent = self.parent_at(above)?;
        let spot = Spot { parent: parent.as_fd(), name, path: &path };
        self.make(spot, entry, tar)?;
        if entry.kind == Kind::Directory {
            self.date_later(&path, entry.mtime)?;
        }
        // What comes next goes mostly to the same place.
        self.parent = Some((above.to_owned(), parent));
        Ok(())
    }

    /// Where an entry goes.
    fn inside(&self, name: &[u8]) -> io::Result<PathBuf> {
        let mut path = self.root.clone();
        for part in Path::new(name_of(name)).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(refused(format!("the name {name:?} in the archive leads outside")));
                }
                _ => {}
            }
        }
        Ok(path)
    }

    /// The directory that entries at a path are in, which is made if it is not there.
    fn parent_at(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((known, parent)) = self.parent.take()
            && known == path
        {
            return Ok(parent);
        }
        let mut at = self.root.clone();
        let mut parent = self.directory(&at)?;
        for part in path.strip_prefix(&self.root).unwrap_or(path).components() {
            at.push(part);
            match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            parent = self.directory(&at)?;
        }
        Ok(parent)
    }

    /// Opens a directory of the destination; links that stay inside are followed.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let outside = || refused(format!("the link {} leads outside", path.display()));
        let real = path.canonicalize()?;
        if !real.starts_with(&self.root) {
            return Err(outside());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(CWD, &real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            // Since it was looked at, somebody has put a link there.
            Err(Errno::LOOP) => Err(outside()),
            opened => Ok(opened?),
        }
    }

    fn make<R: Read>(
        &self,
        spot: Spot<'_>,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> io::Result<()> {
        let there = self.make_way(spot, entry)?;
        match entry.kind {
            Kind::Directory => {
                if !there {
                    mkdirat(spot.parent, spot.name, Mode::from_raw_mode(0o700))?;
                }
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(spot.parent, spot.name, flags, Mode::empty())?;
                self.style(made.as_fd(), entry)
            }
            Kind::File => {
                let made = write_file(spot, entry, tar)?;
                self.style(made.as_fd(), entry)?;
                Ok(futimens(&made, &timestamps(entry.mtime))?)
            }
            // Whose file it is was said with the file.
            Kind::Hardlink => self.hard_link(spot, entry),
            Kind::Symlink => {
                symlinkat(name_of(&entry.link), spot.parent, spot.name)?;
                self.finish(spot, entry)
            }
            Kind::Character | Kind::Block | Kind::Fifo => match make_node(spot, entry) {
                // A container in a user namespace could use none.
                Err(Errno::PERM) if self.how.users.is_some() => Ok(()),
                made => made.map_err(io::Error::from).and_then(|()| self.finish(spot, entry)),
            },
        }
    }

    /// Takes away what is there, but for a directory that stays one. Answers whether that is so.
    fn make_way(&self, spot: Spot<'_>, entry: &Entry) -> io::Result<bool> {
        let there = match statat(spot.parent, spot.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            there => FileType::from_raw_mode(there?.st_mode) == FileType::Directory,
        };
        let directory = entry.kind == Kind::Directory;
        if there && directory {
            return Ok(true);
        }
        let path = spot.path.display();
        if self.how.keep_kinds && there != directory {
            return Err(refused(format!("cannot overwrite {path} by something of another kind")));
        }
        let removed = match there {
            true => remove_tree_at(spot.parent, spot.name),
            false => unlinkat(spot.parent, spot.name, AtFlags::empty()).map_err(io::Error::from),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(refused(format!(
                "cannot overwrite {path}: something is mounted there in the container"
            ))),
            removed => removed.map(|()| false),
        }
    }

    fn hard_link(&self, spot: Spot<'_>, entry: &Entry) -> io::Result<()> {
        let target = self.inside(&entry.link)?;
        let parent = self.directory(target.parent().unwrap_or(&self.root))?;
        let name = target.file_name().unwrap_or_default();
        Ok(linkat(&parent, name, spot.parent, spot.name, AtFlags::empty())?)
    }

    fn owners(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let outside = |id: u64| {
            let id = u32::try_from(id).ok()?;
            self.how.users.map_or(Some(id), |users| users.outside(id))
        };
        (outside(uid).map(Uid::from_raw), outside(gid).map(Gid::from_raw))
    }

    /// Owner first, then mode, then attributes: a change of owner drops set-user-id and capabilities.
    fn style(&self, made: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owners(entry);
        fchown(made, uid, gid)?;
        fchmod(made, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| may_set(name)) {
            match fsetxattr(made, name_of(name), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM) if self.how.users.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Owner and time of what has no descriptor: links, devices and pipes.
    fn finish(&self, spot: Spot<'_>, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owners(entry);
        chownat(spot.parent, spot.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let times = timestamps(entry.mtime);
        Ok(utimensat(spot.parent, spot.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn date_later(&mut self, path: &Path, mtime: Mtime) -> io::Result<()> {
        self.directory_names += path.as_os_str().len() + size_of::<(PathBuf, Mtime)>();
        if self.directory_names > MOST_DIRECTORY_NAMES {
            return Err(refused(format!(
                "the names of the archive's directories are over the limit of {MOST_DIRECTORY_NAMES} bytes"
            )));
        }
        self.directories.push((path.to_owned(), mtime));
        Ok(())
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn name_of(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Makes a node with its mode: to give it one later, links would be followed.
fn make_node(spot: Spot<'_>, entry: &Entry) -> Result<(), Errno> {
    let (kind, device) = match entry.kind {
        Kind::Character => (FileType::CharacterDevice, entry.device),
        Kind::Block => (FileType::BlockDevice, entry.device),
        _ => (FileType::Fifo, (0, 0)),
    };
    let mode = Mode::from_raw_mode(entry.mode);
    mknodat(spot.parent, spot.name, kind, mode, makedev(device.0, device.1))
}

/// Makes a file with its content: as a whole, or not at all.
fn write_file<R: Read>(spot: Spot<'_>, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(spot.parent, spot.name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(made);
    let filled = fill(&mut file, entry, tar);
    if filled.is_err() {
        // What broke it off is what the caller hears.
        let _ = unlinkat(spot.parent, spot.name, AtFlags::empty());
    }
    filled.map(|()| file)
}

fn fill<R: Read>(file: &mut File, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
    let whole = [(0, entry.size)];
    let segments = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.segments[..]);
    for (offset, length) in segments {
        file.seek(SeekFrom::Start(*offset))?;
        let mut left = *length;
        while left > 0 {
            let piece = tar.stream.piece(left).map_err(plainly)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(piece)?;
            left -= piece.len() as u64;
        }
    }
    if let Some(sparse) = &entry.sparse {
        file.set_len(sparse.real_size)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
