//! What a pull, push or load tells while it runs: the words of Docker's progress lines.

use std::sync::Arc;

use serde_json::{Value, json};

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressEvent {
    /// The layer it is about (first 12 digits), or the tag for the opening line.
    pub id: Option<String>,
    /// `Downloading`, `Pull complete`, `Digest: sha256:…`.
    pub status: String,
    /// How far it is.
    pub detail: Option<ProgressDetail>,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressDetail {
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; 0 if not known.
    pub total: u64,
}

impl ProgressEvent {
    /// A line about nothing in particular.
    pub fn message(status: impl Into<String>) -> Self {
        Self { id: None, status: status.into(), detail: None }
    }

    /// A line about one layer or tag.
    pub fn of(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: Some(id.into()), status: status.into(), detail: None }
    }

    /// A line about one layer with how far it is.
    pub fn at(id: impl Into<String>, status: impl Into<String>, current: u64, total: u64) -> Self {
        let detail = Some(ProgressDetail { current, total });
        Self { id: Some(id.into()), status: status.into(), detail }
    }

    /// The line as Docker's API writes it.
    pub fn to_json(&self) -> Value {
        let mut line = json!({ "status": self.status });
        match self.detail {
            Some(ProgressDetail { current, total }) => {
                let mut detail = json!({ "current": current });
                if total > 0 {
                    detail["total"] = total.into();
                }
                line["progressDetail"] = detail;
                line["progress"] = progress_bar(current, total).into();
            }
            None if self.id.is_some() => line["progressDetail"] = json!({}),
            None => {}
        }
        if let Some(id) = &self.id {
            line["id"] = id.as_str().into();
        }
        line
    }
}

const BAR_WIDTH: usize = 50;

fn progress_bar(current: u64, total: u64) -> String {
    if total == 0 {
        return human_size(current);
    }
    let done = (u128::from(current.min(total)) * BAR_WIDTH as u128 / u128::from(total)) as usize;
    let mut bar = "=".repeat(done);
    if done < BAR_WIDTH {
        bar.push('>');
    }
    format!("[{bar:<BAR_WIDTH$}]  {}/{}", human_size(current), human_size(total))
}

/// Bytes in decimal units with up to four digits, as Docker prints them: `27.1MB`.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let number = format!("{value:.decimals$}");
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    format!("{number}{}", UNITS[unit])
}

/// Where progress goes; called from any thread, must not block for long.
pub(crate) type Sink = Arc<dyn Fn(ProgressEvent) + Send + Sync>;

/// The first 12 digits of a digest: how people see a layer.
pub(crate) fn short_id(digest: &minke_common_model::digest::Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(12);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_dockers_lines() {
        let line = ProgressEvent::at("0123456789ab", "Downloading", 1_500_000, 3_000_000).to_json();
        assert_eq!(line["progressDetail"], json!({"current": 1_500_000, "total": 3_000_000}));
        let bar = format!("[{}>{}]  1.5MB/3MB", "=".repeat(25), " ".repeat(24));
        assert_eq!(line["progress"], bar);
        assert_eq!(
            ProgressEvent::of("a", "Pull complete").to_json(),
            json!({"status": "Pull complete", "progressDetail": {}, "id": "a"})
        );
        assert_eq!(ProgressEvent::message("Digest: x").to_json(), json!({"status": "Digest: x"}));
    }

    #[test]
    fn sizes_have_four_digits_at_most() {
        assert_eq!(human_size(0), "0B");
        assert_eq!(human_size(999), "999B");
        assert_eq!(human_size(27_093_000), "27.09MB");
        assert_eq!(human_size(264_100_000), "264.1MB");
    }
}
