//! Our own nft tables: NAT, published ports, isolation between networks.
//!
//! One table a version of the protocol, `ip minke-<engine id>` and (where a network has IPv6) `ip6` of
//! the same name. Networks are rules, published ports are elements of maps, so that a container that
//! publishes nothing costs no transaction. Every change is one `nft -f -`, which the kernel takes whole
//! or not at all. Foreign tables are never named.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::document::{Endpoint, NetworkRecord, Port, Protocol};
use crate::{NetworkError, netns, sysctl};

/// A version of the protocol, in nft's words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Ip,
    Ip6,
}

impl Family {
    const ALL: [Family; 2] = [Family::Ip, Family::Ip6];

    fn word(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Family::Ip => "ipv4_addr",
            Family::Ip6 => "ipv6_addr",
        }
    }

    /// The host's own addresses that only it can reach.
    fn loopback(self) -> &'static str {
        match self {
            Family::Ip => "127.0.0.0/8",
            Family::Ip6 => "::1",
        }
    }

    /// A network's subnet of this version, and whether it is reached without translation.
    fn subnet(self, network: &NetworkRecord) -> Option<(String, bool)> {
        match self {
            Family::Ip => Some((network.subnet.to_string(), network.routed)),
            Family::Ip6 => network.v6.as_ref().map(|v6| (v6.subnet.to_string(), v6.routed)),
        }
    }

    /// An endpoint's address of this version, as nft writes it before a port.
    fn address(self, endpoint: &Endpoint) -> Option<String> {
        match self {
            Family::Ip => Some(endpoint.address.to_string()),
            Family::Ip6 => endpoint.address6.map(|address| address.to_string()),
        }
    }

    /// Whether a port is published on addresses of this version.
    fn has(self, port: &Port) -> bool {
        port.host_address.is_none_or(|address| address.is_ipv6() == (self == Family::Ip6))
    }
}

/// Name of the tables of an engine.
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
    judge(&child.wait_with_output().await.map_err(NetworkError::NftMissing)?)
}

/// Run a transaction in another network namespace.
pub(crate) async fn apply_inside(namespace: &Path, script: String) -> Result<(), NetworkError> {
    let namespace = namespace.to_owned();
    let work = move || {
        netns::enter(&namespace, || {
            let mut child = std::process::Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(script.as_bytes());
            }
            child.wait_with_output()
        })
    };
    let output = tokio::task::spawn_blocking(work).await;
    judge(&output.map_err(|error| NetworkError::NftMissing(error.into()))??)
}

fn judge(output: &std::process::Output) -> Result<(), NetworkError> {
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Firewall(words.trim().chars().take(2000).collect()))
}

/// Remove the tables whether or not they are there.
pub(crate) fn remove_script(engine: &str) -> String {
    let table = table(engine);
    let mut script = format!("add table ip {table}\ndelete table ip {table}\n");
    if sysctl::has_ipv6() {
        let _ = write!(script, "add table ip6 {table}\ndelete table ip6 {table}\n");
    }
    script
}

/// Lead a container's questions for names to the port that its shim listens on.
pub(crate) fn redirect_names_script(port: u16) -> String {
    const TABLE: &str = "ip minke-names";
    let mut script = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    script.push_str("chain output {\ntype nat hook output priority -100; policy accept;\n");
    for protocol in ["udp", "tcp"] {
        let _ =
            writeln!(script, "ip daddr 127.0.0.11 {protocol} dport 53 dnat to 127.0.0.11:{port}");
    }
    script.push_str("}\n}\n");
    script
}

