//! Unpacking a tar into a tree: a build's context, or an archive that `ADD` names.

mod packed;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use minke_engine_images::layer::{Entry, Kind, LayerError, TarReader, timestamps};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, makedev, mknodat, symlinkat, utimensat,
};

pub(crate) use self::packed::{ForStore, Packing, open, packing, plain};
use crate::build::cancel::Cancelled;
use crate::build::copy::CAPABILITY;
use crate::build::fetch;
use crate::build::owners::Owner;
use crate::build::tree::{self, MAX_DEPTH, Tree};

/// Bytes of headers and padding that an archive may have for each entry, one with another.
const HEADERS: u64 = 4 << 10;
/// Most bytes after the end of an archive that are read.
const MAX_AFTER: u64 = 16 << 20;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files, directories and links, with the directories that only paths name.
    pub(crate) entries: u64,
    /// Bytes of one path.
    pub(crate) path: usize,
    /// Bytes of the file system that stay free.
    pub(crate) reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 16 << 30, entries: 1_000_000, path: 4095, reserve: 64 << 20 }
    }
}

/// How what comes out is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// As the archive says.
    Archive,
    /// All the same.
    One(Owner),
}

/// Unpacks `source` below the directory `base` of a tree. Blocking.
pub(crate) fn unpack(
    source: impl Read,
    into: &Tree,
    base: &str,
    owners: Owners,
    limits: &Limits,
    cancelled: &Cancelled,
) -> io::Result<()> {
    let most = limits.bytes.saturating_add(limits.entries.saturating_mul(HEADERS));
    let counted = Counted { source, left: most, most, cancelled };
    // What there is too much of is said here, in a build's words.
    let unlimited = minke_engine_images::Limits {
        entries: u64::MAX,
        bytes: u64::MAX,
        ..minke_engine_images::Limits::default()
    };
    let mut tar = TarReader::new(counted, unlimited);
    let mut unpacker = Unpacker { into, base, owners, limits, bytes: 0, entries: 0 };
    unpacker.run(&mut tar)?;
    // Only at its end an archive turns out to be whole, and a client that is still writing what comes
    // after it would meet a closed door.
    let mut left = MAX_AFTER;
    while left > 0 {
        match tar.stream.piece(left).map_err(said)? {
            [] => break,
            piece => left -= piece.len() as u64,
        }
    }
    Ok(())
}

/// A reader that ends with an error: after very much, and when nobody waits any more.
struct Counted<'a, R> {
    source: R,
    left: u64,
    most: u64,
    cancelled: &'a Cancelled,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancelled.check()?;
        let got = self.source.read(buffer)?;
        let left = self.left.checked_sub(got as u64);
        self.left = left.ok_or_else(|| over(self.most, "bytes with all headers"))?;
        Ok(got)
    }
}

struct Unpacker<'a> {
    into: &'a Tree,
    base: &'a str,
    owners: Owners,
    limits: &'a Limits,
    bytes: u64,
    entries: u64,
}

/// Where an entry goes.
struct Spot<'a> {
    /// The clean path in the tree.
    path: &'a str,
    parent: BorrowedFd<'a>,
    name: &'a str,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Too many of something.
pub(crate) fn over(limit: u64, what: &str) -> io::Error {
    invalid(format!("more than {limit} {what}; that is the limit"))
}

