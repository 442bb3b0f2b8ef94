//! Our own nft table: NAT, published ports, isolation between networks.
//!
//! One table, `ip minke-<engine id>`. Networks are rules, published ports are elements of maps, so that
//! a container that publishes nothing costs no transaction. Every change is one `nft -f -`, which the
//! kernel takes whole or not at all. Foreign tables are never named.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::NetworkError;
use crate::document::{Endpoint, NetworkRecord, Port, Protocol};

/// Name of the table of an engine.
pub(crate) fn table(engine: &str) -> String {
    format!("minke-{engine}")
}

/// Run a transaction.
pub(crate) async fn apply(script: &str) -> Result<(), NetworkError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::NftMissing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ends early, its status and words say why.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::NftMissing)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Firewall(words.trim().chars().take(2000).collect()))
}

/// Remove the table whether or not it is there.
pub(crate) fn remove_script(engine: &str) -> String {
    let table = table(engine);
    format!("add table ip {table}\ndelete table ip {table}\n")
}

/// Replace the whole table by what the networks and their endpoints need.
///
/// `uplinks` are the interfaces whose forwarding we switched on: between two of them nothing was
/// forwarded before, so nothing is now.
pub(crate) fn rebuild_script<'a>(
    engine: &str,
    networks: impl Iterator<Item = &'a NetworkRecord> + Clone,
    uplinks: &[String],
) -> String {
    let mut script = remove_script(engine);
    let _ = writeln!(script, "table ip {} {{", table(engine));
    maps(&mut script, networks.clone());
    script.push_str(
        "chain publish {
dnat ip to ip daddr . tcp dport map @one_tcp
dnat ip to ip daddr . udp dport map @one_udp
dnat ip to tcp dport map @all_tcp
dnat ip to udp dport map @all_udp
}
chain prerouting {
type nat hook prerouting priority -100; policy accept;
fib daddr type local jump publish
}
chain output {
type nat hook output priority -100; policy accept;
fib daddr type local jump publish
}
",
    );
    protection(&mut script, networks.clone());
    postrouting(&mut script, networks.clone());
    forward(&mut script, networks, uplinks);
    script.push_str("}\n");
    script
}

fn maps<'a>(script: &mut String, networks: impl Iterator<Item = &'a NetworkRecord> + Clone) {
    let ports = || networks.clone().flat_map(|network| network.endpoints.values());
    for (name, key) in [
        ("all_tcp", "inet_service"),
        ("all_udp", "inet_service"),
        ("one_tcp", "ipv4_addr . inet_service"),
        ("one_udp", "ipv4_addr . inet_service"),
    ] {
        let _ = writeln!(script, "map {name} {{\ntype {key} : ipv4_addr . inet_service");
        let elements: Vec<String> = ports()
            .flat_map(|endpoint| endpoint.ports.iter().map(move |port| (endpoint, port)))
            .filter(|(_, port)| map_of(port) == name)
            .map(|(endpoint, port)| element(endpoint.address, port))
            .collect();
        if !elements.is_empty() {
            let _ = writeln!(script, "elements = {{ {} }}", elements.join(", "));
        }
        script.push_str("}\n");
    }
}

fn map_of(port: &Port) -> &'static str {
    match (port.protocol, port.host_address.is_none_or(|address| address.is_unspecified())) {
        (Protocol::Tcp, true) => "all_tcp",
        (Protocol::Udp, true) => "all_udp",
        (Protocol::Tcp, false) => "one_tcp",
        (Protocol::Udp, false) => "one_udp",
    }
}

fn key(port: &Port) -> String {
    match port.host_address.filter(|address| !address.is_unspecified()) {
        Some(address) => format!("{address} . {}", port.host_port),
        None => port.host_port.to_string(),
    }
}

fn element(address: Ipv4Addr, port: &Port) -> String {
    format!("{} : {address} . {}", key(port), port.container_port)
}

/// `route_localnet` of our bridges lets published ports answer on 127.0.0.1; without this a container
/// could reach whatever else listens there.
fn protection<'a>(script: &mut String, networks: impl Iterator<Item = &'a NetworkRecord>) {
    script.push_str("chain protect {\ntype filter hook prerouting priority -300; policy accept;\n");
    for network in networks {
        let _ = writeln!(script, "iifname \"{}\" ip daddr 127.0.0.0/8 drop", network.bridge);
    }
    script.push_str("}\n");
}

fn postrouting<'a>(script: &mut String, networks: impl Iterator<Item = &'a NetworkRecord>) {
    script
        .push_str("chain postrouting {\ntype nat hook postrouting priority 100; policy accept;\n");
    for NetworkRecord { bridge, subnet, internal, no_masquerade, .. } in networks {
        // From the host's own 127.0.0.1, and from a container to a published port of its own network:
        // the answer must come back to where the translation is undone.
        let _ = writeln!(script, "oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade");
        let _ =
            writeln!(script, "oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade");
        if !internal && !no_masquerade {
            let _ = writeln!(script, "oifname != \"{bridge}\" ip saddr {subnet} masquerade");
        }
    }
    script.push_str("}\n");
}

fn forward<'a>(
    script: &mut String,
    networks: impl Iterator<Item = &'a NetworkRecord> + Clone,
    uplinks: &[String],
) {
    script.push_str("chain forward {\ntype filter hook forward priority 0; policy accept;\n");
    for NetworkRecord { bridge, internal, .. } in networks.clone() {
        let _ = writeln!(script, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
        if *internal {
            let _ = writeln!(script, "iifname \"{bridge}\" drop\noifname \"{bridge}\" drop");
        }
    }
    // What is published is published for other networks too; else networks are apart.
    script.push_str("ct status dnat accept\n");
    let bridges: Vec<String> = networks.map(|network| format!("\"{}\"", network.bridge)).collect();
    if !bridges.is_empty() {
        let set = bridges.join(", ");
        let _ = writeln!(script, "iifname {{ {set} }} oifname {{ {set} }} ct state new drop");
    }
    if uplinks.len() > 1 {
        let set: Vec<String> = uplinks.iter().map(|name| format!("\"{name}\"")).collect();
        let set = set.join(", ");
        let _ = writeln!(script, "iifname {{ {set} }} oifname {{ {set} }} drop");
    }
    script.push_str("}\n");
}

/// Publish an endpoint's ports.
pub(crate) fn publish_script(engine: &str, endpoint: &Endpoint) -> String {
    change_script("add", engine, endpoint, |port| element(endpoint.address, port))
}

/// Take them back.
pub(crate) fn withdraw_script(engine: &str, endpoint: &Endpoint) -> String {
    change_script("delete", engine, endpoint, key)
}

fn change_script(
    verb: &str,
    engine: &str,
    endpoint: &Endpoint,
    element: impl Fn(&Port) -> String,
) -> String {
    let mut script = String::new();
    for port in &endpoint.ports {
        let (table, map) = (table(engine), map_of(port));
        let _ = writeln!(script, "{verb} element ip {table} {map} {{ {} }}", element(port));
    }
    script
}
