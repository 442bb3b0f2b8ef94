//! Flows that the kernel remembers.
//!
//! A sender of datagrams to a port that nothing was published on has made the kernel remember a flow
//! without translation, and goes on refreshing it: so it would never reach a container that starts
//! afterwards. Such flows are forgotten when a UDP port is published.

use std::io;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::document::{Port, Protocol};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = (1 << 8) | 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Attributes: a tuple, what of it counts, and their parts.
const TUPLE_ORIG: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// The protocol and the port that was asked for count (`CTA_FILTER_F_CTA_PROTO_…`).
const BY_PROTOCOL_AND_PORT: u32 = (1 << 3) | (1 << 5);
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;

/// Forget the flows to these host ports, as far as they are UDP. What cannot be forgotten ends by
/// itself once the sender pauses, so failures are not told.
pub(crate) fn forget(ports: &[Port]) {
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let _ = send(&message(family, port.host_port));
        }
    }
}

fn send(message: &[u8]) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    // The kernel works a request off before `sendto` returns.
    rustix::net::sendto(&socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn message(family: AddressFamily, port: u16) -> Vec<u8> {
    let tuple = attribute(
        TUPLE_PROTO | NESTED,
        &[attribute(PROTO_NUM, &[UDP]), attribute(PROTO_DST_PORT, &port.to_be_bytes())].concat(),
    );
    let filter = [
        attribute(FILTER_ORIG_FLAGS, &BY_PROTOCOL_AND_PORT.to_ne_bytes()),
        attribute(FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes()),
    ]
    .concat();
    // `nfgenmsg`: family, version, resource id.
    let mut body = vec![family.as_raw() as u8, 0, 0, 0];
    body.extend(attribute(TUPLE_ORIG | NESTED, &tuple));
    body.extend(attribute(FILTER | NESTED, &filter));
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(((16 + body.len()) as u32).to_ne_bytes());
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(value.len() + 7);
    attribute.extend(((4 + value.len()) as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}
