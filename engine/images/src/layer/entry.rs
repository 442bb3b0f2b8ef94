//! Reading a tar stream entry by entry, keeping every byte that is not file contents.
//!
//! The tar crate reads the fields of a header; the order of blocks is read here, because a manifest needs
//! the raw bytes and because where tars are ambiguous this must see what Docker sees: links, directories
//! and devices have no contents whatever their size field says, and nothing follows a zero block.

use std::io::Read;

use minke_common_model::pax;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::layer::names;
use crate::layer::pax::{Pax, PaxSparse};
use crate::layer::{LayerError, Stream};
use crate::options::Limits;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file of the same layer.
    Hardlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// A time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mtime {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanos: u32,
}

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// The size of the file with its holes.
    pub real_size: u64,
    /// Offset and length of each piece that is in the tar, ascending.
    pub segments: Vec<(u64, u64)>,
}

/// Name and value of an extended attribute.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// One entry with all its headers applied.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name as the tar has it.
    pub name: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with set-user-id and the like.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of change.
    pub mtime: Mtime,
    /// Bytes of contents that follow in the tar.
    pub size: u64,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<Attribute>,
    /// Where the contents go in a file with holes.
    pub sparse: Option<Sparse>,
}

/// Reads entries; the caller reads each entry's contents and padding before asking for the next.
pub struct TarReader<R> {
    /// The bytes below.
    pub stream: Stream<R>,
    limits: Limits,
    global: Pax,
    entries: u64,
}

#[derive(Default)]
struct Extensions {
    /// The body of the last extended header, and where that stands.
    pax: Option<(Vec<u8>, u64)>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// A reader over an uncompressed tar.
    pub fn new(source: R, limits: Limits) -> Self {
        let stream = Stream::new(source, limits.bytes);
        Self { stream, limits, global: Pax::default(), entries: 0 }
    }

