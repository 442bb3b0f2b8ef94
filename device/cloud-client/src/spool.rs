//! Log lines on disk, between the container that wrote them and the server that takes them.
//!
//! ```text
//!   append ─> [segment n+2]  [segment n+1]  [segment n] ─> next ─> acknowledge (segment deleted)
//! ```
//!
//! Invariants, held by a property test over every mix of calls, crashes and torn ends:
//!
//! * Lines come out in the order they went in; one that was acknowledged does not come again while
//!   the process lives, one that was not comes again after [`Spool::rewind`].
//! * The directory never holds more than [`Limits::total`] bytes and one segment: the oldest lines go
//!   first and are counted.
//! * No disk, however broken or full, keeps a spool from being opened: what cannot be read or kept is
//!   counted.
//!
//! Nothing is synced: a power cut may lose the last seconds of logs, and that is cheaper for flash
//! than a sync per line. Segments that live shorter than the kernel's write-back never reach it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

#[cfg(test)]
mod tests;

/// How much may wait on disk, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub segment: u64,
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { segment: 256 * 1024, total: 8 * 1024 * 1024 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    segment: u64,
    offset: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    limits: Limits,
    /// Oldest first; the last is written to.
    segments: VecDeque<Segment>,
    writer: Option<File>,
    /// Above the number of every segment in the directory, also of those that cannot be read.
    free: u64,
    read: Position,
    acknowledged: Position,
    dropped: u64,
}

impl Spool {
    /// Opens the directory, which is made, and cuts a line that a crash tore.
    pub(crate) fn open(dir: &Path, limits: Limits) -> Spool {
        let numbers = segment_numbers(dir).unwrap_or_else(|error| {
            warn!(%error, dir = %dir.display(), "the spool of logs cannot be read");
            Vec::new()
        });
        let free = numbers.last().map_or(1, |last| last + 1);
        let mut segments = VecDeque::new();
        let mut dropped = 0;
        for number in numbers {
            let path = segment_path(dir, number);
            match cut_torn_end(&path) {
                Ok(bytes) => segments.push_back(Segment { number, bytes }),
                Err(error) => {
                    warn!(%error, path = %path.display(), "a part of the spool of logs cannot be read");
                    // One that cannot even be removed is met again by the next start.
                    dropped += u64::from(fs::remove_file(&path).is_ok());
                }
            }
        }
        let stored = read_position(&position_path(dir));
        let start = match (segments.front(), stored) {
            (Some(first), _) => Position { segment: first.number, offset: 0 },
            // New segments are numbered from here, or an old position would skip them.
            (None, Some(stored)) => stored,
            (None, None) => Position { segment: 0, offset: 0 },
        };
        let acknowledged = stored
            .and_then(|stored| {
                let segment = segments.iter().find(|s: &&Segment| s.number == stored.segment)?;
                Some(Position { offset: stored.offset.min(segment.bytes), ..stored })
            })
            .unwrap_or(start)
            .max(start);
        let mut spool = Spool {
            dir: dir.to_owned(),
            limits,
            segments,
            writer: None,
            free,
            read: acknowledged,
            acknowledged,
            dropped,
        };
        if !spool.is_on_line_start() {
            spool.acknowledged.offset = 0;
            spool.read = spool.acknowledged;
        }
        spool
    }

