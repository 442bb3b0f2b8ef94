//! Comparing a layer's view with its manifest: contents by hash, everything else entry by entry.
//!
//! The tar is rebuilt and read as if it were to be unpacked again; what each entry would make must be
//! there, as it would be made, and nothing else may be there.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;

use crate::layer::beneath::Beneath;
use crate::layer::entry::{Entry, Kind, TarReader};
use crate::layer::manifest::{Changes, Footer};
use crate::layer::style::{OPAQUE_XATTR, may_set};
use crate::layer::unpack::{OPAQUE, WHITEOUT};
use crate::layer::{LayerError, Rebuilt, VIEW, names};
use crate::options::Limits;

/// Reads all of the layer in directory `layer` and returns its footer, or the first thing that differs.
pub fn check(layer: &Path) -> Result<Footer, LayerError> {
    check_from(layer, Rebuilt::open(layer)?)
}

/// The same from the medium instead of the page cache, with rests that leave the disk to others.
pub fn check_gently(layer: &Path) -> Result<Footer, LayerError> {
    check_from(layer, Rebuilt::open(layer)?.gently())
}

fn check_from(layer: &Path, rebuilt: Rebuilt) -> Result<Footer, LayerError> {
    let footer = rebuilt.footer().clone();
    let mut checker = Checker {
        view: Beneath::open(&layer.join(VIEW))?,
        changes: Changes::of(&footer),
        expected: HashSet::new(),
        opaque: HashSet::new(),
    };
    // What is in the store was within some limits once; a lower limit today does not make it damaged.
    let no_limits = Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() };
    let mut tar = TarReader::new(rebuilt, no_limits);
    checker.entries(&mut tar).map_err(inner)?;
    let (digest, ..) = tar.stream.finish().map_err(inner)?;
    if digest != footer.diff_id.0 {
        return Err(LayerError::Digest { found: digest });
    }
    checker.nothing_else()?;
    Ok(footer)
}

/// The error of the layer below a failed read.
fn inner(error: LayerError) -> LayerError {
    match error {
        LayerError::Read(source) => match source.downcast::<LayerError>() {
            Ok(inner) => inner,
            Err(source) => LayerError::Read(source),
        },
        other => other,
    }
}

struct Checker {
    view: Beneath,
    changes: Changes,
    /// Hashes of every path that belongs in the view.
    expected: HashSet<u64>,
    /// Hashes of the directories that hide what is below them.
    opaque: HashSet<u64>,
}

