//! Published ports: which host ports are free.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::document::{Port, Protocol};
use crate::{NetworkError, sysctl};

/// Where a port is chosen if none is asked for: the kernel's range of ephemeral ports.
const FIRST: u16 = 32768;
const LAST: u16 = 60999;

/// All addresses of the host.
const ALL: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A port of the host that is taken.
pub(crate) type Taken = BTreeSet<(Protocol, IpAddr, u16)>;

/// What a port takes once it is given; all addresses of both versions if none was named.
pub(crate) fn taken_by(port: &Port) -> impl Iterator<Item = (Protocol, IpAddr, u16)> {
    let (protocol, number) = (port.protocol, port.host_port);
    addresses(port).into_iter().map(move |address| (protocol, address, number))
}

fn addresses(port: &Port) -> Vec<IpAddr> {
    port.host_address.map_or(vec![ALL, ALL6], |address| vec![address])
}

/// Choose the host ports of a container; nothing is changed, `taken` grows by them.
pub(crate) fn choose(wanted: &[Port], taken: &mut Taken) -> Result<Vec<Port>, NetworkError> {
    let mut chosen = Vec::with_capacity(wanted.len());
    for port in wanted {
        if port.container_port == 0 {
            return Err(NetworkError::Invalid { what: "container port", value: "0".to_owned() });
        }
        if port.host_address == Some(Ipv6Addr::LOCALHOST.into()) && sysctl::filters_bridges6() {
            let value = "::1 (this host passes what bridges carry to its packet filter; set \
                         net.bridge.bridge-nf-call-ip6tables=0, or publish at 127.0.0.1)";
            return Err(NetworkError::Invalid { what: "host address", value: value.to_owned() });
        }
        let host_port = choose_one(port, taken)?;
        let given = Port { host_port, host_port_end: None, ..port.clone() };
        taken.extend(taken_by(&given));
        chosen.push(given);
    }
    Ok(chosen)
}

fn choose_one(port: &Port, taken: &Taken) -> Result<u16, NetworkError> {
    let address = port.host_address.unwrap_or(ALL);
    let (first, last) = match (port.host_port, port.host_port_end) {
        (0, _) => (FIRST, LAST),
        (first, None) => (first, first),
        (first, Some(last)) if first <= last => (first, last),
        (first, Some(last)) => {
            let value = format!("{first}-{last}");
            return Err(NetworkError::Invalid { what: "range of host ports", value });
        }
    };
    for candidate in first..=last {
        let known = |address| is_taken(port.protocol, address, candidate, taken);
        if addresses(port).into_iter().any(known) {
            continue;
        }
        match can_bind(port.protocol, address, candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(NetworkError::NoSuchHostAddress { address, port: candidate });
            }
            Err(_) => {}
        }
    }
    if first == last {
        Err(NetworkError::PortInUse { address, port: first, protocol: port.protocol })
    } else {
        Err(NetworkError::NoFreePort { address, first, last })
    }
}

/// All addresses and one address of the same version are in each other's way.
fn is_taken(protocol: Protocol, address: IpAddr, port: u16, taken: &Taken) -> bool {
    taken.iter().any(|(other_protocol, other, other_port)| {
        *other_protocol == protocol
            && *other_port == port
            && other.is_ipv6() == address.is_ipv6()
            && (*other == address || other.is_unspecified() || address.is_unspecified())
    })
}

/// Whether a process of the host listens there. The kernel is asked by trying it.
fn can_bind(protocol: Protocol, address: IpAddr, port: u16) -> io::Result<()> {
    let address = SocketAddr::new(address, port);
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_port: u16, end: Option<u16>) -> Port {
        Port {
            host_address: Some(Ipv4Addr::LOCALHOST.into()),
            host_port,
            host_port_end: end,
            container_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_listener_of_the_host_is_in_the_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let error = choose(&[port(used, None)], &mut Taken::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{used} failed: port is already allocated")
        );
    }

    #[test]
    fn a_port_is_given_once_and_ranges_give_the_next() {
        let mut taken = Taken::new();
        let first = choose(&[port(0, None)], &mut taken).unwrap()[0].host_port;
        assert!(matches!(
            choose(&[port(first, None)], &mut taken),
            Err(NetworkError::PortInUse { .. })
        ));
        let from_range = choose(&[port(first, Some(LAST))], &mut taken).unwrap();
        assert!(from_range[0].host_port > first);
        let all = Port { host_address: None, ..port(first, None) };
        assert!(matches!(choose(&[all], &mut taken), Err(NetworkError::PortInUse { .. })));
    }

    #[test]
    fn the_versions_of_the_protocol_are_not_in_each_others_way() {
        let on = |address: IpAddr| Port { host_address: Some(address), ..port(40_123, None) };
        let mut taken = Taken::new();
        let both = [on(ALL), on(Ipv6Addr::UNSPECIFIED.into())];
        assert_eq!(choose(&both, &mut taken).unwrap().len(), 2);
        assert!(choose(&[port(40_123, None)], &mut taken).is_err());
        let again = on("fd00::1".parse().unwrap());
        assert!(matches!(choose(&[again], &mut taken), Err(NetworkError::PortInUse { .. })));
    }

    #[test]
    fn an_address_that_is_not_ours_is_said() {
        let foreign =
            Port { host_address: Some(Ipv4Addr::new(203, 0, 113, 9).into()), ..port(0, None) };
        assert!(matches!(
            choose(&[foreign], &mut Taken::new()),
            Err(NetworkError::NoSuchHostAddress { .. })
        ));
    }
}
