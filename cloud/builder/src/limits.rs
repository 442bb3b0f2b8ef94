//! How much of everything a push may bring. Excess is refused with the limit it broke.

use std::time::Duration;

/// Limits of one push.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the archive as sent.
    pub sent: u64,
    /// Bytes of all files, unpacked.
    pub unpacked: u64,
    /// Files, directories and links.
    pub entries: usize,
    /// Bytes of one path.
    pub path: usize,
    /// Longest pause between two pieces of the archive.
    pub stall: Duration,
    /// Longest time from the first piece of the archive to its end.
    pub receive: Duration,
    /// Longest build of one release.
    pub build: Duration,
    /// Memory of one `RUN` step, in bytes.
    pub step_memory: u64,
    /// Bytes of one service's log that are kept; the end is kept when there is more.
    pub log: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sent: 2 << 30,
            unpacked: 4 << 30,
            entries: 200_000,
            path: 1024,
            stall: Duration::from_secs(60),
            receive: Duration::from_secs(3600),
            build: Duration::from_secs(2 * 3600),
            step_memory: 2 << 30,
            log: 1_400_000,
        }
    }
}
