//! Ports that a container publishes. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use minke_engine_client::wire::{ContainerConfig, HostConfig, PortBinding};
use minke_engine_network::{Endpoint, Port, Protocol};

use crate::error::{Error, Result};

/// The ports to publish: those bound, and with `PublishAllPorts` every exposed one.
pub(crate) fn published(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for (key, bindings) in &host.port_bindings {
        let (container_port, protocol) = parse_port(key)?;
        let bindings = bindings.as_deref().unwrap_or_default();
        let any = [PortBinding::default()];
        for binding in if bindings.is_empty() { &any } else { bindings } {
            ports.push(bind(container_port, protocol, binding)?);
        }
    }
    if host.publish_all_ports {
        for key in config.exposed_ports.keys() {
            if !host.port_bindings.contains_key(key) {
                let (container_port, protocol) = parse_port(key)?;
                ports.push(bind(container_port, protocol, &PortBinding::default())?);
            }
        }
    }
    Ok(ports)
}

/// Reads `80`, `80/tcp`, `53/udp`.
pub(crate) fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(Error::Invalid(format!(
                "the port {text} is of protocol {other:?}, which is not supported by this engine"
            )));
        }
    };
    match number.parse() {
        Ok(port) if port > 0 => Ok((port, protocol)),
        _ => Err(Error::Invalid(format!("invalid port specification: {text:?}"))),
    }
}

fn bind(container_port: u16, protocol: Protocol, binding: &PortBinding) -> Result<Port> {
    let invalid = |text: &str| Error::Invalid(format!("invalid port specification: {:?}", text));
    let host_address = match binding.host_ip.as_str() {
        "" => None,
        // Brackets are how the CLI takes an IPv6 address apart from its port.
        text => Some(
            text.trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))?,
        ),
    };
    let (first, last) = match binding.host_port.split_once('-') {
        Some((first, last)) => (first, Some(last)),
        None => (binding.host_port.as_str(), None),
    };
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid(&binding.host_port));
    let host_port = if first.is_empty() { 0 } else { number(first)? };
    let host_port_end = last.map(number).transpose()?;
    if host_port_end.is_some_and(|end| end < host_port || host_port == 0) {
        return Err(invalid(&binding.host_port));
    }
    Ok(Port { host_address, host_port, host_port_end, container_port, protocol })
}

/// `80` as `80/tcp`.
pub(crate) fn with_protocol(key: &str) -> String {
    if key.contains('/') { key.to_owned() } else { format!("{key}/tcp") }
}

/// `80/tcp`.
pub(crate) fn key(port: &Port) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

/// Ports as they were given, by key: on every address of the host, if none was named, also of IPv6 for a
/// container that has it.
pub(crate) fn given<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> BTreeMap<String, Vec<(String, u16)>> {
    let mut by_key: BTreeMap<String, Vec<(String, u16)>> = BTreeMap::new();
    for endpoint in endpoints {
        for port in &endpoint.ports {
            let addresses = match port.host_address {
                Some(address) => vec![address.to_string()],
                None if endpoint.address6.is_some() => vec!["0.0.0.0".to_owned(), "::".to_owned()],
                None => vec!["0.0.0.0".to_owned()],
            };
            let given = by_key.entry(key(port)).or_default();
            given.extend(addresses.into_iter().map(|address| (address, port.host_port)));
        }
    }
    by_key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_have_addresses_ranges_and_free_choice() {
        let host: HostConfig = serde_json::from_str(
            r#"{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"},{"HostPort":"9000-9010"}],
                "53/udp":[]}}"#,
        )
        .unwrap();
        let ports = published(&ContainerConfig::default(), &host).unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!((ports[0].protocol, ports[0].host_port), (Protocol::Udp, 0));
        assert_eq!(ports[1].host_address, Some("127.0.0.1".parse().unwrap()));
        assert_eq!((ports[2].host_port, ports[2].host_port_end), (9000, Some(9010)));
    }

    #[test]
    fn ports_that_are_none_are_refused() {
        for bad in ["0", "65536/tcp", "80/sctp", "x"] {
            parse_port(bad).unwrap_err();
        }
        for bad in ["9-1", "x", "70000"] {
            let binding = PortBinding { host_port: bad.to_owned(), ..PortBinding::default() };
            bind(80, Protocol::Tcp, &binding).unwrap_err();
        }
    }
}
