//! Unpacking a tar into a tree: a build's context, or an archive that `ADD` names.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use minke_common_model::pax;
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, linkat,
    symlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType, Header};

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

/// What extended headers said about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
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
                EntryType::XHeader => records(&text(&mut entry)?, &mut extended)?,
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
        extended: Extended,
        mut entry: Entry<'_, R>,
    ) -> io::Result<()> {
        let header = entry.header().clone();
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = self.place(&path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name.is_empty() {
            return Ok(());
        }
        let parent = self.into.make_directory(parent, &mut |_| Ok(()))?;
        let owner = self.owner(&header);
        let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o7777);
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        match kind {
            EntryType::Directory => {
                let made = self.into.make_directory(&path, &mut |_| Ok(()))?;
                fchown(&made, uid, gid)?;
                fchmod(&made, mode)?;
                futimens(&made, &times(&header))?;
            }
            EntryType::Regular | EntryType::Continuous => {
                tree::clear(parent.as_fd(), name)?;
                let mut file = tree::create(parent.as_fd(), name)?;
                self.copy(&mut entry, &mut file)?;
                fchown(&file, uid, gid)?;
                fchmod(&file, mode)?;
                futimens(&file, &times(&header))?;
            }
            EntryType::Symlink => {
                let to = link_name(&header, extended.link)?;
                tree::clear(parent.as_fd(), name)?;
                symlinkat(to.as_slice(), &parent, name)?;
                chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                utimensat(&parent, name, &times(&header), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => {
                self.hard_link(&link_name(&header, extended.link)?, &parent, name)?
            }
            // Devices and pipes are of no use in an image's making.
            EntryType::Fifo | EntryType::Char | EntryType::Block => {}
            other => return Err(invalid(format!("`{path}` is of the unknown kind {other:?}"))),
        }
        Ok(())
    }

    fn owner(&self, header: &Header) -> Owner {
        let id = |number: io::Result<u64>| number.ok().and_then(|n| u32::try_from(n).ok());
        match self.owners {
            Owners::One(owner) => owner,
            Owners::Archive => {
                Owner { uid: id(header.uid()).unwrap_or(0), gid: id(header.gid()).unwrap_or(0) }
            }
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

fn times(header: &Header) -> Timestamps {
    let seconds = header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
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

fn records(body: &[u8], extended: &mut Extended) -> io::Result<()> {
    for record in pax::records(body) {
        match record.map_err(|wrong| invalid(wrong.into()))? {
            (b"path", value) => extended.path = Some(value.to_vec()),
            (b"linkpath", value) => extended.link = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(3);
            header.set_gid(4);
            let linked = matches!(kind, EntryType::Symlink | EntryType::Link);
            let body = if linked { "" } else { content };
            if linked {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_size(body.len() as u64);
            let name = path.as_bytes();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(
        entries: &[(&str, EntryType, &str)],
        limits: &Limits,
    ) -> (tempfile::TempDir, io::Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let bytes = tar(entries);
        let result =
            unpack(&bytes[..], &tree, "to", Owners::Archive, limits, &Cancelled::default());
        (dir, result)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn entries_land_below_the_base_with_their_owner() {
        use std::os::unix::fs::MetadataExt;
        let entries =
            [("a/f", FILE, "x"), ("a/l", EntryType::Symlink, "/f"), ("h", EntryType::Link, "a/f")];
        let (dir, result) = unpacked(&entries, &Limits::default());
        result.unwrap();
        let meta = std::fs::metadata(dir.path().join("to/h")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (3, 4, 2));
        assert_eq!(std::fs::read_link(dir.path().join("to/a/l")).unwrap(), Path::new("/f"));
    }

    #[test]
    fn links_of_the_archive_lead_nowhere_else() {
        let (dir, result) =
            unpacked(&[("l", EntryType::Symlink, "/"), ("l/x", FILE, "y")], &Limits::default());
        result.unwrap();
        assert!(dir.path().join("x").exists(), "the tree's own top is what `/` means");
        for bad in ["../x", "a/../../x"] {
            let (_dir, result) = unpacked(&[(bad, FILE, "y")], &Limits::default());
            assert!(result.unwrap_err().to_string().contains("leads outside"));
        }
    }

    #[test]
    fn limits_are_said() {
        let limits = Limits { bytes: 3, entries: 2, path: 9, reserve: 0 };
        for (entries, says) in [
            (vec![("a", FILE, "1234")], "more than 3 bytes"),
            (vec![("a", FILE, ""), ("b", FILE, ""), ("c", FILE, "")], "more than 2 files"),
            (vec![("0123456789", FILE, "")], "more than 9 bytes"),
        ] {
            let (_dir, result) = unpacked(&entries, &limits);
            let text = result.unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
        }
        let full = Limits { reserve: u64::MAX, ..Limits::default() };
        let (_dir, result) = unpacked(&[("a", FILE, "1")], &full);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn an_announced_size_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = Header::new_gnu();
        header.set_path("bomb").unwrap();
        header.set_mode(0o644);
        header.set_size(1 << 50);
        header.set_cksum();
        let bytes = header.as_bytes().to_vec();
        // Zeros without end, as a packed bomb gives them.
        let endless = io::Cursor::new(bytes).chain(io::repeat(0));
        let tree = Tree::open(dir.path()).unwrap();
        let limits = Limits::default();
        let result = unpack(endless, &tree, "", Owners::Archive, &limits, &Cancelled::default());
        assert!(result.unwrap_err().to_string().contains("that is the limit"));
        assert_eq!(std::fs::metadata(dir.path().join("bomb")).unwrap().len(), 0);
    }

    #[test]
    fn an_archive_may_lack_its_end_but_nothing_of_a_file() {
        let whole = tar(&[("a", FILE, "1234")]);
        let result = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::open(dir.path()).unwrap();
            let (limits, owners) = (Limits::default(), Owners::Archive);
            unpack(bytes, &tree, "", owners, &limits, &Cancelled::default())
        };
        for end in [516, 1024, whole.len()] {
            result(&whole[..end]).unwrap();
        }
        assert!(result(&whole[..515]).unwrap_err().to_string().contains("1 bytes before the end"));
        assert!(result(&whole[..517]).is_err());
    }

    #[test]
    fn archives_are_known_by_content() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar(&[("a", FILE, "x")])).unwrap();
        let gzip = gzip.finish().unwrap();
        let plain = tar(&[("a", FILE, "x")]);
        let mut lone = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        lone.write_all(b"just text").unwrap();
        for (bytes, expected) in [
            (plain, Some(Packing::Plain)),
            (gzip, Some(Packing::Gzip)),
            (lone.finish().unwrap(), None),
            (b"hello".to_vec(), None),
            (vec![0u8; 1024], None),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            assert_eq!(packing(&mut file).unwrap(), expected);
        }
    }
}
