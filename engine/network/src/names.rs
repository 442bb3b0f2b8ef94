//! Names files: what the shims answer DNS queries from. They are read without any lock, so they are
//! replaced by rename, and they stay correct while no daemon runs.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use minke_engine_documents::Sync;

use crate::NetworkError;
use crate::document::NetworkRecord;

/// Text of a network's names file: `<address> <name>…` lines.
pub(crate) fn text(record: &NetworkRecord) -> String {
    let mut text = String::new();
    for endpoint in record.endpoints.values().filter(|endpoint| !endpoint.names.is_empty()) {
        let addresses = [Some(IpAddr::V4(endpoint.address)), endpoint.address6.map(IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            let _ = write!(text, "{address}");
            for name in &endpoint.names {
                let _ = write!(text, " {name} {name}.{}", record.name);
            }
            text.push('\n');
        }
    }
    text
}

/// Whether something may stand in a names file.
pub(crate) fn is_valid(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Replaces a names file. It need not survive a power cut.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), NetworkError> {
    minke_engine_documents::replace(path, text.as_bytes(), Sync::Nothing)
        .map_err(NetworkError::file("writing", path))
}

/// Where the host says which name servers it asks.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Name servers of the host. A resolver on loopback counts: queries are sent from the host.
pub(crate) fn host_upstreams() -> Vec<SocketAddr> {
    parse_resolv_conf(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
        })
        .map(|address| SocketAddr::new(address, 53))
        .take(8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text =
            "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.1\nnameserver ::1\nnameserver x\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(parse_resolv_conf(text), expected);
    }

    #[test]
    fn only_words_are_names() {
        assert!(is_valid("web-1.net"));
        for bad in ["", "a b", "a\nb", "ä"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
