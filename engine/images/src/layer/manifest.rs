//! The manifest of a layer: how its tar is put together again.
//!
//! Version 1:
//!
//! ```text
//! "MINKELM" 0x01
//! zstd frame of records:   1 raw bytes      | length, bytes
//!                          2 file contents  | entry, path, size, BLAKE3
//!                          3 same, in pieces| path, size, BLAKE3, count, (offset, length)…
//!                          0 end
//! footer:                  entries, tar bytes, content bytes, DiffID, count, changes…
//! footer length, 4 bytes little-endian
//! BLAKE3 of all before, 32 bytes
//! ```
//!
//! Numbers are LEB128; a path is its length and its bytes. A *change* says that a later entry of the same
//! tar replaced a path: records before it mean the replaced thing. It is written as entry, path, and 0 gone,
//! 1 new attributes, 2 reached through links, n + 3 moved to `extra/<n>`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use minke_common_model::digest::Digest;

use crate::ids::DiffId;
use crate::layer::LayerError;

const MAGIC: &[u8; 7] = b"MINKELM";
const VERSION: u8 = 1;
const END: u8 = 0;
const RAW: u8 = 1;
const FILE: u8 = 2;
const PIECES: u8 = 3;
/// Longer raw runs are split.
const MAX_RAW: usize = 64 << 10;
/// More changes than this are an error when unpacking.
pub(crate) const MAX_CHANGES: usize = 100_000;
/// Header lines compress well at the cheapest level.
const LEVEL: i32 = 3;
/// 256 KiB of window: the memory that reading and writing a manifest takes.
const WINDOW_LOG: u32 = 18;

/// One record of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Bytes of the tar as they are.
    Raw(Vec<u8>),
    /// The contents of a file of the view.
    Contents {
        /// The number of its entry; entries count from 1.
        entry: u64,
        /// Path inside the view, without links on the way.
        path: Vec<u8>,
        /// Bytes in the tar.
        size: u64,
        /// BLAKE3 of those bytes.
        hash: [u8; 32],
        /// Where they are in a file with holes; nothing means all of the file.
        pieces: Option<Vec<(u64, u64)>>,
    },
}

/// What happened to something that a later entry replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It and what is below it is gone from the view; nothing of it is needed.
    Gone,
    /// It and what is below it is under this number in the directory for replaced contents.
    Moved(u64),
    /// A directory that got new attributes.
    Restyled,
    /// Nothing: the entry came here through symbolic links, its directory is really this one.
    Through,
}

/// A change and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The number of the entry that made the change; entries count from 1.
    pub entry: u64,
    /// The path it was made to.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: Change,
}

/// What a manifest says about the whole layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Entries in the tar.
    pub entries: u64,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// Bytes of all regular files.
    pub content_bytes: u64,
    /// SHA-256 of the tar.
    pub diff_id: DiffId,
    /// In the order in which they happened.
    pub changes: Vec<Changed>,
}

/// Hashes what passes on its way to a file.
struct Hashed<W> {
    file: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a manifest front to back.
pub struct ManifestWriter {
    frame: zstd::Encoder<'static, Hashed<BufWriter<File>>>,
}

impl ManifestWriter {
    /// Begins a new manifest at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        let mut file = Hashed { file, hasher: blake3::Hasher::new() };
        file.write_all(MAGIC)?;
        file.write_all(&[VERSION])?;
        let mut frame = zstd::Encoder::new(file, LEVEL)?;
        frame.window_log(WINDOW_LOG)?;
        Ok(Self { frame })
    }

