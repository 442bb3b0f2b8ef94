//! Reads the json-file logs that shims write.
//!
//! A log is the file `<id>-json.log` and, when it is rotated, older ones `.1` (newest) to `.n`. A
//! reader starts at the oldest and goes on into the live file; when that is renamed away it finishes
//! the renamed one first. A torn last line is one that is still being written: it is left until whole.

mod follow;
mod line;
mod tail;

use std::path::{Path, PathBuf};

pub(crate) use follow::Follower;
pub(crate) use line::{Line, Source};

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

/// The files of a log that exist, oldest first.
fn files(log: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = (1..=1000)
        .map(|number| PathBuf::from(format!("{}.{number}", log.display())))
        .take_while(|path| path.exists())
        .collect();
    files.reverse();
    if log.exists() {
        files.push(log.to_owned());
    }
    files
}