/// Replace the whole tables by what the networks and their endpoints need.
///
/// `uplinks` are the interfaces whose forwarding we switched on: between two of them nothing was
/// forwarded before, so nothing is now.
pub(crate) fn rebuild_script<'a>(
    engine: &str,
    networks: impl Iterator<Item = &'a NetworkRecord>,
    uplinks: &[String],
) -> String {
    // Who shares a link of the host has nothing to do with its packet filter.
    let networks: Vec<&NetworkRecord> = networks.filter(|n| n.parent.is_none()).collect();
    let mut script = remove_script(engine);
    for family in Family::ALL {
        let of_family: Vec<&NetworkRecord> =
            networks.iter().copied().filter(|n| family.subnet(n).is_some()).collect();
        // The table is there from the start for IPv4, and for IPv6 as soon as a network has it.
        if family == Family::Ip || !of_family.is_empty() {
            table_script(&mut script, engine, family, &of_family, uplinks);
        }
    }
    script
}

fn table_script(
    script: &mut String,
    engine: &str,
    family: Family,
    networks: &[&NetworkRecord],
    uplinks: &[String],
) {
    let word = family.word();
    // Where an answer to ::1 cannot come in, nothing is translated: who tries it is refused at once.
    let own = match family == Family::Ip6 && sysctl::filters_bridges6() {
        true => "ip6 daddr ::1 return\n",
        false => "",
    };
    // Who is on the same link can send to 127.0.0.1. The kernel drops that only after the translation,
    // and for IPv6 before it.
    let foreign =
        if family == Family::Ip { "iifname != \"lo\" ip daddr 127.0.0.0/8 return\n" } else { "" };
    let _ = writeln!(script, "table {word} {} {{", table(engine));
    maps(script, family, networks);
    let _ = writeln!(
        script,
        "chain publish {{
dnat {word} to {word} daddr . tcp dport map @one_tcp
dnat {word} to {word} daddr . udp dport map @one_udp
dnat {word} to tcp dport map @all_tcp
dnat {word} to udp dport map @all_udp
}}
chain prerouting {{
type nat hook prerouting priority -100; policy accept;
{foreign}fib daddr type local jump publish
}}
chain output {{
type nat hook output priority -100; policy accept;
{own}fib daddr type local jump publish
}}"
    );
    protection(script, family, networks);
    postrouting(script, family, networks);
    forward(script, family, networks, uplinks);
    script.push_str("}\n");
}

fn maps(script: &mut String, family: Family, networks: &[&NetworkRecord]) {
    let address = family.address_type();
    let two = format!("{address} . inet_service");
    for (name, key) in [
        ("all_tcp", "inet_service"),
        ("all_udp", "inet_service"),
        ("one_tcp", two.as_str()),
        ("one_udp", two.as_str()),
    ] {
        let _ = writeln!(script, "map {name} {{\ntype {key} : {address} . inet_service");
        let elements: Vec<String> = networks
            .iter()
            .flat_map(|network| network.endpoints.values().map(move |e| (network, e)))
            .flat_map(|(network, endpoint)| elements(family, network, endpoint))
            .filter(|element| element.map == name)
            .map(|element| format!("{} : {}", element.key, element.target))
            .collect();
        if !elements.is_empty() {
            let _ = writeln!(script, "elements = {{ {} }}", elements.join(", "));
        }
        script.push_str("}\n");
    }
}

/// A published port in one of the maps.
struct Element {
    map: &'static str,
    key: String,
    target: String,
}

/// What an endpoint publishes on addresses of one version.
fn elements(family: Family, network: &NetworkRecord, endpoint: &Endpoint) -> Vec<Element> {
    let translated = family.subnet(network).is_some_and(|(_, routed)| !routed);
    let Some(address) = family.address(endpoint).filter(|_| translated) else { return Vec::new() };
    let ports = endpoint.ports.iter().filter(|port| family.has(port));
    ports
        .map(|port| Element {
            map: map_of(port),
            key: key(port),
            target: format!("{address} . {}", port.container_port),
        })
        .collect()
}

/// The one address that a port is published on.
fn one_address(port: &Port) -> Option<IpAddr> {
    port.host_address.filter(|address| !address.is_unspecified())
}

