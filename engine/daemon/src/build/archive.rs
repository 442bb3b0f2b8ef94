//! Unpacking a tar into a tree: a build's context, or an archive that `ADD` names.

mod extended;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, makedev, mknodat, symlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType, Header};

use self::extended::Extended;
use crate::build::cancel::Cancelled;
use crate::build::owners::Owner;
use crate::build::tree::{self, Tree};

/// Bytes of one extended header.
const MAX_EXTENDED: u64 = 64 << 10;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files, directories and links.
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

/// Unpacks `source` below the directory `base` of a tree.
pub(crate) fn unpack(
    source: impl Read,
    into: &Tree,
    base: &str,
    owners: Owners,
    limits: &Limits,
    cancelled: &Cancelled,
) -> io::Result<()> {
    let free = into.free()?;
    let mut unpacker =
        Unpacker { into, base, owners, limits, cancelled, bytes: 0, entries: 0, free };
    let taken = Rc::new(Cell::new(0));
    let counted = Counted { source, taken: taken.clone() };
    unpacker.run(Archive::new(counted), &taken)
}

/// A reader that tells how much was read.
struct Counted<R> {
    source: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buffer)?;
        self.taken.set(self.taken.get() + got as u64);
        Ok(got)
    }
}

struct Unpacker<'a> {
    into: &'a Tree,
    base: &'a str,
    owners: Owners,
    limits: &'a Limits,
    cancelled: &'a Cancelled,
    bytes: u64,
    entries: u64,
    /// Bytes that the file system had at the beginning.
    free: u64,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Too many of something.
pub(crate) fn over(limit: u64, what: &str) -> io::Error {
    invalid(format!("more than {limit} {what}; that is the limit"))
}

impl Unpacker<'_> {
    fn run<R: Read>(&mut self, mut archive: Archive<R>, taken: &Cell<u64>) -> io::Result<()> {
        let mut extended = Extended::default();
        let mut end = None;
        for entry in archive.entries()?.raw(true) {
            self.cancelled.check()?;
            let mut entry = match entry {
                // The docker CLI leaves out what follows the last file, even the rest of its block.
                Err(_) if end == Some(taken.get()) => return Ok(()),
                entry => entry?,
            };
            end = Some(entry.raw_file_position() + entry.size());
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(over(self.limits.entries, "files"));
            }
            match entry.header().entry_type() {
                EntryType::GNULongName => extended.path = Some(text(&mut entry)?),
                EntryType::GNULongLink => extended.link = Some(text(&mut entry)?),
                EntryType::XHeader => extended.add(&text(&mut entry)?)?,
                EntryType::XGlobalHeader => {
                    text(&mut entry)?;
                }
                kind => self.entry(kind, std::mem::take(&mut extended), entry)?,
            }
        }
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        kind: EntryType,
        mut extended: Extended,
        mut entry: Entry<'_, R>,
    ) -> io::Result<()> {
        let header = entry.header().clone();
        let path = extended.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let path = self.place(&path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name.is_empty() {
            return Ok(());
        }
        let parent = self.into.make_directory(parent, &mut |_| Ok(()))?;
        extended.check_size(&path, entry.size())?;
        let owner = self.owner(&header, &extended);
        let times = extended.times(&header);
        let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o7777);
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        match kind {
            EntryType::Directory => {
                let made = self.into.make_directory(&path, &mut |_| Ok(()))?;
                fchown(&made, uid, gid)?;
                fchmod(&made, mode)?;
                futimens(&made, &times)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                tree::clear(parent.as_fd(), name)?;
                let mut file = tree::create(parent.as_fd(), name)?;
                self.copy(&mut entry, &mut file)?;
                fchown(&file, uid, gid)?;
                fchmod(&file, mode)?;
                // A change of the owner would take it away.
                self.capability(&file, &extended)?;
                futimens(&file, &times)?;
            }
            EntryType::Symlink => {
                let to = link_name(&header, extended.link.take())?;
                tree::clear(parent.as_fd(), name)?;
                symlinkat(to.as_slice(), &parent, name)?;
                chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => {
                self.hard_link(&link_name(&header, extended.link.take())?, &parent, name)?
            }
            // In a context devices and pipes are of no use.
            EntryType::Fifo | EntryType::Char | EntryType::Block
                if self.owners == Owners::Archive =>
            {
                make_node(&header, &parent, name)
                    .and_then(|()| Ok(chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?))
                    .map_err(|e| io::Error::new(e.kind(), format!("making `{path}`: {e}")))?;
                utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {}
            other => return Err(invalid(format!("`{path}` is of the unknown kind {other:?}"))),
        }
        Ok(())
    }

    fn owner(&self, header: &Header, extended: &Extended) -> Owner {
        match self.owners {
            Owners::One(owner) => owner,
            Owners::Archive => extended.owner(header),
        }
    }

    /// Gives a program its capabilities; none to those whose owner is another than the archive's.
    fn capability(&self, file: &File, extended: &Extended) -> io::Result<()> {
        match &extended.capability {
            Some(value) if self.owners == Owners::Archive => {
                Ok(fsetxattr(file, "security.capability", value, XattrFlags::empty())?)
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
        let mut out = self.base.trim_matches('/').to_owned();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(invalid(format!("the path `{path}` leads outside"))),
                part => {
                    if !out.is_empty() {
                        out.push('/');
                    }
                    out.push_str(part);
                }
            }
        }
        Ok(out)
    }

    fn hard_link(&self, to: &[u8], parent: &OwnedFd, name: &str) -> io::Result<()> {
        let to = self.place(to)?;
        let (directory, file) = to.rsplit_once('/').unwrap_or(("", &to));
        let from = self.into.directory(directory)?;
        tree::clear(parent.as_fd(), name)?;
        Ok(linkat(&from, file, parent, name, AtFlags::empty())?)
    }

    fn copy<R: Read>(&mut self, from: &mut Entry<'_, R>, to: &mut File) -> io::Result<()> {
        // What the header announces is looked at first: a small archive may hold a very large file.
        self.room(from.size())?;
        let mut left = from.size();
        let mut buffer = vec![0u8; 128 << 10];
        loop {
            self.cancelled.check()?;
            let got = from.read(&mut buffer)?;
            if got == 0 && left > 0 {
                let text = format!("the archive ends {left} bytes before the end of a file");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            if got == 0 {
                return Ok(());
            }
            left = left.saturating_sub(got as u64);
            self.room(got as u64)?;
            self.bytes += got as u64;
            to.write_all(&buffer[..got])?;
        }
    }

    /// Whether so many bytes more are within the limits.
    fn room(&self, more: u64) -> io::Result<()> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.limits.bytes {
            return Err(over(self.limits.bytes, "bytes"));
        }
        if bytes > self.free.saturating_sub(self.limits.reserve) {
            let (free, reserve) = (self.free / 1_000_000, self.limits.reserve / 1_000_000);
            let text =
                format!("the disk is full: {free} MB are free, and {reserve} MB are left so");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }
}

/// Makes a device or a pipe.
fn make_node(header: &Header, parent: &OwnedFd, name: &str) -> io::Result<()> {
    let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
    let device = || {
        Ok::<_, io::Error>(makedev(number(header.device_major())?, number(header.device_minor())?))
    };
    let (kind, device) = match header.entry_type() {
        EntryType::Char => (FileType::CharacterDevice, device()?),
        EntryType::Block => (FileType::BlockDevice, device()?),
        _ => (FileType::Fifo, 0),
    };
    tree::clear(parent.as_fd(), name)?;
    mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    // The process's umask took bits away.
    let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o600) & 0o7777);
    Ok(chmodat(parent, name, mode, AtFlags::empty())?)
}

