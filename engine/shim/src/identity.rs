//! Which process a pid was: pid and start time, so that a reused pid is never mistaken for a shim.

use std::fs;
use std::io;

/// Start time of a process in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
pub fn start_time(pid: u32) -> io::Result<u64> {
    let mut path = String::from("/proc/");
    path.push_str(&pid.to_string());
    path.push_str("/stat");
    let stat = fs::read_to_string(path)?;
    // The name in parentheses may itself hold spaces and parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/<pid>/stat"))
}

/// Text of `D/shim.pid` for this process.
pub fn print(pid: u32, start_time: u64) -> String {
    format!("{pid} {start_time}\n")
}

/// Pid and start time in `D/shim.pid`.
pub fn parse(text: &str) -> Option<(u32, u64)> {
    let (pid, start) = text.trim_end().split_once(' ')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// Whether the process that wrote this `shim.pid` still runs. After a reboot the start times differ.
pub fn is_alive(text: &str) -> bool {
    parse(text).is_some_and(|(pid, start)| start_time(pid).is_ok_and(|now| now == start))
}