fn map_of(port: &Port) -> &'static str {
    match (port.protocol, one_address(port)) {
        (Protocol::Tcp, None) => "all_tcp",
        (Protocol::Udp, None) => "all_udp",
        (Protocol::Tcp, Some(_)) => "one_tcp",
        (Protocol::Udp, Some(_)) => "one_udp",
    }
}

fn key(port: &Port) -> String {
    match one_address(port) {
        Some(address) => format!("{address} . {}", port.host_port),
        None => port.host_port.to_string(),
    }
}

/// `route_localnet` of our bridges lets published ports answer on 127.0.0.1; without this a container
/// could reach whatever else listens there.
fn protection(script: &mut String, family: Family, networks: &[&NetworkRecord]) {
    let (word, loopback) = (family.word(), family.loopback());
    script.push_str("chain protect {\ntype filter hook prerouting priority -300; policy accept;\n");
    for network in networks {
        let _ = writeln!(script, "iifname \"{}\" {word} daddr {loopback} drop", network.bridge);
    }
    script.push_str("}\n");
}

fn postrouting(script: &mut String, family: Family, networks: &[&NetworkRecord]) {
    let (word, loopback) = (family.word(), family.loopback());
    script
        .push_str("chain postrouting {\ntype nat hook postrouting priority 100; policy accept;\n");
    for network in networks {
        let NetworkRecord { bridge, internal, no_masquerade, .. } = network;
        let Some((subnet, routed)) = family.subnet(network) else { continue };
        // From the host's own loopback, and from a container to a published port of its own network:
        // the answer must come back to where the translation is undone.
        let _ = writeln!(script, "oifname \"{bridge}\" {word} saddr {loopback} masquerade");
        let _ = writeln!(
            script,
            "oifname \"{bridge}\" {word} saddr {subnet} ct status dnat masquerade"
        );
        if !internal && !no_masquerade && !routed {
            let _ = writeln!(script, "oifname != \"{bridge}\" {word} saddr {subnet} masquerade");
        }
    }
    script.push_str("}\n");
}

