//! What is set up before the parts start: files, names, address.

use std::fs;
use std::path::Path;

use anyhow::Context;
use minke_device_cloud_client::random_hex;

use super::mounts::cover_file;
use super::network::Link;
use super::tools::ip;

/// Where the device's own boot id is.
pub const BOOT_ID: &str = "/run/minke/boot-id";

/// A boot id of this boot, where programs look for the kernel's.
pub fn new_boot_id() -> anyhow::Result<()> {
    fs::create_dir_all("/run/minke").context("cannot make /run/minke")?;
    let hex = random_hex(16)?;
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    fs::write(BOOT_ID, format!("{id}\n")).context("cannot write the boot id")?;
    cover_file(Path::new(BOOT_ID), Path::new("/proc/sys/kernel/random/boot_id"))
}

/// Names the device.
pub fn name(name: &str) -> anyhow::Result<()> {
    rustix::system::sethostname(name.as_bytes()).context("cannot set the host name")?;
    let hosts = format!("127.0.0.1 localhost {name}\n::1 localhost\n");
    fs::write("/run/minke/hosts", hosts).context("cannot write /etc/hosts")?;
    cover_file(Path::new("/run/minke/hosts"), Path::new("/etc/hosts"))
}

/// Brings the link up and sets the way out.
pub fn address(link: &Link) -> anyhow::Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", &link.interface, "name", "eth0"])?;
    ip(&["addr", "add", &format!("{}/{}", link.address, link.prefix), "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    ip(&["route", "add", "default", "via", &link.gateway.to_string()])?;
    Ok(())
}

/// The name servers that the device can reach: this machine's, but not its loopback.
pub fn name_servers(text: &str, fallback: &str) -> anyhow::Result<()> {
    fs::write(
        "/run/minke/resolv.conf",
        reachable(text).unwrap_or_else(|| reachable(fallback).unwrap_or_default()),
    )
    .context("cannot write resolv.conf")?;
    cover_file(Path::new("/run/minke/resolv.conf"), Path::new("/etc/resolv.conf"))
}

fn reachable(text: &str) -> Option<String> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(address)) => {
                    !address.starts_with("127.") && address != "::1"
                }
                (Some("search" | "options" | "domain"), _) => true,
                _ => false,
            }
        })
        .collect();
    let has_server = lines.iter().any(|line| line.starts_with("nameserver"));
    has_server.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_loopback_is_not_reachable_from_another_namespace() {
        assert_eq!(reachable("nameserver 127.0.0.53\noptions edns0\n"), None);
        let text = "# x\nnameserver 10.0.0.2\nnameserver ::1\nsearch lan\n";
        assert_eq!(reachable(text).as_deref(), Some("nameserver 10.0.0.2\nsearch lan\n"));
    }
}
