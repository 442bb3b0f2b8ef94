//! One line of a json-file log.

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
}

#[derive(Deserialize)]
struct Stored<'a> {
    log: String,
    #[serde(default)]
    stream: &'a str,
    time: &'a str,
}

impl Line {
    /// Reads a stored line; `None` for what is not one (the disk was full, say).
    pub(crate) fn parse(bytes: &[u8]) -> Option<Line> {
        let stored: Stored<'_> = serde_json::from_slice(bytes).ok()?;
        let source = if stored.stream == "stderr" { Source::Stderr } else { Source::Stdout };
        Some(Line { source, time: stamp::parse_rfc3339(stored.time)?, text: stored.log })
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