    /// Adds one line, which has no line break in it. One that cannot be written is counted as dropped:
    /// who said it is not asked for it again.
    pub(crate) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.write(line) {
            self.dropped += 1;
            return Err(error);
        }
        self.enforce_total()
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let needed = line.len() as u64 + 1;
        let is_full = self.segments.back().is_none_or(|s| s.bytes + needed > self.limits.segment);
        if self.writer.is_none() || is_full {
            self.start_segment()?;
        }
        let written = self.writer.as_mut().map_or(Ok(()), |writer| {
            let mut bytes = Vec::with_capacity(line.len() + 1);
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
            writer.write_all(&bytes)
        });
        if let Err(error) = written {
            // What is torn now is cut before anything is read or written again.
            self.writer = None;
            if let Some(last) = self.segments.back_mut() {
                last.bytes = cut_torn_end(&segment_path(&self.dir, last.number))?;
            }
            return Err(error);
        }
        if let Some(last) = self.segments.back_mut() {
            last.bytes += needed;
        }
        Ok(())
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let number = self.free.max(self.read.segment);
        let path = segment_path(&self.dir, number);
        // There was perhaps no room for the directory when the spool was opened.
        fs::create_dir_all(&self.dir)?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        self.writer = Some(file);
        self.free = number + 1;
        self.segments.push_back(Segment { number, bytes });
        if self.segments.len() == 1 {
            let start = Position { segment: number, offset: 0 };
            self.read = start;
            self.acknowledged = start;
        }
        Ok(())
    }

    fn enforce_total(&mut self) -> io::Result<()> {
        while self.segments.len() > 1
            && self.segments.iter().map(|s| s.bytes).sum::<u64>() > self.limits.total
        {
            let Some(oldest) = self.segments.pop_front() else { break };
            let path = segment_path(&self.dir, oldest.number);
            let from = if self.read.segment == oldest.number { self.read.offset } else { 0 };
            if self.read.segment <= oldest.number {
                // Of one that cannot be read, at least one.
                self.dropped += count_lines(&path, from).unwrap_or(1);
            }
            fs::remove_file(&path)?;
            let start = Position { segment: oldest.number + 1, offset: 0 };
            self.read = self.read.max(start);
            self.acknowledged = self.acknowledged.max(start);
        }
        Ok(())
    }

    /// The next lines that were not given yet, whole ones, about `max` bytes of them.
    pub(crate) fn next(&mut self, max: u64) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        while lines.is_empty() {
            let Some(segment) = self.segments.iter().find(|s| s.number >= self.read.segment) else {
                break;
            };
            let (number, bytes) = (segment.number, segment.bytes);
            if number > self.read.segment {
                self.read = Position { segment: number, offset: 0 };
            }
            if self.read.offset >= bytes {
                match self.segments.iter().any(|s| s.number > number) {
                    true => self.read = Position { segment: number + 1, offset: 0 },
                    false => break,
                }
                continue;
            }
            let mut file = File::open(segment_path(&self.dir, number))?;
            file.seek(SeekFrom::Start(self.read.offset))?;
            let mut chunk = Vec::new();
            file.take((bytes - self.read.offset).min(max.max(64 * 1024)))
                .read_to_end(&mut chunk)?;
            let Some(end) = chunk.iter().rposition(|byte| *byte == b'\n') else {
                // Longer than any line that is appended: damage. The rest of the segment goes.
                self.read.offset = bytes;
                self.dropped += 1;
                continue;
            };
            self.read.offset += end as u64 + 1;
            lines.extend(
                chunk[..end]
                    .split(|byte| *byte == b'\n')
                    .filter(|l| !l.is_empty())
                    .map(<[u8]>::to_vec),
            );
        }
        Ok(lines)
    }

    /// Whether [`Spool::next`] would give anything.
    pub(crate) fn has_more(&self) -> bool {
        self.segments.iter().any(|segment| {
            segment.number > self.read.segment && segment.bytes > 0
                || segment.number == self.read.segment && segment.bytes > self.read.offset
        })
    }

    /// Everything that was given has arrived; it is deleted.
    pub(crate) fn acknowledge(&mut self) -> io::Result<()> {
        self.acknowledged = self.read;
        let is_all = !self.has_more();
        while let Some(first) = self.segments.front().copied() {
            let is_done = first.number < self.read.segment
                || is_all && first.number == self.read.segment && self.segments.len() == 1;
            if !is_done {
                break;
            }
            if self.segments.len() == 1 {
                self.writer = None;
                self.read = Position { segment: first.number + 1, offset: 0 };
                self.acknowledged = self.read;
            }
            fs::remove_file(segment_path(&self.dir, first.number))?;
            self.segments.pop_front();
        }
        write_position(&self.dir, self.acknowledged)
    }

    /// What was given since the last acknowledgement is given again.
    pub(crate) fn rewind(&mut self) {
        self.read = self.acknowledged;
    }

    /// How many lines went unread since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Nobody heard of these: they are said again.
    pub(crate) fn give_back_dropped(&mut self, dropped: u64) {
        self.dropped += dropped;
    }

    /// A position file that is older than its segment may point into a line.
    fn is_on_line_start(&self) -> bool {
        let at = self.acknowledged;
        if at.offset == 0 || !self.segments.iter().any(|s| s.number == at.segment) {
            return true;
        }
        let before = || -> io::Result<u8> {
            let mut file = File::open(segment_path(&self.dir, at.segment))?;
            file.seek(SeekFrom::Start(at.offset - 1))?;
            let mut byte = [0];
            file.read_exact(&mut byte)?;
            Ok(byte[0])
        };
        before().is_ok_and(|byte| byte == b'\n')
    }
}

/// The numbers of the segments in the directory, which is made.
fn segment_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    fs::create_dir_all(dir)?;
    let mut numbers: Vec<u64> = fs::read_dir(dir)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".ndjson")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.ndjson"))
}

fn position_path(dir: &Path) -> PathBuf {
    dir.join("position")
}

fn cut_torn_end(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1);
    if whole < bytes.len() as u64 {
        OpenOptions::new().write(true).open(path)?.set_len(whole)?;
    }
    Ok(whole)
}

fn count_lines(path: &Path, from: u64) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    Ok(bytes[from..].iter().filter(|byte| **byte == b'\n').count() as u64)
}

fn read_position(path: &Path) -> Option<Position> {
    let text = fs::read_to_string(path).ok()?;
    let (segment, offset) = text.trim().split_once(' ')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

fn write_position(dir: &Path, position: Position) -> io::Result<()> {
    let beside = dir.join("position.tmp");
    fs::write(&beside, format!("{} {}\n", position.segment, position.offset))?;
    fs::rename(beside, position_path(dir))
}
