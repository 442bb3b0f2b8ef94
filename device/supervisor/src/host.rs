//! What the host is: its processor, its system, its addresses.

use std::collections::BTreeSet;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

use crate::compose::HOST_PATHS;

/// The processor in balena's words.
pub(crate) fn arch() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "aarch64",
        "arm" => "armv7hf",
        other => other,
    }
    .to_owned()
}

/// `PRETTY_NAME` of the host's os-release.
pub(crate) fn os_version() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned())
}

/// The paths that services may ask for and that are here.
pub(crate) fn paths() -> BTreeSet<PathBuf> {
    HOST_PATHS.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}

/// The address from which the server is reached; nothing is sent.
pub(crate) fn address_towards(endpoint: &str) -> Option<String> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let default = if endpoint.starts_with("https") { 443 } else { 80 };
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
        _ => format!("{authority}:{default}"),
    };
    let server = with_port.to_socket_addrs().ok()?.next()?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// The hardware addresses of the host's own links, space separated.
pub(crate) fn mac_addresses() -> String {
    minke_device_cloud_client::mac_addresses()
}