    /// Adds bytes of the tar.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(MAX_RAW) {
            self.frame.write_all(&[RAW])?;
            put_bytes(&mut self.frame, part)?;
        }
        Ok(())
    }

    /// Adds the contents of a file.
    pub fn contents(
        &mut self,
        entry: u64,
        path: &[u8],
        size: u64,
        hash: &[u8; 32],
        pieces: Option<&[(u64, u64)]>,
    ) -> io::Result<()> {
        self.frame.write_all(&[if pieces.is_some() { PIECES } else { FILE }])?;
        put(&mut self.frame, entry)?;
        put_bytes(&mut self.frame, path)?;
        put(&mut self.frame, size)?;
        self.frame.write_all(hash)?;
        if let Some(pieces) = pieces {
            put(&mut self.frame, pieces.len() as u64)?;
            for (offset, length) in pieces {
                put(&mut self.frame, *offset)?;
                put(&mut self.frame, *length)?;
            }
        }
        Ok(())
    }

    /// Ends the manifest. The bytes are with the system, not yet surely on disk.
    pub fn finish(mut self, footer: &Footer) -> io::Result<()> {
        self.frame.write_all(&[END])?;
        let mut file = self.frame.finish()?;
        let mut bytes = Vec::new();
        for number in [footer.entries, footer.tar_bytes, footer.content_bytes] {
            put(&mut bytes, number)?;
        }
        bytes.extend_from_slice(footer.diff_id.0.as_bytes());
        put(&mut bytes, footer.changes.len() as u64)?;
        for changed in &footer.changes {
            put(&mut bytes, changed.entry)?;
            put_bytes(&mut bytes, &changed.path)?;
            put(
                &mut bytes,
                match changed.change {
                    Change::Gone => 0,
                    Change::Restyled => 1,
                    Change::Through => 2,
                    Change::Moved(number) => number + 3,
                },
            )?;
        }
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        file.write_all(&bytes)?;
        let hash = file.hasher.finalize();
        file.file.write_all(hash.as_bytes())?;
        file.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}

/// Reads a manifest whose checksum was found right.
pub struct Manifest {
    footer: Footer,
    frame: zstd::Decoder<'static, BufReader<io::Take<File>>>,
}

impl Manifest {
    /// Opens a manifest and checks every byte of it.
    pub fn open(path: &Path) -> Result<Self, LayerError> {
        let failed = |source| LayerError::Io { doing: "reading", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let tail = 4 + 32;
        if length < (MAGIC.len() + 1 + tail) as u64 {
            return Err(LayerError::Manifest("it is too short"));
        }
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut (&mut file).take(length - 32), &mut hasher).map_err(failed)?;
        let mut hash = [0; 32];
        file.read_exact(&mut hash).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(failed)?;
        if head[..7] != *MAGIC {
            return Err(LayerError::Manifest("it does not begin as one"));
        }
        if hasher.finalize() != hash {
            return Err(LayerError::Manifest("its checksum is wrong"));
        }
        if head[7] != VERSION {
            return Err(LayerError::ManifestVersion(head[7]));
        }
        let (footer, footer_at) = read_footer(&mut file, length).map_err(failed)?;
        let footer = footer.ok_or(LayerError::Manifest("its footer does not end"))?;
        file.seek(SeekFrom::Start(8)).map_err(failed)?;
        let frame = BufReader::new(file.take(footer_at - 8));
        let mut frame = zstd::Decoder::with_buffer(frame).map_err(failed)?.single_frame();
        frame.window_log_max(WINDOW_LOG).map_err(failed)?;
        Ok(Self { footer, frame })
    }

    /// What it says about the whole layer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The next record; nothing after the last.
    pub fn record(&mut self) -> Result<Option<Record>, LayerError> {
        read_record(&mut self.frame).map_err(|_| LayerError::Manifest("a record cannot be read"))
    }
}

fn read_footer(file: &mut File, length: u64) -> io::Result<(Option<Footer>, u64)> {
    file.seek(SeekFrom::Start(length - 36))?;
    let mut size = [0; 4];
    file.read_exact(&mut size)?;
    let size = u64::from(u32::from_le_bytes(size));
    let Some(at) = (length - 36).checked_sub(size).filter(|at| *at >= 8) else {
        return Ok((None, 8));
    };
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok((parse_footer(&mut &bytes[..]).ok(), at))
}

