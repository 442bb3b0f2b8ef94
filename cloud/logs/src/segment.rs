//! One file of log lines: appended to, read back, cut where a line was torn.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::entry::Entry;

/// A segment open for appending; its file ends after a whole line.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// Whole lines.
    pub(crate) entries: usize,
    is_dirty: bool,
}

impl Segment {
    /// Opens or makes the file and cuts off what is not a whole line at its end.
    pub(crate) fn open(path: &Path) -> io::Result<Segment> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (length, entries) = whole_lines(&bytes);
        if length < bytes.len() {
            file.set_len(length as u64)?;
            file.sync_data()?;
        }
        file.seek(SeekFrom::Start(length as u64))?;
        Ok(Segment { file, length: length as u64, entries, is_dirty: false })
    }

    /// Whether something was appended that is not durable yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Bytes of whole lines.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends all the entries or, on an error, none.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let text: String = entries.iter().map(Entry::to_line).collect();
        self.is_dirty = true;
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // A failure here leaves a torn line, which the next open cuts off.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += text.len() as u64;
        self.entries += entries.len();
        Ok(())
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.sync_data()?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

/// Bytes and number of the whole lines at the beginning.
fn whole_lines(bytes: &[u8]) -> (usize, usize) {
    let mut length = 0;
    let mut count = 0;
    while let Some(end) = bytes[length..].iter().position(|byte| *byte == b'\n') {
        if Entry::from_line(&bytes[length..length + end]).is_none() {
            break;
        }
        length += end + 1;
        count += 1;
    }
    (length, count)
}

/// The entries of a segment's file; none if there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let (length, count) = whole_lines(&bytes);
    let mut entries = Vec::with_capacity(count);
    entries.extend(bytes[..length].split(|byte| *byte == b'\n').filter_map(Entry::from_line));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(number: usize) -> Entry {
        Entry {
            message: format!("line {number} \n\u{0}\"\\ ä"),
            created_at: number as i64,
            timestamp: number as i64,
            is_system: number.is_multiple_of(2),
            is_std_err: false,
            service_id: (number % 3 == 1).then_some(number as i64),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However a crash leaves the end of the file, what is read is a beginning of what was
        /// written, whole lines before the damage are all there, and appending goes on.
        #[test]
        fn a_torn_tail_costs_only_itself(
            count in 1usize..12, cut in 0.0f64..1.0, damage in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let written: Vec<Entry> = (0..count).map(entry).collect();
            Segment::open(&path).unwrap().append(&written).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let kept = (bytes.len() as f64 * cut) as usize;
            bytes.truncate(kept);
            let whole = bytes.iter().filter(|byte| **byte == b'\n').count();
            bytes.extend_from_slice(&damage);
            std::fs::write(&path, &bytes).unwrap();

            let mut segment = Segment::open(&path).unwrap();
            prop_assert!(segment.entries >= whole && segment.entries <= count);
            prop_assert_eq!(&read(&path).unwrap(), &written[..segment.entries]);
            let more = entry(100);
            segment.append(std::slice::from_ref(&more)).unwrap();
            let now = read(&path).unwrap();
            prop_assert_eq!(now.len(), segment.entries);
            prop_assert_eq!(now.last().unwrap(), &more);
        }

        #[test]
        fn a_changed_byte_is_never_read_as_something_else(at in 0.0f64..1.0, bit in 0u8..8) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let written: Vec<Entry> = (0..5).map(entry).collect();
            Segment::open(&path).unwrap().append(&written).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            for read in read(&path).unwrap() {
                prop_assert!(written.contains(&read), "{read:?}");
            }
        }
    }
}
