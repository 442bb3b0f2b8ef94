//! When and on what a measurement was made.

use std::process::Command;

use anyhow::Result;

use crate::command;

/// The date, as `2026-11-21`.
pub fn today() -> Result<String> {
    Ok(command::output(Command::new("date").arg("+%F"))?.trim().to_owned())
}

/// Cores, system and kernel: `2 cores, Debian GNU/Linux 12 (bookworm), kernel 6.18`.
pub fn describe() -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("an unnamed system")
        .trim_matches('"')
        .to_owned();
    let kernel = command::output(Command::new("uname").arg("-r"))?;
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    Ok(format!("{cores} cores, {system}, kernel {}", kernel.join(".")))
}
