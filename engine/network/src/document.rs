//! What is stored: networks and their endpoints, one JSON document each (`networks/<id>/network.json`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::ipam::{Subnet, Subnet6};

/// Version of the stored document.
pub const VERSION: u32 = 1;

/// What a new network shall be.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// Name for people; unique among the networks.
    pub name: String,
    /// `None`: a free one that no route of the host covers.
    pub subnet: Option<Subnet>,
    /// `None`: the first host address of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses are chosen from this range only; static ones need not be in it.
    pub ip_range: Option<Subnet>,
    /// Addresses that are never chosen, with what people call them.
    pub reserved: BTreeMap<String, IpAddr>,
    /// IPv6 beside IPv4.
    pub ipv6: Option<Wanted6>,
    /// A link of the host that containers share, instead of a bridge.
    pub parent: Option<Parent>,
    /// No NAT: others reach containers by their addresses, if they have a route.
    pub routed: bool,
    /// Where ports are published that do not say it; `None`: on all addresses of the host.
    pub publish_on: Option<IpAddr>,
    /// Name of the bridge; `None`: `mk` and ten hex digits of the id.
    pub bridge: Option<String>,
    /// No NAT and no way out.
    pub internal: bool,
    /// Containers of this network cannot talk to each other directly.
    pub no_icc: bool,
    /// Do not masquerade what leaves.
    pub no_masquerade: bool,
    /// 0: 1500, or the MTU of the default route if that is lower.
    pub mtu: u32,
    /// Container names resolve (user-defined networks: yes; Docker's default bridge: no).
    pub dns: bool,
    /// What people attach to it.
    pub labels: BTreeMap<String, String>,
    /// The options in the words of who asked, to be shown again.
    pub asked: Option<BTreeMap<String, String>>,
}

/// The IPv6 side of a new network.
#[derive(Clone, Debug, Default)]
pub struct Wanted6 {
    /// `None`: a free unique local one.
    pub subnet: Option<Subnet6>,
    /// `None`: the first host address of the subnet.
    pub gateway: Option<Ipv6Addr>,
    /// Addresses are chosen from this range only.
    pub ip_range: Option<Subnet6>,
    /// No NAT for this version.
    pub routed: bool,
}

/// The IPv6 side of a network.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Pool6 {
    /// Its addresses.
    pub subnet: Subnet6,
    /// The bridge's own address.
    pub gateway: Ipv6Addr,
    /// Where addresses are chosen from.
    pub ip_range: Option<Subnet6>,
    /// No NAT.
    pub routed: bool,
}

/// A link of the host that containers share without a bridge.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Parent {
    /// How they share it.
    pub kind: ParentKind,
    /// Name of the host's link.
    pub link: String,
    /// The kind's mode in the words of `ip link`; empty is its default.
    pub mode: String,
}

/// How containers share a link of the host.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ParentKind {
    /// Each has a hardware address of its own.
    Macvlan,
    /// All have the link's hardware address.
    Ipvlan,
}

impl ParentKind {
    /// As the kernel and Docker call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// A network as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Version of this document.
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Name of the bridge.
    pub bridge: String,
    /// The host had the bridge before: it stays when the network goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub borrowed: bool,
    /// Its addresses.
    pub subnet: Subnet,
    /// The bridge's own address.
    pub gateway: Ipv4Addr,
    /// Where addresses are chosen from.
    pub ip_range: Option<Subnet>,
    /// The subnet was not asked for: it may become another one when the host needs it.
    #[serde(default)]
    pub chosen: bool,
    /// Addresses that are never chosen.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
    /// The IPv6 side.
    #[serde(default)]
    pub v6: Option<Pool6>,
    /// A link of the host instead of the bridge.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// No NAT.
    #[serde(default)]
    pub routed: bool,
    /// Where ports are published that do not say it.
    #[serde(default)]
    pub publish_on: Option<IpAddr>,
    /// No way out.
    pub internal: bool,
    /// Containers cannot talk to each other directly.
    pub no_icc: bool,
    /// Source addresses stay as they are.
    pub no_masquerade: bool,
    /// Bytes of a packet.
    pub mtu: u32,
    /// Names resolve.
    pub dns: bool,
    /// What people attach to it.
    pub labels: BTreeMap<String, String>,
    /// The options in the words of who asked; older documents and the default network have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<BTreeMap<String, String>>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// By container id.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// How a container is to be attached to a network.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// Name of the network or its id.
    pub network: String,
    /// Container id.
    pub container: String,
    /// A static address.
    pub address: Option<Ipv4Addr>,
    /// A static IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// `None`: made from the address.
    pub mac: Option<[u8; 6]>,
    /// Container name and aliases, lower case or not: what the names file answers to.
    pub names: Vec<String>,
    /// The default route goes through this network. Exactly one network of a container should say so.
    pub default_route: bool,
    /// Published ports.
    pub ports: Vec<Port>,
}

/// A container's place in a network.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    /// Container id.
    pub container: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    /// Its hardware address, `02:42:…`.
    pub mac: String,
    /// Name of the interface in the container: `eth0`, `eth1`, ….
    pub interface: String,
    /// The host's end of the veth; empty where the container shares a link of the host.
    pub host_interface: String,
    /// What the names file answers to.
    pub names: Vec<String>,
    /// The default route goes through this network.
    pub default_route: bool,
    /// With the host ports that were chosen.
    pub ports: Vec<Port>,
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// `None`: all addresses of the host, of both versions if the container has both.
    pub host_address: Option<IpAddr>,
    /// 0: any free one of `range`, or of 32768–60999.
    pub host_port: u16,
    /// Last of a range of host ports to choose from (only with `host_port` as its first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port_end: Option<u16>,
    /// Port in the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

impl NetworkRecord {
    /// The link of the host that is there for this network alone.
    pub(crate) fn own_link(&self) -> Option<&str> {
        (self.parent.is_none() && !self.borrowed).then_some(&*self.bridge)
    }

    /// What Docker calls the network's driver.
    pub fn driver(&self) -> &'static str {
        self.parent.as_ref().map_or("bridge", |parent| parent.kind.word())
    }
}
