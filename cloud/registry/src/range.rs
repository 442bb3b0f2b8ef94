//! Ranges of bytes in headers. Pure.

use std::ops::Range;

/// What a `Range` header asks of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything; also when the header is in a form that may be ignored.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes behind the end.
    Nothing,
}

/// Reads `Range: bytes=…` for an object of `size` bytes. Several ranges count as none.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let spec = header.and_then(|value| value.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Wanted::Whole;
    };
    let part = match (number(first), number(last)) {
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        (Some(first), None) if last.is_empty() => first..size,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        _ => return Wanted::Whole,
    };
    if part.start < part.end { Wanted::Part(part) } else { Wanted::Nothing }
}

/// Reads `Content-Range` of an upload's chunk, `first-last` with or without `bytes` and a
/// total: `(first, length)`.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let spec = header.trim();
    let spec = spec.strip_prefix("bytes").map_or(spec, |rest| rest.trim_start_matches([' ', '=']));
    let (first, last) = spec.split('/').next()?.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    Some((first, length))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_download() {
        let cases = [
            (None, Wanted::Whole),
            (Some("bytes=0-4"), Wanted::Part(0..5)),
            (Some("bytes=8-"), Wanted::Part(8..10)),
            (Some("bytes=-3"), Wanted::Part(7..10)),
            (Some("bytes=-30"), Wanted::Part(0..10)),
            (Some("bytes=5-99"), Wanted::Part(5..10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=0-18446744073709551615"), Wanted::Part(0..10)),
            (Some("bytes=4-2"), Wanted::Whole),
            (Some("bytes=0-1,4-5"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("lines=1-2"), Wanted::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
    }

    #[test]
    fn ranges_of_a_chunk() {
        for header in ["5-9", "bytes 5-9/20", "bytes 5-9/*", "bytes=5-9"] {
            assert_eq!(chunk(header), Some((5, 5)), "{header}");
        }
        for header in ["", "5", "9-5", "a-b", "0-18446744073709551615"] {
            assert_eq!(chunk(header), None, "{header}");
        }
    }
}