    /// Entries read so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The next entry; all bytes of its headers are appended to `raw`.
    ///
    /// Nothing is returned at the end of the tar, with the blocks that end it in `raw`; what follows in
    /// the stream belongs to no entry.
    pub fn entry(&mut self, raw: &mut Vec<u8>) -> Result<Option<Entry>, LayerError> {
        let mut extensions = Extensions::default();
        let before = raw.len();
        loop {
            let offset = self.stream.offset();
            let Some(block) = self.stream.block()? else { return Ok(None) };
            let taken = raw.len() - before;
            raw.extend_from_slice(&block);
            if block.iter().all(|b| *b == 0) {
                return self.end(raw).map(|()| None);
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header, &block, offset)?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(header, offset, taken, raw)?;
                    // Only the last one counts, but none may be broken.
                    if let Some((unused, offset)) = extensions.pax.replace((records, offset)) {
                        Pax::default().add(&unused, offset)?;
                    }
                }
                EntryType::XGlobalHeader => {
                    let records = self.extension(header, offset, taken, raw)?;
                    self.global.add_global(&records, offset, self.limits.header)?;
                }
                EntryType::GNULongName => {
                    extensions.long_name = Some(self.long(header, offset, taken, raw)?);
                }
                EntryType::GNULongLink => {
                    extensions.long_link = Some(self.long(header, offset, taken, raw)?);
                }
                _ => {
                    self.count()?;
                    return self.make_entry(header, extensions, offset, raw).map(Some);
                }
            }
        }
    }

    /// Appends the padding after `size` bytes of contents to `raw`.
    pub fn padding(&mut self, size: u64, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        self.stream.take(size.next_multiple_of(512) - size, raw)
    }

    fn count(&mut self) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            let limit = self.limits.entries;
            return Err(LayerError::Limit { what: "the number of entries", limit });
        }
        Ok(())
    }

    /// A lone zero block followed by something else would mean different things to different readers.
    fn end(&mut self, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        let offset = self.stream.offset();
        if let Some(block) = self.stream.block()? {
            raw.extend_from_slice(&block);
            if block.iter().any(|b| *b != 0) {
                return Err(LayerError::Header { offset, why: "something follows a zero block" });
            }
        }
        Ok(())
    }

    /// The body of a header before which others of the same entry have `taken` so many bytes: any number
    /// of them may come before an entry does.
    fn extension(
        &mut self,
        header: &Header,
        offset: u64,
        taken: usize,
        raw: &mut Vec<u8>,
    ) -> Result<Vec<u8>, LayerError> {
        let size = header_size(header, offset)?;
        let limit = self.limits.header as u64;
        if size.saturating_add(taken as u64) > limit {
            let what = "the size of an entry's extended headers";
            return Err(LayerError::Limit { what, limit });
        }
        let mut records = Vec::new();
        self.stream.take(size, &mut records)?;
        raw.extend_from_slice(&records);
        self.padding(size, raw)?;
        Ok(records)
    }

    fn long(
        &mut self,
        header: &Header,
        offset: u64,
        taken: usize,
        raw: &mut Vec<u8>,
    ) -> Result<Vec<u8>, LayerError> {
        let mut name = self.extension(header, offset, taken, raw)?;
        if let Some(end) = name.iter().position(|b| *b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// What global headers say, and over it the entry's own.
    fn pax(&self, own: Option<(Vec<u8>, u64)>) -> Result<Pax, LayerError> {
        let mut pax = self.global.clone();
        if let Some((records, offset)) = own {
            pax.add(&records, offset)?;
        }
        Ok(pax)
    }

    fn make_entry(
        &mut self,
        header: &Header,
        extensions: Extensions,
        offset: u64,
        raw: &mut Vec<u8>,
    ) -> Result<Entry, LayerError> {
        let pax = self.pax(extensions.pax)?;
        let wrong = |why| LayerError::Header { offset, why };
        let old = header.as_old();
        let name = pax.path.or(extensions.long_name);
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax
            .link
            .or(extensions.long_link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = kind_of(header, &name)?;
        let has_contents = kind == Kind::File || header.entry_type() == EntryType::Regular;
        let size = match (has_contents, pax.size) {
            (true, Some(size)) => size,
            (true, None) => header_size(header, offset)?,
            (false, _) => 0,
        };
        let (seconds, nanos) = match pax.mtime {
            Some(time) => time,
            None => (number(&old.mtime).ok_or_else(|| wrong("its time is no number"))?, 0),
        };
        let owner = |said: Option<u64>, field: &[u8]| {
            said.or_else(|| u64::try_from(number(field)?).ok())
                .ok_or_else(|| wrong("its owner or group is no number"))
        };
        let mode = number(&old.mode).ok_or_else(|| wrong("its mode is no number"))?;
        let mut entry = Entry {
            name,
            kind,
            mode: mode as u32 & 0o7777,
            uid: owner(pax.uid, &old.uid)?,
            gid: owner(pax.gid, &old.gid)?,
            mtime: Mtime { seconds, nanos },
            size,
            link: link.unwrap_or_default(),
            device: device(header),
            xattrs: pax.xattrs,
            sparse: None,
        };
        if kind == Kind::File {
            entry.sparse = match header.entry_type() {
                EntryType::GNUSparse => Some(self.gnu_sparse(header, offset, raw)?),
                _ => self.pax_sparse(&mut entry.size, &pax.sparse, offset, raw)?,
            };
            if let Some(name) = pax.sparse.name.filter(|_| entry.sparse.is_some()) {
                entry.name = name;
            }
        }
        check_size(&entry, &self.limits, offset)?;
        Ok(entry)
    }

    fn gnu_sparse(
        &mut self,
        header: &Header,
        offset: u64,
        raw: &mut Vec<u8>,
    ) -> Result<Sparse, LayerError> {
        let wrong = |why| LayerError::Header { offset, why };
        let gnu = header.as_gnu().ok_or_else(|| wrong("a file with holes needs GNU's header"))?;
        let real_size = gnu.real_size().map_err(|_| wrong("its real size is no number"))?;
        let mut segments = Vec::new();
        let mut add = |pieces: &[GnuSparseHeader]| {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                match (piece.offset(), piece.length()) {
                    (Ok(at), Ok(length)) => segments.push((at, length)),
                    _ => return Err(wrong("a piece of a file with holes is no number")),
                }
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        let mut bytes = 0;
        while more {
            let mut extra = GnuExtSparseHeader::new();
            let block = self.stream.block()?.ok_or(LayerError::Truncated)?;
            raw.extend_from_slice(&block);
            bytes += block.len();
            if bytes > self.limits.header {
                let limit = self.limits.header as u64;
                return Err(LayerError::Limit { what: "the map of a file with holes", limit });
            }
            extra.as_mut_bytes().copy_from_slice(&block);
            add(extra.sparse())?;
            more = extra.is_extended();
        }
        Ok(Sparse { real_size, segments })
    }

    fn pax_sparse(
        &mut self,
        size: &mut u64,
        sparse: &PaxSparse,
        offset: u64,
        raw: &mut Vec<u8>,
    ) -> Result<Option<Sparse>, LayerError> {
        let wrong = |why| LayerError::Header { offset, why };
        let Some(real_size) = sparse.real_size else { return Ok(None) };
        let numbers = match (&sparse.map, sparse.major) {
            (_, Some(1)) => self.sparse_prefix(size, offset, raw)?,
            (Some(map), _) => map.clone(),
            (None, _) => return Ok(None),
        };
        if numbers.len() % 2 != 0 {
            return Err(wrong("the map of a file with holes has half a piece"));
        }
        let segments = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Some(Sparse { real_size, segments }))
    }

    /// Version 1.0 puts the map in front of the contents: a count and that many pairs, a line each.
    fn sparse_prefix(
        &mut self,
        size: &mut u64,
        offset: u64,
        raw: &mut Vec<u8>,
    ) -> Result<Vec<u64>, LayerError> {
        let wrong = || LayerError::Header { offset, why: "the map of a file with holes is broken" };
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = None;
        let mut read = 0;
        while wanted != Some(numbers.len()) {
            if read + 512 > *size || read + 512 > self.limits.header as u64 {
                return Err(wrong());
            }
            let block = self.stream.block()?.ok_or(LayerError::Truncated)?;
            raw.extend_from_slice(&block);
            read += 512;
            text.extend_from_slice(&block);
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                if wanted == Some(numbers.len()) {
                    break;
                }
                let number = pax::number(&text[..end]).ok_or_else(wrong)?;
                text.drain(..=end);
                match wanted {
                    None => {
                        let count = usize::try_from(number).ok().and_then(|n| n.checked_mul(2));
                        wanted = Some(count.ok_or_else(wrong)?);
                    }
                    Some(_) => numbers.push(number),
                }
            }
        }
        *size -= read;
        Ok(numbers)
    }
}

fn header_size(header: &Header, offset: u64) -> Result<u64, LayerError> {
    let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
    size.ok_or(LayerError::Header { offset, why: "its size is no number" })
}

/// Octal digits, or big-endian binary where the first bit is set. Nothing at all means 0.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let is_negative = first & 0x40 != 0;
        let start = i128::from(first & 0x3f) - if is_negative { 0x40 } else { 0 };
        let value = rest
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i128::from(*byte)));
        return i64::try_from(value?).ok();
    }
    let is_blank = |b: &u8| matches!(b, b' ' | 0);
    let from = field.iter().position(|b| !is_blank(b)).unwrap_or(field.len());
    let digits = field[from..].split(is_blank).next()?;
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn device(header: &Header) -> (u32, u32) {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return (0, 0),
    };
    let small = |field: &[u8]| number(field).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    (small(major), small(minor))
}