impl Checker {
    fn entries<R: Read>(&mut self, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        let mut raw = Vec::new();
        while let Some(entry) = tar.entry(&mut raw)? {
            let mut left = entry.size;
            while left > 0 {
                let piece = tar.stream.piece(left)?;
                if piece.is_empty() {
                    return Err(LayerError::Truncated);
                }
                left -= piece.len() as u64;
            }
            raw.clear();
            tar.padding(entry.size, &mut raw)?;
            raw.clear();
            let path = names::clean(&entry.name, tar.limits())?;
            self.entry(&entry, &path, tar.entries())?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &[u8], number: u64) -> Result<(), LayerError> {
        if path.is_empty() {
            return if !self.changes.changed_after(number, b"") {
                let stat = rustix::fs::fstat(self.view.root());
                let stat = stat.map_err(|error| LayerError::io("looking at", b"/", error))?;
                compare(entry, &stat, b"/")
            } else {
                Ok(())
            };
        }
        let (dir, name) = names::split(path);
        let real = self.changes.through(number).unwrap_or(dir).to_vec();
        // What was replaced as a whole cannot be looked at any more.
        if self.changes.contents_after(number, &real).is_some() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = match self.view.plain(&real, flags) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(LayerError::damaged(&real, "it is missing"));
            }
            Err(error) => return Err(LayerError::io("opening", &real, error)),
        };
        self.expect(&real);
        if name == OPAQUE {
            self.opaque.insert(hash(&real));
            return Ok(());
        }
        let (name, hides) = match name.strip_prefix(WHITEOUT) {
            Some(hidden) if hidden.starts_with(WHITEOUT) => return Ok(()),
            Some(hidden) => (hidden, true),
            None => (name, false),
        };
        let path = names::join(&real, name);
        self.expect(&path);
        let missing = || LayerError::damaged(&path, "it is missing");
        let stat = match statat(&parent, names::to_path(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(missing()),
            Err(error) => return Err(LayerError::io("looking at", &path, error)),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if hides {
            // Hides a name below it: as a device, or by what the layer itself has there.
            if is_directory {
                self.opaque.insert(hash(&path));
            }
            return Ok(());
        }
        if self.changes.changed_after(number, &path) {
            return Ok(());
        }
        compare(entry, &stat, &path)?;
        compare_inside(entry, &parent, name, &path)
    }

    /// A path and everything above it belongs in the view.
    fn expect(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() && self.expected.insert(hash(path)) {
            path = names::split(path).0;
        }
    }

    /// Walks the view: every name must be expected, every whiteout attribute too, and none missing.
    fn nothing_else(&self) -> Result<(), LayerError> {
        let mut left = vec![Vec::new()];
        while let Some(path) = left.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let failed = |error| LayerError::io("listing", &path, error);
            let fd = self.view.plain(&path, flags).map_err(failed)?;
            if has_opaque(&fd) != self.opaque.contains(&hash(&path)) {
                return Err(LayerError::damaged(&path, "its mark that hides lower layers differs"));
            }
            for item in Dir::read_from(&fd).map_err(failed)? {
                let item = item.map_err(failed)?;
                let name = item.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let path = names::join(&path, name);
                if !self.expected.contains(&hash(&path)) {
                    return Err(LayerError::damaged(&path, "it does not belong to the layer"));
                }
                let stat = statat(&fd, item.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| LayerError::io("looking at", &path, error))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    left.push(path);
                }
            }
        }
        Ok(())
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(path).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

fn has_opaque(fd: impl AsFd) -> bool {
    let mut value = [0u8; 4];
    fgetxattr(fd, OPAQUE_XATTR, &mut value).is_ok()
}

/// Type, mode, owner, size, time and device number.
fn compare(entry: &Entry, stat: &Stat, path: &[u8]) -> Result<(), LayerError> {
    let differs = |why| Err(LayerError::damaged(path, why));
    let kind = FileType::from_raw_mode(stat.st_mode);
    let fits = match entry.kind {
        Kind::File => kind == FileType::RegularFile,
        Kind::Directory => kind == FileType::Directory,
        Kind::Symlink => kind == FileType::Symlink,
        Kind::Character => kind == FileType::CharacterDevice,
        Kind::Block => kind == FileType::BlockDevice,
        Kind::Fifo => kind == FileType::Fifo,
        // Its own entry says what the file is.
        Kind::Hardlink => return Ok(()),
    };
    if !fits {
        return differs("its type differs");
    }
    if entry.kind != Kind::Symlink && stat.st_mode & 0o7777 != entry.mode {
        return differs("its mode differs");
    }
    if (u64::from(stat.st_uid), u64::from(stat.st_gid)) != (entry.uid, entry.gid) {
        return differs("its owner differs");
    }
    let size = entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_size);
    if entry.kind == Kind::File && stat.st_size as u64 != size {
        return differs("its size differs");
    }
    if stat.st_mtime != entry.mtime.seconds || stat.st_mtime_nsec as u32 != entry.mtime.nanos {
        return differs("its time differs");
    }
    let is_device = matches!(entry.kind, Kind::Character | Kind::Block);
    if is_device && stat.st_rdev != rustix::fs::makedev(entry.device.0, entry.device.1) {
        return differs("its device number differs");
    }
    Ok(())
}

/// The target of a link and the extended attributes.
fn compare_inside(
    entry: &Entry,
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
) -> Result<(), LayerError> {
    let failed = |error| LayerError::io("reading", path, error);
    let name = names::to_path(name);
    if entry.kind == Kind::Symlink {
        let target = readlinkat(parent, name, Vec::new()).map_err(failed)?;
        if target.to_bytes() != entry.link {
            return Err(LayerError::damaged(path, "its target differs"));
        }
    }
    let mut xattrs = entry.xattrs.iter().filter(|(name, _)| may_set(name)).peekable();
    if xattrs.peek().is_none() || !matches!(entry.kind, Kind::File | Kind::Directory) {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty()).map_err(failed)?;
    for (name, value) in xattrs {
        let mut found = vec![0; value.len() + 1];
        match fgetxattr(&fd, names::to_path(name), &mut found[..]) {
            Ok(length) if found[..length] == value[..] => {}
            Err(Errno::NOTSUP) => {}
            _ => return Err(LayerError::damaged(path, "an extended attribute differs")),
        }
    }
    Ok(())
}
