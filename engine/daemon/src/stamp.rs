//! Times as the API writes and reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use minke_common_model::durations;

/// What a container that never ran says as its start and end.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nanoseconds; 0 is "never".
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return NEVER.to_owned();
    }
    match Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => NEVER.to_owned(),
    }
}

/// Reads an RFC 3339 time as nanoseconds since 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Reads a query's time: seconds since 1970 with an optional fraction, RFC 3339, a local date and
/// time without a zone (taken as UTC), or a duration back from now (`10m`, `1h30m`).
pub(crate) fn parse_query(text: &str, now: i64) -> Option<i64> {
    if let Some(seconds) = parse_seconds(text) {
        return Some(seconds);
    }
    if let Some(time) = parse_rfc3339(text) {
        return Some(time);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        let zoned = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        return i64::try_from(zoned.timestamp().as_nanosecond()).ok();
    }
    Some(now.saturating_sub(durations::nanoseconds(text.strip_prefix('-').unwrap_or(text))?))
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let nanoseconds: i64 = format!("{digits:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// How long ago, for people: `3 minutes`, `About an hour`.
pub(crate) fn for_people(nanoseconds: i64) -> String {
    let seconds = nanoseconds.max(0) / 1_000_000_000;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_nine_digits_and_read_back() {
        assert_eq!(rfc3339(0), NEVER);
        let text = rfc3339(1_700_000_000_000_000_001);
        assert_eq!(text, "2023-11-14T22:13:20.000000001Z");
        assert_eq!(parse_rfc3339(&text), Some(1_700_000_000_000_000_001));
    }

    #[test]
    fn queries_say_times_in_four_ways() {
        let now = 10_000_000_000;
        assert_eq!(parse_query("5", now), Some(5_000_000_000));
        assert_eq!(parse_query("5.25", now), Some(5_250_000_000));
        assert_eq!(parse_query("1970-01-01T00:00:05Z", now), Some(5_000_000_000));
        assert_eq!(parse_query("1970-01-01T00:00:05", now), Some(5_000_000_000));
        assert_eq!(parse_query("1.5s", now), Some(8_500_000_000));
        assert_eq!(parse_query("1m2s", 100_000_000_000), Some(38_000_000_000));
        assert_eq!(parse_query("yesterday", now), None);
        assert_eq!(parse_query("", now), None);
    }

    #[test]
    fn people_read_rough_times() {
        let seconds = |n: i64| for_people(n * 1_000_000_000);
        assert_eq!(seconds(0), "Less than a second");
        assert_eq!(seconds(59), "59 seconds");
        assert_eq!(seconds(61), "About a minute");
        assert_eq!(seconds(3600), "About an hour");
        assert_eq!(seconds(3 * 3600), "3 hours");
        assert_eq!(seconds(3 * 86400), "3 days");
    }
}