fn is_old_directory(header: &Header, name: &[u8]) -> bool {
    header.as_old().linkflag[0] == 0 && name.ends_with(b"/")
}

fn kind_of(header: &Header, name: &[u8]) -> Result<Kind, LayerError> {
    Ok(match header.entry_type() {
        // Tars older than POSIX mark a directory by a slash at the end only.
        EntryType::Regular if is_old_directory(header, name) => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::Hardlink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Character,
        EntryType::Block => Kind::Block,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        other => {
            let kind = char::from(other.as_byte());
            return Err(LayerError::Type { path: names::show(name), kind });
        }
    })
}

/// The sum counts the checksum's own field as spaces; some old tars added the bytes as signed.
fn check_sum(header: &Header, block: &[u8; 512], offset: u64) -> Result<(), LayerError> {
    let counted = |at: usize| if (148..156).contains(&at) { b' ' } else { block[at] };
    let unsigned: u32 = (0..512).map(|at| u32::from(counted(at))).sum();
    let signed: i32 = (0..512).map(|at| i32::from(counted(at) as i8)).sum();
    match header.cksum() {
        Ok(sum) if sum == unsigned || i64::from(sum) == i64::from(signed) => Ok(()),
        _ => Err(LayerError::Header { offset, why: "its checksum is wrong" }),
    }
}

fn check_size(entry: &Entry, limits: &Limits, offset: u64) -> Result<(), LayerError> {
    let over = |size: u64| size > limits.bytes;
    if over(entry.size) || entry.sparse.as_ref().is_some_and(|sparse| over(sparse.real_size)) {
        return Err(LayerError::Limit { what: "the size of a file", limit: limits.bytes });
    }
    let Some(sparse) = &entry.sparse else { return Ok(()) };
    let mut end = 0u64;
    let mut stored = 0u64;
    for (at, length) in &sparse.segments {
        let after =
            at.checked_add(*length).filter(|after| *at >= end && *after <= sparse.real_size);
        end = after.ok_or(LayerError::Header { offset, why: "the pieces of a file overlap" })?;
        stored += length;
    }
    if stored == entry.size {
        Ok(())
    } else {
        Err(LayerError::Header { offset, why: "the pieces of a file do not add up to its size" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_docker_reads_them() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00000008"), None);
        assert_eq!(number(b"\x80\0\0\0\0\x20\0\0"), Some(0x20_0000));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
