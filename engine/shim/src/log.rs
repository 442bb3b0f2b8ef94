//! Log lines as they are stored. Pure: bytes in, bytes out.
//!
//! [`Format::Local`] is described in [`crate::record`]; [`Format::JsonFile`] is Docker's: one JSON object
//! a line, `{"log":"text\n","stream":"stdout","time":"2026-11-14T01:41:16.638000001Z"}`.
//! A line of a container longer than [`LONGEST`] is split; only the last piece ends with a line feed.

use crate::record::{self, Record};

/// Longest piece of a line in one object, bytes.
pub const LONGEST: usize = 16 * 1024;

/// How lines are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Docker's `json-file`.
    #[default]
    JsonFile,
    /// Ours, smaller: `local`.
    Local,
}

impl Format {
    /// Store a line, or a piece of one.
    fn print(self, text: &[u8], stderr: bool, marks: &str, time: u64) -> Vec<u8> {
        match self {
            Self::JsonFile => {
                json_line(text, if stderr { "stderr" } else { "stdout" }, marks, time)
            }
            Self::Local => {
                let (text, piece) = match text.strip_suffix(b"\n") {
                    Some(line) => (line, false),
                    None => (text, true),
                };
                let mut out = Vec::with_capacity(text.len() + 17);
                record::encode(&Record { stderr, piece, time, text }, &mut out);
                out
            }
        }
    }
}

/// Cuts one stream into lines and prints them.
#[derive(Debug)]
pub struct LineWriter {
    format: Format,
    stderr: bool,
    /// A JSON object, or nothing.
    marks: String,
    partial: Vec<u8>,
}

impl LineWriter {
    /// For standard error or standard output.
    pub fn new(format: Format, stderr: bool) -> Self {
        Self { format, stderr, marks: String::new(), partial: Vec::new() }
    }

    /// With a JSON object in every line of a `json-file`; empty: none.
    #[must_use]
    pub fn marked(self, marks: &str) -> Self {
        Self { marks: marks.to_owned(), ..self }
    }

    fn print(&self, text: &[u8], time: u64) -> Vec<u8> {
        self.format.print(text, self.stderr, &self.marks, time)
    }

    /// Take output that was read at `time` (nanoseconds since the epoch); `emit` gets each stored line.
    pub fn push(&mut self, mut bytes: &[u8], time: u64, emit: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LONGEST - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(window.len());
            let whole = end.is_some() || taken == room;
            if whole && self.partial.is_empty() {
                emit(&self.print(&bytes[..taken], time));
            } else {
                self.partial.extend_from_slice(&bytes[..taken]);
                if whole {
                    emit(&self.print(&self.partial, time));
                    self.partial = Vec::new();
                }
            }
            bytes = &bytes[taken..];
        }
    }

    /// The stream has ended: print what is left.
    pub fn finish(&mut self, time: u64, emit: &mut impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            emit(&self.print(&self.partial, time));
            self.partial = Vec::new();
        }
    }
}

fn json_line(text: &[u8], stream: &str, marks: &str, time: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + marks.len() + 80);
    out.extend_from_slice(b"{\"log\":\"");
    escape(text, &mut out);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    if !marks.is_empty() {
        out.extend_from_slice(b"\",\"attrs\":");
        out.extend_from_slice(marks.as_bytes());
        out.extend_from_slice(b",\"time\":\"");
    } else {
        out.extend_from_slice(b"\",\"time\":\"");
    }
    timestamp(time, &mut out);
    out.extend_from_slice(b"\"}\n");
    out
}

/// Append text as the inside of a JSON string; what is not UTF-8 becomes U+FFFD.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in text.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 | b'<' | b'>' | b'&' | 0x7f => {
                    out.extend_from_slice(b"\\u00");
                    out.push(HEX[usize::from(byte >> 4)]);
                    out.push(HEX[usize::from(byte & 15)]);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Append a time as RFC 3339 with nine digits of a second, in UTC.
pub fn timestamp(nanoseconds: u64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut digits = |mut value: u64, width: usize, end: u8| {
        let start = out.len();
        out.resize(start + width, b'0');
        for place in out[start..].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
        out.push(end);
    };
    digits(year, 4, b'-');
    digits(month, 2, b'-');
    digits(day, 2, b'T');
    digits(second / 3600, 2, b':');
    digits(second / 60 % 60, 2, b':');
    digits(second % 60, 2, b'.');
    digits(fraction, 9, b'Z');
}

/// Year, month and day of a day number since 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day last; 719468 days lie between 0000-03-01 and 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_in_every_line() {
        let mut writer = LineWriter::new(Format::JsonFile, true).marked(r#"{"a":"b"}"#);
        let mut out = Vec::new();
        writer.push(b"x\n", 0, &mut |line| out.extend_from_slice(line));
        let expected = concat!(
            r#"{"log":"x\n","stream":"stderr","attrs":{"a":"b"},"#,
            r#""time":"1970-01-01T00:00:00.000000000Z"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    fn lines(pushes: &[&[u8]]) -> Vec<String> {
        let mut writer = LineWriter::new(Format::JsonFile, false);
        let mut out = Vec::new();
        let mut emit = |line: &[u8]| out.push(String::from_utf8(line.to_vec()).unwrap());
        for push in pushes {
            writer.push(push, 0, &mut emit);
        }
        writer.finish(0, &mut emit);
        out
    }

    #[test]
    fn output_is_cut_at_line_feeds_wherever_reads_end() {
        let expected = [
            "{\"log\":\"ab\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n",
            "{\"log\":\"\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n",
            "{\"log\":\"c\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n",
        ];
        assert_eq!(lines(&[b"ab\n\nc"]), expected);
        assert_eq!(lines(&[b"a", b"b", b"\n\n", b"c"]), expected);
    }

    #[test]
    fn long_lines_are_split() {
        let long = vec![b'x'; LONGEST * 2 + 5];
        let split = lines(&[&long, b"\n"]);
        assert_eq!(split.len(), 3);
        assert!(!split[0].contains("\\n") && split[2].contains("xxxxx\\n"));
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = Vec::new();
        escape(b"q\"\\\x1b<\xffz\xc3\xa9", &mut out);
        assert_eq!(out, "q\\\"\\\\\\u001b\\u003c\u{fffd}z\u{e9}".as_bytes());
    }

    #[test]
    fn times_are_calendar_times() {
        let text = |ns| {
            let mut out = Vec::new();
            timestamp(ns, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(text(1_794_620_476_638_000_001), "2026-11-14T01:41:16.638000001Z");
        assert_eq!(text(4_102_444_799_999_999_999), "2099-12-31T23:59:59.999999999Z");
    }
}
