//! The sources file of a container's name service: what its shim answers from, and whom it asks.
//!
//! Servers may be asked only while the container is in a network with a way out: what a program puts
//! into the names that it looks up would leave an internal network else. Until then they stand in the
//! file behind a mark, in lines that every shim skips.

use std::net::SocketAddr;
use std::path::Path;

use super::Networks;
use crate::{NetworkError, names};

/// Before the lines of servers that may not be asked now.
const HELD: &str = "held-";

impl Networks {
    /// Whether a container is in a network with a way out.
    pub fn has_way_out(&self, container: &str) -> bool {
        let out = |record: &crate::NetworkRecord| {
            !record.internal && record.endpoints.contains_key(container)
        };
        self.records().values().any(out)
    }

    /// The sources file of a container: the names of its networks, then whom else to ask.
    pub(super) fn write_sources(&self, container: &str) -> Result<(), NetworkError> {
        let path = self.namespace(container)?.dns;
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let mut text = String::new();
        for record in self.records().values() {
            if record.dns && record.endpoints.contains_key(container) {
                text.push_str("names ");
                text.push_str(&self.names_path(&record.id).to_string_lossy());
                text.push('\n');
            }
        }
        text.push_str(&kept(&old, self.has_way_out(container)));
        if text == old { Ok(()) } else { names::replace(&path, &text) }
    }

    /// Give a container names of its own for others: pairs of a name and what the other is called.
    pub async fn set_aliases(
        &self,
        container: &str,
        aliases: &[(String, String)],
    ) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        let path = self.namespace(container)?.dns;
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let mut text = String::new();
        for line in old.lines().filter(|line| !line.starts_with("alias ")) {
            text.push_str(line);
            text.push('\n');
        }
        for (alias, name) in aliases {
            if let Some(bad) = [alias, name].into_iter().find(|name| !names::is_valid(name)) {
                return Err(NetworkError::Invalid { what: "link", value: bad.clone() });
            }
            text.push_str(&format!("alias {alias} {name}\n"));
        }
        names::replace(&path, &text)
    }
}

/// Write the sources of a container that is in no network yet. `upstreams`: the servers of its own;
/// empty: those of the host, whichever it has when it is asked.
pub(super) fn begin(path: &Path, upstreams: &[SocketAddr]) -> Result<(), NetworkError> {
    let mut text = String::new();
    if upstreams.is_empty() {
        text.push_str(&format!("{HELD}resolv {}\n", names::RESOLV_CONF));
    }
    // The host's stand here too, for shims that cannot look for themselves.
    let host = if upstreams.is_empty() { names::host_upstreams() } else { Vec::new() };
    for server in upstreams.iter().chain(&host) {
        text.push_str(&format!("{HELD}upstream {server}\n"));
    }
    names::replace(path, &text)
}

/// The lines of a sources file that outlive a change of networks.
fn kept(old: &str, way_out: bool) -> String {
    let mut text = String::new();
    for line in old.lines().map(|line| line.strip_prefix(HELD).unwrap_or(line)) {
        match line.split_once(' ') {
            Some(("upstream" | "resolv", _)) if !way_out => text.push_str(HELD),
            Some(("upstream" | "resolv" | "alias", _)) => {}
            _ => continue,
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_held_while_there_is_no_way_out_and_aliases_are_not() {
        let open = "resolv /etc/resolv.conf\nupstream 10.0.0.1:53\nalias db Db_1\n";
        let held = "held-resolv /etc/resolv.conf\nheld-upstream 10.0.0.1:53\nalias db Db_1\n";
        for old in [open, held] {
            assert_eq!(kept(&format!("names /a/names\n{old}"), true), open);
            assert_eq!(kept(&format!("names /a/names\n{old}"), false), held);
        }
    }
}
