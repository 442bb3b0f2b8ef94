//! A container's upper directory as a layer's tar: sorted names, overlayfs's whiteouts as Docker's.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat,
};
use tar::EntryType;

use crate::layer::entry::Attribute;
use crate::layer::header::{Item, attributes, write_error};
use crate::layer::style::OPAQUE_XATTR;
use crate::layer::unpack::{OPAQUE, WHITEOUT, is_whiteout};
use crate::layer::{LayerError, names};
use crate::options::Limits;

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    /// Entries written.
    pub entries: u64,
}

/// Writes `upper` as a tar. Sockets are left out, as Docker does.
pub fn pack(upper: &Path, into: impl Write, limits: &Limits) -> Result<Packed, LayerError> {
    pack_without(upper, into, limits, &BTreeSet::new())
}

/// The same without some paths (relative, without a slash in front) and all below them.
pub fn pack_without(
    upper: &Path,
    into: impl Write,
    limits: &Limits,
    without: &BTreeSet<PathBuf>,
) -> Result<Packed, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(rustix::fs::CWD, upper, flags, Mode::empty()).map_err(|error| {
        LayerError::Io { doing: "opening", path: upper.to_owned(), source: error.into() }
    })?;
    let mut packer =
        Packer { into, limits, without, packed: Packed::default(), links: HashMap::new() };
    packer.directory(root, b"", 0)?;
    packer.into.write_all(&[0; 1024]).map_err(write_error)?;
    packer.into.flush().map_err(write_error)?;
    Ok(packer.packed)
}

struct Packer<'a, W> {
    into: W,
    limits: &'a Limits,
    without: &'a BTreeSet<PathBuf>,
    packed: Packed,
    /// First name of each file with several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, fd: OwnedFd, path: &[u8], depth: usize) -> Result<(), LayerError> {
        if depth > self.limits.depth {
            let limit = self.limits.depth as u64;
            return Err(LayerError::Limit { what: "the depth of a path", limit });
        }
        let failed = |error| LayerError::io("listing", path, error);
        let mut found = Vec::new();
        for item in Dir::read_from(&fd).map_err(failed)? {
            let name = item.map_err(failed)?.file_name().to_bytes().to_vec();
            if !matches!(&name[..], b"." | b"..") {
                found.push(name);
            }
        }
        found.sort_unstable();
        for name in found {
            self.item(&fd, &name, &names::join(path, &name), depth)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), LayerError> {
        if !self.without.is_empty() && self.without.contains(names::to_path(path)) {
            return Ok(());
        }
        let file = names::to_path(name);
        let stat = statat(parent, file, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| LayerError::io("looking at", path, error))?;
        if is_whiteout(&stat) {
            let hidden = names::join(names::split(path).0, &[WHITEOUT, name].concat());
            return self.header(&hidden, EntryType::Regular, None, 0, b"", &[]);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode).cloned() {
                return self.header(path, EntryType::Link, Some(&stat), 0, &first, &[]);
            }
            self.links.insert(inode, path.to_vec());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || {
            openat(parent, file, flags, Mode::empty())
                .map_err(|error| LayerError::io("opening", path, error))
        };
        match kind {
            FileType::Directory => {
                let fd = open()?;
                let xattrs = attributes(&fd, path)?;
                let slashed = [path, b"/"].concat();
                self.header(&slashed, EntryType::Directory, Some(&stat), 0, b"", &xattrs)?;
                if is_opaque(&fd) {
                    let mark = names::join(path, OPAQUE);
                    self.header(&mark, EntryType::Regular, None, 0, b"", &[])?;
                }
                self.directory(fd, path, depth + 1)
            }
            FileType::RegularFile => self.file(open()?, &stat, path),
            FileType::Symlink => {
                let target = readlinkat(parent, file, Vec::new())
                    .map_err(|error| LayerError::io("reading", path, error))?;
                let target = target.to_bytes();
                self.header(path, EntryType::Symlink, Some(&stat), 0, target, &[])
            }
            FileType::CharacterDevice => {
                self.header(path, EntryType::Char, Some(&stat), 0, b"", &[])
            }
            FileType::BlockDevice => self.header(path, EntryType::Block, Some(&stat), 0, b"", &[]),
            FileType::Fifo => self.header(path, EntryType::Fifo, Some(&stat), 0, b"", &[]),
            _ => Ok(()),
        }
    }

    fn file(&mut self, fd: OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), LayerError> {
        let xattrs = attributes(&fd, path)?;
        let size = stat.st_size as u64;
        self.header(path, EntryType::Regular, Some(stat), size, b"", &xattrs)?;
        let mut contents = File::from(fd).take(size);
        let mut buffer = vec![0; 128 << 10];
        let mut written = 0;
        loop {
            let read = contents
                .read(&mut buffer)
                .map_err(|error| LayerError::io("reading", path, error))?;
            if read == 0 {
                break;
            }
            written += read as u64;
            self.into.write_all(&buffer[..read]).map_err(write_error)?;
        }
        if written != size {
            return Err(LayerError::damaged(path, "it shrank while it was packed"));
        }
        let padding = size.next_multiple_of(512) - size;
        self.into.write_all(&[0; 512][..padding as usize]).map_err(write_error)
    }

    /// One header; without `stat`, of a file of the overlay's own.
    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        stat: Option<&Stat>,
        size: u64,
        link: &[u8],
        xattrs: &[Attribute],
    ) -> Result<(), LayerError> {
        self.packed.entries += 1;
        if self.packed.entries > self.limits.entries {
            let limit = self.limits.entries;
            return Err(LayerError::Limit { what: "the number of entries", limit });
        }
        let mut item = Item { path, kind, size, link, xattrs, ..Item::default() };
        if let Some(stat) = stat {
            item.mode = stat.st_mode & 0o7777;
            (item.uid, item.gid) = (stat.st_uid, stat.st_gid);
            item.mtime = stat.st_mtime as _;
            item.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        }
        item.write(&mut self.into, self.limits)
    }
}

fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    // `x` marks a directory that holds whiteouts written as attributes; only `y` hides.
    matches!(fgetxattr(fd, OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}
