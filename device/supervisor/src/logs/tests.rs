use bytes::Bytes;

use super::*;

fn chunk(source: LogSource, text: &str) -> LogChunk {
    LogChunk { source, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

#[test]
fn lines_are_put_together_from_any_pieces() {
    let text = "2026-11-21T04:00:00.000000001Z one\r\n2026-11-21T04:00:01.5Z two words\n2026-11-21T04:00:02Z \n";
    let expected = [
        (1_795_233_600_000_000_001, "one"),
        (1_795_233_601_500_000_000, "two words"),
        (1_795_233_602_000_000_000, ""),
    ];
    for size in [1, 2, 7, 40, 1000] {
        let mut lines = Lines::default();
        for piece in text.as_bytes().chunks(size) {
            lines.feed(&chunk(LogSource::Stdout, std::str::from_utf8(piece).unwrap()));
        }
        let whole: Vec<_> = lines.whole();
        let found: Vec<_> = whole.iter().map(|l| (l.nanoseconds, l.message.as_str())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_streams_do_not_mix_and_the_last_line_needs_no_end() {
    let mut lines = Lines::default();
    lines.feed(&chunk(LogSource::Stdout, "2026-11-21T04:00:00Z out"));
    lines.feed(&chunk(LogSource::Stderr, "2026-11-21T04:00:01Z err\n"));
    assert_eq!(lines.whole().len(), 1);
    let rest = lines.rest();
    assert_eq!((rest[0].source, rest[0].message.as_str()), (LogSource::Stdout, "out"));
}

#[test]
fn what_comes_after_a_line_is_one_nanosecond_later() {
    assert_eq!(after(1_795_233_600_999_999_999), "1795233601.000000000");
    assert_eq!(after(1_000_000_041), "1.000000042");
}