fn parse_footer(bytes: &mut &[u8]) -> io::Result<Footer> {
    let (entries, tar_bytes, content_bytes) = (get(bytes)?, get(bytes)?, get(bytes)?);
    let mut diff_id = [0; 32];
    bytes.read_exact(&mut diff_id)?;
    let count = get(bytes)?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let entry = get(bytes)?;
        let path = get_bytes(bytes)?;
        let change = match get(bytes)? {
            0 => Change::Gone,
            1 => Change::Restyled,
            2 => Change::Through,
            number => Change::Moved(number - 3),
        };
        changes.push(Changed { entry, path, change });
    }
    let diff_id = DiffId(Digest::from_bytes(diff_id));
    Ok(Footer { entries, tar_bytes, content_bytes, diff_id, changes })
}

fn read_record(frame: &mut impl Read) -> io::Result<Option<Record>> {
    let mut tag = [0];
    frame.read_exact(&mut tag)?;
    match tag[0] {
        END => Ok(None),
        RAW => Ok(Some(Record::Raw(get_bytes(frame)?))),
        FILE | PIECES => {
            let entry = get(frame)?;
            let path = get_bytes(frame)?;
            let size = get(frame)?;
            let mut hash = [0; 32];
            frame.read_exact(&mut hash)?;
            let pieces = match tag[0] {
                FILE => None,
                _ => {
                    let count = get(frame)?;
                    let pair = |_| Ok((get(frame)?, get(frame)?));
                    Some((0..count).map(pair).collect::<io::Result<_>>()?)
                }
            };
            Ok(Some(Record::Contents { entry, path, size, hash, pieces }))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn put(into: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        bytes[length] = (number & 0x7f) as u8;
        number >>= 7;
        length += 1;
        if number == 0 {
            return into.write_all(&bytes[..length]);
        }
        bytes[length - 1] |= 0x80;
    }
}

fn put_bytes(into: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    put(into, bytes.len() as u64)?;
    into.write_all(bytes)
}

fn get(from: &mut impl Read) -> io::Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn get_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = get(from)?;
    if length > MAX_RAW as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Finds what replaced a path without looking at every change.
pub(crate) struct Changes {
    by_path: HashMap<Vec<u8>, Vec<(u64, Change)>>,
    through: HashMap<u64, Vec<u8>>,
}

impl Changes {
    pub(crate) fn of(footer: &Footer) -> Self {
        let mut by_path: HashMap<Vec<u8>, Vec<(u64, Change)>> = HashMap::new();
        let mut through = HashMap::new();
        for changed in &footer.changes {
            if changed.change == Change::Through {
                through.insert(changed.entry, changed.path.clone());
                continue;
            }
            let list = by_path.entry(changed.path.clone()).or_default();
            list.push((changed.entry, changed.change));
        }
        Self { by_path, through }
    }

    /// The directory in which entry number `entry` really is, if links lead there.
    pub(crate) fn through(&self, entry: u64) -> Option<&[u8]> {
        self.through.get(&entry).map(Vec::as_slice)
    }

    /// The first change after entry number `entry` that replaced `path` or something above it, and the
    /// length of the replaced path. New attributes of a directory count only if asked for.
    fn first_after(&self, entry: u64, path: &[u8], restyled: bool) -> Option<(Change, usize)> {
        if self.by_path.is_empty() {
            return None;
        }
        let ends = (1..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        let mut first: Option<(u64, Change, usize)> = None;
        for end in ends {
            let Some(list) = self.by_path.get(&path[..end]) else { continue };
            let counts = |change: &Change| match change {
                Change::Restyled => restyled && end == path.len(),
                _ => true,
            };
            let here = list.iter().find(|(at, change)| *at > entry && counts(change));
            if let Some((at, change)) = here
                && first.is_none_or(|(earliest, ..)| *at < earliest)
            {
                first = Some((*at, *change, end));
            }
        }
        first.map(|(_, change, end)| (change, end))
    }

    /// Whether what entry number `entry` made at `path` looks different by now.
    pub(crate) fn changed_after(&self, entry: u64, path: &[u8]) -> bool {
        self.first_after(entry, path, true).is_some()
    }

    /// What became of the contents that entry number `entry` put at `path`.
    pub(crate) fn contents_after(&self, entry: u64, path: &[u8]) -> Option<(Change, usize)> {
        self.first_after(entry, path, false)
    }
}
