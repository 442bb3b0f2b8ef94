//! Durations as Go programs write them: `1h30m`, `1.5s`, `100ms`.

/// The nanoseconds that a duration without a sign says; `None` if it is none, or more than fits.
pub fn nanoseconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_of_number(c))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(is_of_number).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    (!text.is_empty()).then_some(total).and_then(whole)
}

/// The same as compose files have it, where a plain number is seconds.
pub fn seconds_or_units(text: &str) -> Option<i64> {
    let is_plain = text.chars().all(is_of_number);
    match text.parse::<f64>() {
        Ok(seconds) if is_plain => whole(seconds * 1e9),
        _ => nanoseconds(text),
    }
}

fn is_of_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

fn whole(nanoseconds: f64) -> Option<i64> {
    (nanoseconds < i64::MAX as f64).then_some(nanoseconds as i64)
}

#[cfg(test)]
mod tests {
    use super::{nanoseconds, seconds_or_units};

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("30s", Some(30 * SECOND)),
            ("1h30m", Some(5400 * SECOND)),
            ("1.5s", Some(3 * SECOND / 2)),
            ("1s.5s", Some(3 * SECOND / 2)),
            ("100ms", Some(SECOND / 10)),
            ("7us", Some(7000)),
            ("7µs", Some(7000)),
            ("9ns", Some(9)),
            ("2562047h", Some(2_562_047 * 3600 * SECOND)),
            ("2562048h", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("1m30", None),
            ("-1s", None),
            ("1 s", None),
            ("1.2.3s", None),
            ("infs", None),
            ("3d", None),
        ] {
            assert_eq!(nanoseconds(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn compose_files_also_have_seconds() {
        for (text, wanted) in [
            ("5", Some(5 * SECOND)),
            ("0.5", Some(SECOND / 2)),
            ("1m30s", Some(90 * SECOND)),
            ("1m30", None),
            ("", None),
            (".", None),
            ("inf", None),
            ("nan", None),
            ("-5", None),
            ("99999999999", None),
        ] {
            assert_eq!(seconds_or_units(text), wanted, "{text:?}");
        }
    }
}
