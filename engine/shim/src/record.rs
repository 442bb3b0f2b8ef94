//! Log records of the `local` driver. Pure: bytes in, bytes out.
//!
//! ```text
//! length  flags  time            text            length
//! u32     u8     u64, ns (1970)  length-9 bytes  u32      (little-endian)
//! ```
//! The length is that of flags, time and text. It stands at both ends, so a log is read from its end as
//! well as from its beginning, and a record that a crash has torn is told from a whole one. A text
//! is one line without its line feed, or (flag) a piece of a longer one.

use crate::log::LONGEST;

const STDERR: u8 = 1;
const PIECE: u8 = 2;
/// Bytes of flags and time.
const HEAD: usize = 9;
/// Bytes of both lengths.
const FRAME: usize = 8;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// From standard error, else from standard output.
    pub stderr: bool,
    /// The line goes on in the next record of the same stream.
    pub piece: bool,
    /// Nanoseconds since the epoch.
    pub time: u64,
    /// Without the line feed.
    pub text: &'a [u8],
}

/// What the beginning of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// A record, and how long it is with its frame.
    Whole(Record<'a>, usize),
    /// The beginning of one; the rest has not come.
    Part,
    /// No record.
    Broken,
}

/// Append a record.
pub fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    let length = ((HEAD + record.text.len()) as u32).to_le_bytes();
    let flags = if record.stderr { STDERR } else { 0 } | if record.piece { PIECE } else { 0 };
    out.extend_from_slice(&length);
    out.push(flags);
    out.extend_from_slice(&record.time.to_le_bytes());
    out.extend_from_slice(record.text);
    out.extend_from_slice(&length);
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes) as usize)
}

/// Read the record at the front.
pub fn front(bytes: &[u8]) -> Front<'_> {
    let Some(length) = length_at(bytes, 0) else { return Front::Part };
    if !(HEAD..=HEAD + LONGEST).contains(&length) {
        return Front::Broken;
    }
    let Some(end) = length_at(bytes, 4 + length) else { return Front::Part };
    match parse(&bytes[4..4 + length]) {
        Some(record) if end == length => Front::Whole(record, length + FRAME),
        _ => Front::Broken,
    }
}

/// Read the record at the very end, and where it begins. `None`: there is no whole one, or its beginning
/// lies before these bytes.
pub fn back(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let length = length_at(bytes, bytes.len().checked_sub(4)?)?;
    let start = bytes.len().checked_sub(length.checked_add(FRAME)?)?;
    match front(&bytes[start..]) {
        Front::Whole(record, _) => Some((record, start)),
        Front::Part | Front::Broken => None,
    }
}

fn parse(body: &[u8]) -> Option<Record<'_>> {
    let (flags, rest) = body.split_first()?;
    let (time, text) = rest.split_first_chunk::<8>()?;
    (*flags <= STDERR | PIECE).then(|| Record {
        stderr: flags & STDERR != 0,
        piece: flags & PIECE != 0,
        time: u64::from_le_bytes(*time),
        text,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = (bool, bool, u64, Vec<u8>)> {
        (any::<bool>(), any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..300))
    }

    proptest! {
        #[test]
        fn records_are_read_from_both_ends(list in prop::collection::vec(record(), 1..8)) {
            let records: Vec<Record<'_>> = list
                .iter()
                .map(|(stderr, piece, time, text)| Record {
                    stderr: *stderr, piece: *piece, time: *time, text,
                })
                .collect();
            let mut bytes = Vec::new();
            records.iter().for_each(|record| encode(record, &mut bytes));
            let mut rest = &bytes[..];
            for record in &records {
                let Front::Whole(read, length) = front(rest) else { panic!("not whole") };
                prop_assert_eq!(&read, record);
                rest = &rest[length..];
            }
            let mut end = bytes.len();
            for record in records.iter().rev() {
                let (read, start) = back(&bytes[..end]).unwrap();
                prop_assert_eq!(&read, record);
                end = start;
            }
            prop_assert_eq!(end, 0);
        }

        #[test]
        fn a_torn_record_is_never_whole((stderr, piece, time, text) in record(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&Record { stderr, piece, time, text: &text }, &mut bytes);
            let torn = &bytes[..cut.index(bytes.len())];
            prop_assert_eq!(front(torn), Front::Part);
        }
    }
}
