//! Reads the logs that shims write.
//!
//! A log is the file `<id>-json.log` or `<id>-local.log` and, when it is rotated, older ones `.1` (newest)
//! to `.n`, some packed (`.gz`). A reader starts at the oldest and goes on into the live file; when that
//! is renamed away it finishes the renamed one first. A torn last line is one that is still being written:
//! it is left until whole.

mod follow;
mod line;
mod part;
mod tail;

use std::path::Path;

use minke_engine_shim::log::Format;

pub(crate) use follow::Follower;
pub(crate) use line::{Line, Source};

/// A stored line is never longer: a shim cuts lines at 16 KiB, which JSON can make six times as long.
const LONGEST: usize = 1 << 20;

/// Which lines a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Nanoseconds since 1970; 0 is from the beginning.
    pub(crate) since: i64,
    /// Nanoseconds since 1970; 0 is to the end.
    pub(crate) until: i64,
    /// Only the newest lines.
    pub(crate) tail: Option<u64>,
}

impl Query {
    /// Whether a line is wanted (`tail` is not looked at).
    pub(crate) fn wants(&self, line: &Line) -> bool {
        let source = match line.source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        };
        source && line.time >= self.since && (self.until == 0 || line.time <= self.until)
    }
}

/// How the log at this path is stored: its name says it.
fn format_of(log: &Path) -> Format {
    let name = log.file_name().unwrap_or_default().as_encoded_bytes();
    if name.ends_with(b"-local.log") { Format::Local } else { Format::JsonFile }
}
