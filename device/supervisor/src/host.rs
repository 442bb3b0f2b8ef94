//! What the host is: its processor, its system, its addresses.

use std::collections::BTreeSet;
use std::net::UdpSocket;
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

/// The address from which the server is reached; nothing is sent to it. Its name may have to be asked
/// for, which takes as long as a name server is silent.
pub(crate) async fn address_towards(endpoint: &str) -> Option<String> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let default = if endpoint.starts_with("https") { 443 } else { 80 };
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
        _ => format!("{authority}:{default}"),
    };
    let server = tokio::net::lookup_host(with_port).await.ok()?.next()?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// The hardware addresses of the host's own links, space separated.
pub(crate) fn mac_addresses() -> String {
    minke_device_cloud_client::mac_addresses()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_name_that_is_long_in_coming_holds_nothing_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            // The only thread that may ask for names is busy, as with a name server that is silent.
            let (free, busy) = std::sync::mpsc::channel::<()>();
            let thread = tokio::task::spawn_blocking(move || busy.recv());
            let mut address = std::pin::pin!(address_towards("http://localhost:1/minke"));
            let first = std::future::poll_fn(|cx| Poll::Ready(address.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            free.send(()).unwrap();
            thread.await.unwrap().unwrap();
            // A host without IPv6 may have no address towards a name that stands for one.
            let address = address.await.map(|text| text.parse::<std::net::IpAddr>().unwrap());
            assert!(address.is_none_or(|address| address.is_loopback()), "{address:?}");
        });
    }

    #[tokio::test]
    async fn an_address_is_found_with_and_without_a_port() {
        let local = Some("127.0.0.1".to_owned());
        assert_eq!(address_towards("https://127.0.0.1").await, local);
        assert_eq!(address_towards("http://127.0.0.1:8080/x").await, local);
        assert_eq!(address_towards("").await, None);
    }
}