/// What is wrong with an archive, or why no more of it came.
fn said(error: LayerError) -> io::Error {
    match error {
        LayerError::Io { source, .. } | LayerError::Read(source) => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl Unpacker<'_> {
    fn run<R: Read>(&mut self, tar: &mut TarReader<R>) -> io::Result<()> {
        let mut raw = Vec::new();
        while let Some(entry) = tar.entry(&mut raw).map_err(said)? {
            count(&mut self.entries, self.limits)?;
            self.entry(&entry, tar)?;
            let end = tar.stream.offset();
            match tar.padding(entry.size, &mut raw) {
                // The docker CLI leaves out what follows the last file, even the rest of its block.
                Err(LayerError::Truncated) if tar.stream.offset() == end => return Ok(()),
                read => read.map_err(said)?,
            }
            raw.clear();
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
        let path = self.place(&entry.name)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name.is_empty() {
            return skip(tar, entry.size);
        }
        // Directories and links take room too.
        self.room(0, 0)?;
        let (into, limits) = (self.into, self.limits);
        let parent = into.make_directory(parent, &mut |_| {
            fetch::leave(into.top(), 0, limits.reserve)?;
            count(&mut self.entries, limits)
        })?;
        let spot = Spot { path: &path, parent: parent.as_fd(), name };
        match entry.kind {
            Kind::File => return self.file(&spot, entry, tar),
            Kind::Directory => self.directory(&spot, entry)?,
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(invalid(format!("`{path}` is a link to nothing")));
                }
                tree::replace(spot.parent, name)?;
                symlinkat(entry.link.as_slice(), spot.parent, name)?;
                self.finish(&spot, entry)?;
            }
            Kind::Hardlink => self.hard_link(&spot, entry)?,
            Kind::Fifo | Kind::Character | Kind::Block if self.owners == Owners::Archive => {
                make_node(&spot, entry)
                    .and_then(|()| self.finish(&spot, entry))
                    .map_err(|e| io::Error::new(e.kind(), format!("making `{path}`: {e}")))?;
            }
            // In a context devices and pipes are of no use.
            Kind::Fifo | Kind::Character | Kind::Block => {}
        }
        // Of these only old directories have contents, and mean nothing by them.
        skip(tar, entry.size)
    }

    fn file<R: Read>(
        &mut self,
        spot: &Spot<'_>,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> io::Result<()> {
        // What the header announces is looked at first: a small archive may hold a very large file.
        let size = entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_size);
        self.room(size, entry.size)?;
        let (uid, gid) = self.owner(entry)?;
        tree::replace(spot.parent, spot.name)?;
        let mut file = tree::create(spot.parent, spot.name)?;
        self.copy(entry, tar, &mut file)?;
        fchown(&file, Some(uid), Some(gid))?;
        fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        // A change of the owner would take it away.
        self.capability(&file, entry)?;
        Ok(futimens(&file, &timestamps(entry.mtime))?)
    }

    /// Makes a directory, or gives the one that is there its looks. A link to one stays: in root file systems
    /// `/lib` is one, and archives for it say that it is a directory.
    fn directory(&self, spot: &Spot<'_>, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry)?;
        let there = self.into.stat(spot.path)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
        if there != Some(FileType::Directory) {
            tree::replace(spot.parent, spot.name)?;
        }
        let made = self.into.make_directory(spot.path, &mut |_| Ok(()))?;
        fchown(&made, Some(uid), Some(gid))?;
        fchmod(&made, Mode::from_raw_mode(entry.mode))?;
        Ok(futimens(&made, &timestamps(entry.mtime))?)
    }

    /// Owner and time of what has no descriptor.
    fn finish(&self, spot: &Spot<'_>, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry)?;
        chownat(spot.parent, spot.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let times = timestamps(entry.mtime);
        Ok(utimensat(spot.parent, spot.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn owner(&self, entry: &Entry) -> io::Result<(Uid, Gid)> {
        if let Owners::One(owner) = self.owners {
            return Ok((Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)));
        }
        // The largest of all means that the owner stays as it is.
        let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        match (number(entry.uid), number(entry.gid)) {
            (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
            _ => {
                let name = String::from_utf8_lossy(&entry.name);
                Err(invalid(format!("`{name}` has an owner or group over {}", u32::MAX - 1)))
            }
        }
    }

    /// Gives a program its capabilities; none to those whose owner is another than the archive's.
    fn capability(&self, file: &File, entry: &Entry) -> io::Result<()> {
        let found = entry.xattrs.iter().find(|(name, _)| name == CAPABILITY.as_bytes());
        match found {
            Some((_, value)) if self.owners == Owners::Archive => {
                Ok(fsetxattr(file, CAPABILITY, value, XattrFlags::empty())?)
            }
            _ => Ok(()),
        }
    }

    /// The clean path of an entry in the tree; refuses one that leads out of the archive.
    fn place(&self, path: &[u8]) -> io::Result<String> {
        let shown = || String::from_utf8_lossy(&path[..path.len().min(80)]).into_owned();
        if path.len() > self.limits.path {
            let limit = self.limits.path;
            return Err(invalid(format!("the path `{}…` has more than {limit} bytes", shown())));
        }
        let path = std::str::from_utf8(path)
            .map_err(|_| invalid(format!("the path `{}` is no UTF-8", shown())))?;
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    let outside = || invalid(format!("the path `{path}` leads outside"));
                    parts.pop().ok_or_else(outside)?;
                }
                part => parts.push(part),
            }
        }
        let base = self.base.split('/').filter(|part| !part.is_empty());
        let whole: Vec<&str> = base.chain(parts).collect();
        match whole.len() > MAX_DEPTH + 1 {
            true => Err(tree::too_deep()),
            false => Ok(whole.join("/")),
        }
    }

    fn hard_link(&self, spot: &Spot<'_>, entry: &Entry) -> io::Result<()> {
        let to = self.place(&entry.link)?;
        let (directory, file) = to.rsplit_once('/').unwrap_or(("", &to));
        let from = self.into.directory(directory)?;
        tree::replace(spot.parent, spot.name)?;
        Ok(linkat(&from, file, spot.parent, spot.name, AtFlags::empty())?)
    }

    fn copy<R: Read>(
        &self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        to: &mut File,
    ) -> io::Result<()> {
        let whole = [(0, entry.size)];
        let segments = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.segments[..]);
        for (offset, length) in segments {
            to.seek(SeekFrom::Start(*offset))?;
            let mut left = *length;
            while left > 0 {
                let piece = tar.stream.piece(left).map_err(said)?;
                if piece.is_empty() {
                    let text = format!("the archive ends {left} bytes before the end of a file");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                left -= piece.len() as u64;
                fetch::leave(&*to, piece.len() as u64, self.limits.reserve)?;
                to.write_all(piece)?;
            }
        }
        if let Some(sparse) = &entry.sparse {
            to.set_len(sparse.real_size)?;
        }
        Ok(())
    }

    /// Takes a file of this size, of which so many bytes are written, if it is within the limits.
    fn room(&mut self, size: u64, written: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            return Err(over(self.limits.bytes, "bytes"));
        }
        fetch::leave(self.into.top(), written, self.limits.reserve)
    }
}

/// One more file, directory or link.
fn count(entries: &mut u64, limits: &Limits) -> io::Result<()> {
    *entries += 1;
    match *entries > limits.entries {
        true => Err(over(limits.entries, "files")),
        false => Ok(()),
    }
}

/// Reads over contents that nothing is made of.
fn skip<R: Read>(tar: &mut TarReader<R>, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        match tar.stream.piece(left).map_err(said)? {
            [] => return Err(said(LayerError::Truncated)),
            piece => left -= piece.len() as u64,
        }
    }
    Ok(())
}

/// Makes a device or a pipe.
fn make_node(spot: &Spot<'_>, entry: &Entry) -> io::Result<()> {
    let (kind, device) = match entry.kind {
        Kind::Character => (FileType::CharacterDevice, makedev(entry.device.0, entry.device.1)),
        Kind::Block => (FileType::BlockDevice, makedev(entry.device.0, entry.device.1)),
        _ => (FileType::Fifo, 0),
    };
    tree::replace(spot.parent, spot.name)?;
    mknodat(spot.parent, spot.name, kind, Mode::from_raw_mode(0o600), device)?;
    // The process's umask took bits away.
    Ok(chmodat(spot.parent, spot.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?)
}
