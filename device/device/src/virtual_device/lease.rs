//! Which device has which address of a bridge.
//!
//! A lease is a file `<address>` in a directory of the bridge under `/run`, with the data directory of
//! the device in it. A device gets the address that it had; one whose directory is gone, or that is
//! locked by nobody, has no claim.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::outside::is_running;

const ROOT: &str = "/run/minke-virtual";

/// A bridge's own address and the size of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The bridge's address: the devices' way out.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
}

impl Subnet {
    /// Addresses that devices may have, from the second half of the network down to the first: the
    /// caller's own are usually at its beginning.
    fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        let base = u32::from(self.gateway) & mask;
        let last = base | !mask;
        let gateway = u32::from(self.gateway);
        (base + 1..last).filter(move |host| *host != gateway).skip(8).map(Ipv4Addr::from)
    }
}

/// Takes an address for the device in `data`.
pub fn take(bridge: &str, subnet: Subnet, data: &Path) -> anyhow::Result<Ipv4Addr> {
    let dir = Path::new(ROOT).join(bridge);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if let Some(address) = held(&dir, data) {
        return Ok(address);
    }
    for address in subnet.hosts().take(4096) {
        let path = dir.join(address.to_string());
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(data.as_os_str().as_encoded_bytes())?;
                return Ok(address);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let owner = PathBuf::from(fs::read_to_string(&path).unwrap_or_default());
                // A file that is still empty is being written.
                if !owner.as_os_str().is_empty() && !is_running(&owner) {
                    fs::write(&path, data.as_os_str().as_encoded_bytes())?;
                    return Ok(address);
                }
            }
            Err(error) => return Err(error).context("cannot note an address"),
        }
    }
    bail!("no free address on {bridge}")
}

fn held(dir: &Path, data: &Path) -> Option<Ipv4Addr> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let own = entries.filter(|entry| {
        fs::read(entry.path()).is_ok_and(|owner| owner == data.as_os_str().as_encoded_bytes())
    });
    own.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).next()
}

/// Gives back every address of the device in `data`; directories that are empty go too.
pub fn release(data: &Path) {
    let bridges = fs::read_dir(ROOT).into_iter().flatten().flatten();
    for bridge in bridges.map(|entry| entry.path()) {
        while let Some(address) = held(&bridge, data) {
            if fs::remove_file(bridge.join(address.to_string())).is_err() {
                break;
            }
        }
        let _ = fs::remove_dir(&bridge);
    }
    let _ = fs::remove_dir(ROOT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_networks_and_not_the_gateways() {
        let subnet = Subnet { gateway: "10.1.2.12".parse().unwrap(), prefix: 28 };
        let hosts: Vec<String> = subnet.hosts().map(|host| host.to_string()).collect();
        assert_eq!(hosts, ["10.1.2.9", "10.1.2.10", "10.1.2.11", "10.1.2.13", "10.1.2.14"]);
    }
}
