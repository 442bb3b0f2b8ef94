//! One line of a log, in either form of storage.

use std::collections::BTreeMap;

use minke_engine_shim::log::Format;
use minke_engine_shim::record::{self, Front, Record};
use serde::Deserialize;

use crate::stamp;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) source: Source,
    /// Nanoseconds since 1970.
    pub(crate) time: i64,
    /// With its line feed, unless it is a piece of a longer line.
    pub(crate) text: String,
    /// What it is marked with.
    pub(crate) marks: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Stored<'a> {
    log: String,
    #[serde(default)]
    stream: &'a str,
    time: &'a str,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// What stands at the beginning of some bytes.
pub(super) enum Next {
    /// A line, or what is none, of so many bytes.
    Taken(Option<Line>, usize),
    /// The rest has not come.
    Part,
    /// Nothing more can be read.
    Broken,
}

/// Reads the line at the front.
pub(super) fn front(format: Format, bytes: &[u8]) -> Next {
    match format {
        Format::JsonFile => match bytes.iter().position(|byte| *byte == b'\n') {
            Some(feed) => Next::Taken(Line::parse(&bytes[..=feed]), feed + 1),
            None => Next::Part,
        },
        Format::Local => match record::front(bytes) {
            Front::Whole(record, length) => Next::Taken(Some(Line::of(&record)), length),
            Front::Part => Next::Part,
            Front::Broken => Next::Broken,
        },
    }
}

/// Reads the line at the very end, and where it begins; `None` if its beginning is not in these bytes.
/// `at_start`: nothing comes before them.
pub(super) fn back(format: Format, bytes: &[u8], at_start: bool) -> Option<(Option<Line>, usize)> {
    match format {
        Format::JsonFile => {
            let body = &bytes[..bytes.len().checked_sub(1)?];
            let start = match body.iter().rposition(|byte| *byte == b'\n') {
                Some(feed) => feed + 1,
                None if at_start => 0,
                None => return None,
            };
            Some((Line::parse(&bytes[start..]), start))
        }
        Format::Local => {
            let (record, start) = record::back(bytes)?;
            Some((Some(Line::of(&record)), start))
        }
    }
}

impl Line {
    /// Reads a stored line; `None` for what is not one (the disk was full, say).
    fn parse(bytes: &[u8]) -> Option<Line> {
        let stored: Stored<'_> = serde_json::from_slice(bytes).ok()?;
        let source = if stored.stream == "stderr" { Source::Stderr } else { Source::Stdout };
        let time = stamp::parse_rfc3339(stored.time)?;
        Some(Line { source, time, text: stored.log, marks: stored.attrs })
    }

    fn of(record: &Record<'_>) -> Line {
        let mut text = String::from_utf8_lossy(record.text).into_owned();
        if !record.piece {
            text.push('\n');
        }
        let source = if record.stderr { Source::Stderr } else { Source::Stdout };
        let time = i64::try_from(record.time).unwrap_or(i64::MAX);
        Line { source, time, text, marks: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_form_is_read_and_garbage_is_not() {
        let line =
            br#"{"log":"a\u00e9\n","stream":"stderr","time":"2023-11-14T22:13:20.000000001Z"}"#;
        let line = Line::parse(line).unwrap();
        assert_eq!((line.source, line.text.as_str()), (Source::Stderr, "aé\n"));
        assert_eq!(line.time, 1_700_000_000_000_000_001);
        assert!(Line::parse(br#"{"log":"torn"#).is_none());
    }
}
