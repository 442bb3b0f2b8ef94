//! What can go wrong with networks. The texts of the first variants are shown to users as they are.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::document::Protocol;

/// Error of this crate; each variant says what was being done to what.
#[allow(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("network {0} not found")]
    NotFound(String),
    #[error("network with name {0} already exists")]
    NameInUse(String),
    #[error("network {name} is ambiguous ({count} matches found on name)")]
    Ambiguous { name: String, count: usize },
    #[error("network {name} has active endpoints: {containers}")]
    InUse { name: String, containers: String },
    #[error("endpoint of container {container} already exists in network {network}")]
    AlreadyAttached { container: String, network: String },
    #[error("container {container} is not connected to network {network}")]
    NotAttached { container: String, network: String },
    #[error("Pool overlaps with other one on this address space: {subnet} and {other}")]
    SubnetInUse { subnet: String, other: String },
    #[error("the bridge {bridge} is that of network {network}")]
    BridgeInUse { bridge: String, network: String },
    #[error("{0} is a link of the host and no bridge")]
    NoBridge(String),
    #[error("no subnet is free among {0} that were tried")]
    NoFreeSubnet(usize),
    #[error("this kernel has no {kind}: {source}")]
    NotInKernel { kind: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the host has no link {0} that containers could share")]
    NoSuchParent(String),
    #[error("network {0} has no IPv6 addresses: make it with EnableIPv6")]
    NoIpv6(String),
    #[error(
        "port {port} cannot be published on [{address}]: network {network} has no IPv6 addresses; make one with EnableIPv6, or publish on an IPv4 address"
    )]
    PublishedWithoutIpv6 { port: u16, address: IpAddr, network: String },
    #[error("no available addresses on network {0}")]
    NoFreeAddress(String),
    #[error("Address already in use: {0}")]
    AddressInUse(IpAddr),
    #[error("invalid address {address}: it does not belong to subnet {subnet} of the network")]
    AddressOutside { address: IpAddr, subnet: String },
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortInUse { address: IpAddr, port: u16, protocol: Protocol },
    #[error("no free host port in {first}-{last} for {address}")]
    NoFreePort { address: IpAddr, first: u16, last: u16 },
    #[error("listening on {address}:{port}: the host has no such address")]
    NoSuchHostAddress { address: IpAddr, port: u16 },
    #[error("invalid {what}: {value}")]
    Invalid { what: &'static str, value: String },
    #[error("{action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{action} {link}")]
    Link { action: &'static str, link: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("applying firewall rules: nft said: {0}")]
    Firewall(String),
    #[error("starting nft (package nftables)")]
    NftMissing(#[source] io::Error),
    #[error("letting {link} have IPv6 addresses")]
    Ipv6 { link: String, source: io::Error },
    #[error("{action} in network namespace {path}")]
    Namespace { action: &'static str, path: PathBuf, source: io::Error },
}

impl NetworkError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }

    pub(crate) fn enabling_ipv6(link: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Ipv6 { link: link.to_owned(), source }
    }
}
