//! Logs of devices: taken in, kept for a while, read back, followed live.
//!
//! Each device has a directory with at most two segments, the newer one appended to. A segment is
//! text, one entry a line: eight hexadecimal digits of checksum, a space, the entry as JSON.
//!
//! Invariants:
//! - What [`Logs::sync`] has returned for is on disk.
//! - A line that was not written whole is never read: at open, a segment is cut after its last whole line.
//! - A write that fails (disk full) leaves the segment as it was before.
//! - Everything is bounded: entries and bytes kept per device, bytes per entry, open files, and what
//!   a slow follower may fall behind.

mod entry;
mod segment;
mod store;

pub use entry::{Entry, MAX_MESSAGE};
pub use store::{DeviceKey, Follow, Followed, LogError, Logs, Options};
