//! The files of a log, opened so that none is missed while the shim renames and packs them.
//!
//! Rotation only ever moves a file to a higher number, and packing keeps its number. So files are opened
//! from the newest on: one that moves on meanwhile is seen twice, which its identity tells, and none is
//! passed over.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::bufread::GzDecoder;

/// A file of a log.
pub(super) struct Part {
    content: Content,
    /// Inode of the file, or of the one that was packed into it.
    identity: u64,
    /// Where reading stops, whatever comes after.
    end: Option<u64>,
}

enum Content {
    Plain(File),
    Packed(Box<GzDecoder<BufReader<File>>>),
}

impl Part {
    /// The file that is being written.
    pub(super) fn live(log: &Path) -> io::Result<Option<Part>> {
        let Some(file) = open(log)? else { return Ok(None) };
        let identity = file.metadata()?.ino();
        Ok(Some(Part { content: Content::Plain(file), identity, end: None }))
    }

    /// The file of this number, in either form.
    fn numbered(log: &Path, number: u32) -> io::Result<Option<Part>> {
        let path = |ending: &str| PathBuf::from(format!("{}.{number}{ending}", log.display()));
        if let Some(part) = Part::live(&path(""))? {
            return Ok(Some(part));
        }
        let Some(file) = open(&path(".gz"))? else { return Ok(None) };
        let decoder = GzDecoder::new(BufReader::new(file));
        let name = decoder.header().and_then(|header| header.filename()).unwrap_or_default();
        let identity = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let identity = identity.unwrap_or_default();
        Ok(Some(Part { content: Content::Packed(Box::new(decoder)), identity, end: None }))
    }

    /// Whether both are (or were) the same file.
    pub(super) fn is(&self, other: &Part) -> bool {
        self.identity == other.identity
    }

    /// The file itself, if it is read as it is.
    fn plain(&self) -> Option<&File> {
        match &self.content {
            Content::Plain(file) => Some(file),
            Content::Packed(_) => None,
        }
    }

    /// Reads no more of it than is in it now. What is packed grows no more.
    pub(super) fn hold(&mut self) -> io::Result<()> {
        self.end = match self.plain() {
            Some(file) => Some(file.metadata()?.len()),
            None => None,
        };
        Ok(())
    }

    /// Reads what is written to it later too.
    pub(super) fn release(&mut self) {
        self.end = None;
    }

    /// The file itself and how much of it is read, if it is read as it is.
    pub(super) fn plain_to(&self) -> io::Result<Option<(&File, u64)>> {
        let Some(file) = self.plain() else { return Ok(None) };
        let end = self.end.map_or_else(|| file.metadata().map(|data| data.len()), Ok)?;
        Ok(Some((file, end)))
    }

    /// Goes to this place, if the file is read as it is.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.content {
            Content::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Content::Packed(_) => Ok(()),
        }
    }

    /// Back to the beginning.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        match &mut self.content {
            Content::Plain(file) => file.rewind(),
            Content::Packed(decoder) => {
                let mut file = decoder.get_ref().get_ref().try_clone()?;
                file.rewind()?;
                **decoder = GzDecoder::new(BufReader::new(file));
                Ok(())
            }
        }
    }

    /// Whether nothing was written to it at or after this time (nanoseconds since 1970). What packs a
    /// file writes later than what it packs, so only plain files are known to be old.
    pub(super) fn ended_before(&self, time: i64) -> bool {
        let changed = self.plain().and_then(|file| file.metadata().ok()?.modified().ok());
        let time = UNIX_EPOCH + Duration::from_nanos(time.max(0).unsigned_abs());
        changed.is_some_and(|changed| changed + Duration::from_secs(1) < time)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(file) => {
                let left = match self.end {
                    Some(end) => end.saturating_sub(file.stream_position()?),
                    None => u64::MAX,
                };
                file.take(left).read(buffer)
            }
            Content::Packed(decoder) => decoder.read(buffer),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The parts of a log that are newer than `than`, the newest first.
pub(super) fn newest_first(log: &Path, than: Option<&Part>) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut missing = 0;
    // While files are moved on, one number is nobody's for a moment.
    for number in 0..=1001 {
        let part = if number == 0 { Part::live(log)? } else { Part::numbered(log, number)? };
        let Some(part) = part else {
            missing += 1;
            if missing > 2 {
                break;
            }
            continue;
        };
        missing = 0;
        if than.is_some_and(|than| part.is(than)) {
            break;
        }
        if !parts.last().is_some_and(|last| last.is(&part)) {
            parts.push(part);
        }
    }
    Ok(parts)
}