fn forward(script: &mut String, family: Family, networks: &[&NetworkRecord], uplinks: &[String]) {
    script.push_str("chain forward {\ntype filter hook forward priority 0; policy accept;\n");
    for NetworkRecord { bridge, internal, .. } in networks {
        let _ = writeln!(script, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
        if *internal {
            let _ = writeln!(script, "iifname \"{bridge}\" drop\noifname \"{bridge}\" drop");
        }
    }
    // What is published is published for other networks too; else networks are apart.
    script.push_str("ct status dnat accept\n");
    let all = |networks: &mut dyn Iterator<Item = &&NetworkRecord>| {
        networks.map(|network| format!("\"{}\"", network.bridge)).collect::<Vec<_>>().join(", ")
    };
    let set = all(&mut networks.iter());
    if !set.is_empty() {
        let _ = writeln!(script, "iifname {{ {set} }} oifname {{ {set} }} ct state new drop");
    }
    // From outside only what is published can be reached, unless the network is routed.
    let closed =
        |network: &&&NetworkRecord| family.subnet(network).is_some_and(|(_, routed)| !routed);
    let set = all(&mut networks.iter().filter(closed));
    if !set.is_empty() {
        let _ = writeln!(script, "oifname {{ {set} }} ct state new drop");
    }
    if uplinks.len() > 1 && family == Family::Ip {
        let set: Vec<String> = uplinks.iter().map(|name| format!("\"{name}\"")).collect();
        let set = set.join(", ");
        let _ = writeln!(script, "iifname {{ {set} }} oifname {{ {set} }} drop");
    }
    script.push_str("}\n");
}

/// Publish an endpoint's ports.
pub(crate) fn publish_script(engine: &str, network: &NetworkRecord, endpoint: &Endpoint) -> String {
    change_script("add", engine, network, endpoint, |e| format!("{} : {}", e.key, e.target))
}

/// Take them back.
pub(crate) fn withdraw_script(
    engine: &str,
    network: &NetworkRecord,
    endpoint: &Endpoint,
) -> String {
    change_script("delete", engine, network, endpoint, |e| e.key.clone())
}

fn change_script(
    verb: &str,
    engine: &str,
    network: &NetworkRecord,
    endpoint: &Endpoint,
    text: impl Fn(&Element) -> String,
) -> String {
    let (mut script, table) = (String::new(), table(engine));
    for family in Family::ALL {
        for element in elements(family, network, endpoint) {
            let (word, map) = (family.word(), element.map);
            let _ =
                writeln!(script, "{verb} element {word} {table} {map} {{ {} }}", text(&element));
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_comes_from_outside_to_127_0_0_1_is_translated() {
        let script = rebuild_script("x", std::iter::empty(), &[]);
        let (_, prerouting) = script.split_once("type nat hook prerouting").unwrap();
        let rules: Vec<&str> = prerouting.lines().skip(1).take(2).collect();
        let first = "iifname != \"lo\" ip daddr 127.0.0.0/8 return";
        assert_eq!(rules, [first, "fib daddr type local jump publish"]);
    }

    /// A network with both versions, and a container that publishes port 80 as 8080.
    fn network(routed4: bool, routed6: bool) -> NetworkRecord {
        let record = format!(
            r#"{{"version":1,"id":"i","name":"net","bridge":"mk0","subnet":"10.0.0.0/24","gateway":"10.0.0.1",
                "ip_range":null,"routed":{routed4},"internal":false,"no_icc":false,"no_masquerade":false,
                "mtu":1500,"dns":true,"labels":{{}},"created_at":0,"endpoints":{{}},
                "v6":{{"subnet":"fd00:1::/64","gateway":"fd00:1::1","ip_range":null,"routed":{routed6}}}}}"#
        );
        let mut network: NetworkRecord = serde_json::from_str(&record).unwrap();
        let endpoint = r#"{"id":"e","container":"c","address":"10.0.0.5","address6":"fd00:1::5",
            "mac":"","interface":"eth0","host_interface":"","names":[],"default_route":true,
            "ports":[{"host_address":null,"host_port":8080,"container_port":80,"protocol":"tcp"}]}"#;
        let endpoint = serde_json::from_str(endpoint).unwrap();
        network.endpoints.insert("c".to_owned(), endpoint);
        network
    }

    #[test]
    fn each_version_of_a_network_is_translated_and_closed_or_routed_and_open_by_itself() {
        for (routed4, routed6) in [(false, false), (true, false), (false, true), (true, true)] {
            let network = network(routed4, routed6);
            let script = rebuild_script("x", std::iter::once(&network), &[]);
            let (_, tables) = script.split_once("table ip minke-x {").unwrap();
            let (four, six) = tables.split_once("table ip6 minke-x {").unwrap();
            let published = publish_script("x", &network, &network.endpoints["c"]);
            for (table, routed, element, word, subnet) in [
                (four, routed4, "8080 : 10.0.0.5 . 80", "ip", "10.0.0.0/24"),
                (six, routed6, "8080 : fd00:1::5 . 80", "ip6", "fd00:1::/64"),
            ] {
                let said = format!("{word}, {routed4} {routed6}: {script}");
                let away = format!("oifname != \"mk0\" {word} saddr {subnet} masquerade");
                assert_eq!(table.contains(&away), !routed, "{said}");
                assert_eq!(
                    table.contains("\noifname { \"mk0\" } ct state new drop"),
                    !routed,
                    "{said}"
                );
                assert_eq!(table.contains(element), !routed, "{said}");
                let add = format!("add element {word} minke-x all_tcp {{ {element} }}");
                assert_eq!(published.contains(&add), !routed, "{published}");
            }
        }
    }
}
