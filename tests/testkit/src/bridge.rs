//! A network on this machine that the server and virtual devices share.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::ledger::{Entry, Ledger};

/// A bridge with an address of its own, a free /24, and a way out for who is on it.
#[derive(Debug)]
pub struct Bridge {
    /// The interface's name.
    pub name: String,
    /// The machine's own address on it.
    pub address: Ipv4Addr,
}

impl Bridge {
    /// Makes it. The ledger knows first.
    pub fn create(name: &str, ledger: &mut Ledger) -> Result<Bridge> {
        let address = free_network()?;
        ledger.add(Entry::Bridge { name: name.to_owned() })?;
        ip(&["link", "add", name, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        let uplink = uplink()?;
        for interface in [Some(name.to_owned()), uplink].into_iter().flatten() {
            forward(&interface, ledger)?;
        }
        nft(&format!(
            "table ip {table} {{\n\
               chain out {{ type nat hook postrouting priority srcnat; policy accept;\n\
                 ip saddr {address}/24 oifname != \"{name}\" masquerade\n\
               }}\n\
             }}\n",
            table = table(name),
        ))?;
        Ok(Bridge { name: name.to_owned(), address })
    }

    /// How many bytes the machine itself has sent over it.
    pub fn bytes_sent(&self) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/tx_bytes", self.name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        text.trim().parse().with_context(|| format!("{path} holds no number"))
    }

    /// Removes the bridge called `name` and its table, as far as they are there.
    pub fn remove(name: &str) -> Result<()> {
        // Not by /sys, which may show another network namespace than the one that this runs in.
        if ip(&["link", "show", "dev", name]).is_ok() {
            ip(&["link", "del", name])?;
        }
        // `add` makes the deletion of a table that is not there succeed.
        let table = table(name);
        nft(&format!("add table ip {table}\ndelete table ip {table}\n"))
    }
}

fn table(bridge: &str) -> String {
    bridge.replace('-', "_")
}

/// Lets packets through between this interface and others, and remembers how it was.
fn forward(interface: &str, ledger: &mut Ledger) -> Result<()> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"));
    let before = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if before.trim() == "1" {
        return Ok(());
    }
    ledger.add(Entry::Sysctl { path: path.clone(), before: before.trim().to_owned() })?;
    std::fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))
}

/// The interface of the default route, if there is one.
fn uplink() -> Result<Option<String>> {
    let routes = ip(&["-4", "route", "show", "default"])?;
    let words: Vec<&str> = routes.split_whitespace().collect();
    Ok(words.windows(2).find(|pair| pair[0] == "dev").map(|pair| pair[1].to_owned()))
}

/// The first address of a /24 that no route of this machine touches.
fn free_network() -> Result<Ipv4Addr> {
    let routes = ip(&["-4", "route", "show", "table", "all"])?;
    let taken: BTreeSet<[u8; 2]> = routes
        .split_whitespace()
        .filter_map(|word| word.split('/').next()?.parse::<Ipv4Addr>().ok())
        .map(|address| [address.octets()[1], address.octets()[2]])
        .collect();
    (0..=255u8)
        .map(|third| Ipv4Addr::new(10, 213, third, 1))
        .find(|address| !taken.contains(&[213, address.octets()[2]]))
        .context("every network of 10.213.0.0/16 is in use on this machine")
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("cannot start `ip` (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "`ip {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `nft` (package nftables)")?;
    child
        .stdin
        .take()
        .context("nft has no input")?
        .write_all(rules.as_bytes())
        .context("cannot give nft its rules")?;
    let output = child.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!("nft refused `{}`: {}", rules.trim(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