fn link_name(header: &Header, long: Option<Vec<u8>>) -> io::Result<Vec<u8>> {
    let found = long.or_else(|| header.link_name_bytes().map(|b| b.into_owned()));
    found.filter(|name| !name.is_empty()).ok_or_else(|| invalid("a link to nothing".into()))
}

fn text(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    entry.take(MAX_EXTENDED + 1).read_to_end(&mut out)?;
    if out.len() as u64 > MAX_EXTENDED {
        return Err(invalid(format!("an extended header over {MAX_EXTENDED} bytes")));
    }
    while out.last() == Some(&0) {
        out.pop();
    }
    Ok(out)
}

/// How a file is packed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    /// By the program of this name.
    Program(&'static str),
}

impl Packing {
    /// By the first six bytes or more.
    pub(crate) fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', ..] => Packing::Program("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Program("xz"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Program("zstd"),
            _ => Packing::Plain,
        }
    }
}

/// Says how `file` is packed if it is a tar, packed or not; `None` for anything else. The file is at
/// its beginning afterwards.
pub(crate) fn packing(file: &mut File) -> io::Result<Option<Packing>> {
    let mut head = [0u8; 512];
    let mut got = 0;
    while got < head.len() {
        match file.read(&mut head[got..])? {
            0 => break,
            n => got += n,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    let packing = Packing::of(&head[..got]);
    let mut reader = open(file.try_clone()?, packing)?;
    let mut block = [0u8; 512];
    let whole = read_all(&mut reader, &mut block).is_ok();
    drop(reader);
    file.seek(SeekFrom::Start(0))?;
    let checked = Header::from_byte_slice(&block);
    let sum = checksum(&block);
    let named = block[0] != 0;
    Ok((whole && named && checked.cksum().ok() == Some(sum)).then_some(packing))
}

fn read_all(reader: &mut impl Read, block: &mut [u8]) -> io::Result<()> {
    reader.read_exact(block)
}

/// The sum of a header's bytes with its own field taken as spaces.
fn checksum(block: &[u8; 512]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes.map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum()
}

/// The unpacked bytes of a file.
pub(crate) fn open(file: File, packing: Packing) -> io::Result<Box<dyn Read + Send>> {
    Ok(match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
        Packing::Program(name) => Box::new(Filter::start(name, file)?),
    })
}

/// A program that unpacks its standard input.
struct Filter {
    child: Child,
    output: ChildStdout,
}

impl Filter {
    fn start(name: &'static str, file: File) -> io::Result<Filter> {
        let mut child = Command::new(name)
            .arg("-dc")
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| {
                io::Error::new(e.kind(), format!("this archive needs the program {name}: {e}"))
            })?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        Ok(Filter { child, output })
    }
}

impl Read for Filter {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // It may have ended by itself; then only its status is taken.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
