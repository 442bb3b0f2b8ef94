//! How long each stage of a push took, from what the parts themselves wrote down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Cli;

/// The stages from the command to the answer of the new container.
#[derive(Debug, Clone, Copy)]
pub struct Stages {
    /// Packing the project on the person's machine.
    pub pack: Duration,
    /// Sending it, and building the images that changed.
    pub build: Duration,
    /// Storing the images in the registry and making the release.
    pub store: Duration,
    /// Until the device has begun to act.
    pub notify: Duration,
    /// Fetching what the device lacks.
    pub pull: Duration,
    /// Replacing the containers, until the new one answers.
    pub start: Duration,
    /// From the command to the answer.
    pub total: Duration,
}

impl Stages {
    /// Measures a push that began at `begun` and was answered at `answered`.
    /// `push` is what `minke push --json` wrote.
    pub fn measure(
        cli: &Cli,
        device: &str,
        push: &[Value],
        begun: SystemTime,
        answered: SystemTime,
    ) -> Result<Stages> {
        let last = push.last().context("minke push wrote nothing")?;
        let release = last["releaseId"].as_i64().context("minke push named no release")?;
        let pack =
            last["packMs"].as_u64().context("minke push did not say how long packing took")?;
        let release = cli.json(&["release", "show", &release.to_string()])?;
        let commit = release["commit"].as_str().context("the release has no commit")?;
        let stored = milliseconds(&release["end_timestamp"])?;
        let images = release["images"].as_array().context("the release has no images")?;
        let times: Vec<i64> = images
            .iter()
            .map(|image| milliseconds(&image["push_timestamp"]))
            .collect::<Result<_>>()?;
        let built = times.into_iter().max().context("the release has no images")?;
        let log = cli.json_lines(&["logs", device, "--system"])?;
        let begun = milliseconds_of(begun)?;
        let answered = milliseconds_of(answered)?;
        let times = Log { entries: &log, begun };
        let noticed = times.first(&format!("Applying release {commit}"))?;
        let pulled = times.last("Downloaded image").unwrap_or(noticed);
        let span =
            |from: i64, to: i64| Duration::from_millis(u64::try_from(to - from).unwrap_or(0));
        let pack = Duration::from_millis(pack);
        Ok(Stages {
            pack,
            build: span(begun, built).saturating_sub(pack),
            store: span(built, stored),
            notify: span(stored, noticed),
            pull: span(noticed, pulled),
            start: span(pulled, answered),
            total: span(begun, answered),
        })
    }

    /// Names and times, in order.
    pub fn rows(&self) -> [(&'static str, Duration); 7] {
        [
            ("pack", self.pack),
            ("build", self.build),
            ("store", self.store),
            ("notify", self.notify),
            ("pull", self.pull),
            ("start", self.start),
            ("total", self.total),
        ]
    }
}

/// A device's log since the push began.
struct Log<'a> {
    entries: &'a [Value],
    begun: i64,
}

impl Log<'_> {
    fn times(&self, prefix: &str) -> impl DoubleEndedIterator<Item = i64> {
        self.entries.iter().filter_map(move |entry| {
            let time = entry["timestamp"].as_i64()?;
            (time >= self.begun && entry["message"].as_str()?.starts_with(prefix)).then_some(time)
        })
    }

    fn first(&self, prefix: &str) -> Result<i64> {
        self.times(prefix).next().with_context(|| format!("the device's log has no `{prefix}`"))
    }

    fn last(&self, prefix: &str) -> Option<i64> {
        self.times(prefix).next_back()
    }
}

fn milliseconds_of(time: SystemTime) -> Result<i64> {
    let since = time.duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    i64::try_from(since.as_millis()).context("the clock stands too far in the future")
}

/// Milliseconds since 1970 of an ISO time in UTC, as `2026-11-14T01:41:16.638Z`.
fn milliseconds(value: &Value) -> Result<i64> {
    let text = value.as_str().with_context(|| format!("{value} is not a time"))?;
    parse_utc(text).with_context(|| format!("`{text}` is not a time as 2026-11-14T01:41:16.638Z"))
}

fn parse_utc(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let millis = if text.len() > 20 { number(20, 23)? } else { 0 };
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::parse_utc;

    #[test]
    fn times_are_milliseconds_since_1970() {
        assert_eq!(parse_utc("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(parse_utc("2026-11-14T01:41:16.638Z"), Some(1_794_620_476_638));
        assert_eq!(parse_utc("2024-02-29T12:00:00Z"), Some(1_709_208_000_000));
        assert_eq!(parse_utc("yesterday"), None);
    }
}
