//! `ip` and `nft`, and names that follow from a data directory.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs `ip` with these words.
pub fn ip(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ip")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("cannot start `ip` (package iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {}`: {}", words.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has `nft` apply these rules, all or none.
pub fn nft(rules: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `nft` (package nftables)")?;
    let mut input = child.stdin.take().context("nft has no input")?;
    input.write_all(rules.as_bytes()).context("cannot give nft its rules")?;
    drop(input);
    let output = child.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The names of what a device makes on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Host end of the veth pair.
    pub veth: String,
    /// The device's end, until it is renamed inside.
    pub peer: String,
    /// Its own bridge, if it makes one.
    pub bridge: String,
    /// The packet filter table of that bridge.
    pub table: String,
}

impl Names {
    /// The names for the device in `data`, which is a canonical path.
    pub fn of(data: &Path) -> Names {
        // FNV-1a: enough to tell data directories of one machine apart, and stable for ever.
        let hash =
            data.as_os_str().as_encoded_bytes().iter().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            });
        Names {
            veth: format!("mkv{hash:08x}"),
            peer: format!("mkp{hash:08x}"),
            bridge: format!("mkb{hash:08x}"),
            table: format!("minke_virtual_{hash:08x}"),
        }
    }
}

/// Whether an interface is on this machine.
pub fn has_link(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}
