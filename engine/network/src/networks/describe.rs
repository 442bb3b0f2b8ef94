//! What a new network will be: names, subnets and the rest, checked and chosen.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Networks, milliseconds_now, random_id};
use crate::document::{self, NetworkOptions, NetworkRecord, Parent, Pool6, Wanted6};
use crate::ipam::{self, Address, Prefix, Subnet, Subnet6};
use crate::link::{HostLink, HostRoutes, Links};
use crate::{NetworkError, names};

/// A subnet that is taken, and by what.
struct Taken<A> {
    subnet: Prefix<A>,
    by: String,
}

impl Networks {
    pub(super) async fn describe(
        &self,
        options: NetworkOptions,
        links: &Links,
    ) -> Result<NetworkRecord, NetworkError> {
        let id = random_id();
        let routes = links.routes().await?;
        let host = links.list().await?;
        let shares = options.parent.is_some();
        let subnet = self.choose_subnet(options.subnet, &routes, shares)?;
        let gateway = options.gateway.unwrap_or_else(|| subnet.first_host());
        check_inside(subnet, gateway, options.ip_range)?;
        let v6 = match options.ipv6 {
            Some(wanted) => Some(self.choose_pool6(wanted, &routes, shares)?),
            None => None,
        };
        for address in options.reserved.values() {
            let inside = match address {
                IpAddr::V4(address) => subnet.contains(*address),
                IpAddr::V6(address) => v6.as_ref().is_some_and(|v6| v6.subnet.contains(*address)),
            };
            if !inside {
                let subnet = subnet.to_string();
                return Err(NetworkError::AddressOutside { address: *address, subnet });
            }
        }
        let parent = options.parent.as_ref().map(|parent| parent.link.as_str());
        let way_out = host.iter().filter(|link| match parent {
            Some(parent) => link.name == parent,
            None => routes.default_links.contains(&link.index),
        });
        let mtu = match options.mtu {
            0 => way_out.map(|link| link.mtu).min().unwrap_or(1500).clamp(576, 1500),
            stated => stated.clamp(68, 65535),
        };
        let bridge = match &options.parent {
            Some(_) => String::new(),
            None => bridge_name(options.bridge, &id)?,
        };
        let borrowed = self.check_bridge(&bridge, &host)?;
        Ok(NetworkRecord {
            version: document::VERSION,
            name: options.name,
            bridge,
            borrowed,
            subnet,
            gateway,
            ip_range: options.ip_range,
            chosen: options.subnet.is_none(),
            reserved: options.reserved,
            v6,
            parent: options.parent,
            routed: options.routed,
            publish_on: options.publish_on,
            internal: options.internal,
            no_icc: options.no_icc,
            no_masquerade: options.no_masquerade,
            mtu,
            dns: options.dns,
            labels: options.labels,
            asked: options.asked,
            created_at: milliseconds_now(),
            endpoints: BTreeMap::new(),
            id,
        })
    }

    /// Whether the host has the bridge already. One bridge is one network's.
    fn check_bridge(&self, bridge: &str, host: &[HostLink]) -> Result<bool, NetworkError> {
        let records = self.records();
        if let Some(other) = records.values().find(|it| !bridge.is_empty() && it.bridge == bridge) {
            let (bridge, network) = (bridge.to_owned(), other.name.clone());
            return Err(NetworkError::BridgeInUse { bridge, network });
        }
        match host.iter().find(|link| link.name == bridge) {
            Some(link) if !link.bridge => Err(NetworkError::NoBridge(bridge.to_owned())),
            found => Ok(found.is_some()),
        }
    }

    /// The subnet that was asked for, or a free one.
    pub(super) fn choose_subnet(
        &self,
        wanted: Option<Subnet>,
        routes: &HostRoutes,
        shares_link: bool,
    ) -> Result<Subnet, NetworkError> {
        let records = self.records();
        let of_network = |r: &NetworkRecord| Taken { subnet: r.subnet, by: by_network(r) };
        let taken = records.values().map(of_network).chain(routes.subnets.iter().map(by_route));
        match wanted {
            Some(subnet) => check_free(subnet, taken, shares_link),
            None => {
                let mut taken: Vec<Subnet> = taken.map(|taken| taken.subnet).collect();
                // A name server must stay reachable, wherever its route leads.
                for server in names::host_upstreams() {
                    if let SocketAddr::V4(server) = server {
                        taken.extend(Subnet::new(*server.ip(), 32));
                    }
                }
                ipam::free_subnet(ipam::candidates(), &taken)
                    .ok_or_else(|| NetworkError::NoFreeSubnet(ipam::candidates().count()))
            }
        }
    }

    fn choose_pool6(
        &self,
        wanted: Wanted6,
        routes: &HostRoutes,
        shares_link: bool,
    ) -> Result<Pool6, NetworkError> {
        let records = self.records();
        let of_network = |r: &NetworkRecord| {
            r.v6.as_ref().map(|v6| Taken { subnet: v6.subnet, by: by_network(r) })
        };
        let taken =
            records.values().filter_map(of_network).chain(routes.subnets6.iter().map(by_route));
        let subnet: Subnet6 = match wanted.subnet {
            Some(subnet) => check_free(subnet, taken, shares_link)?,
            None => {
                let taken: Vec<Subnet6> = taken.map(|taken| taken.subnet).collect();
                let candidates = || ipam::candidates6(&self.shared.engine);
                ipam::free_subnet(candidates(), &taken)
                    .ok_or_else(|| NetworkError::NoFreeSubnet(candidates().count()))?
            }
        };
        let gateway = wanted.gateway.unwrap_or_else(|| subnet.first_host());
        check_inside(subnet, gateway, wanted.ip_range)?;
        Ok(Pool6 { subnet, gateway, ip_range: wanted.ip_range, routed: wanted.routed })
    }
}

fn by_network(record: &NetworkRecord) -> String {
    format!("network {}", record.name)
}

fn by_route<A: Address>(subnet: &Prefix<A>) -> Taken<A> {
    Taken { subnet: *subnet, by: format!("route {subnet} of the host") }
}

/// A stated subnet may not be that of another network, nor (unless it is meant to be the network of a
/// link of the host) one that the host has a route to.
fn check_free<A: Address>(
    subnet: Prefix<A>,
    mut taken: impl Iterator<Item = Taken<A>>,
    shares_link: bool,
) -> Result<Prefix<A>, NetworkError> {
    match taken.find(|taken| !shares_link && taken.subnet.overlaps(subnet)) {
        Some(taken) => {
            Err(NetworkError::SubnetInUse { subnet: subnet.to_string(), other: taken.by })
        }
        None => Ok(subnet),
    }
}

fn check_inside<A: Address + Into<IpAddr>>(
    subnet: Prefix<A>,
    gateway: A,
    range: Option<Prefix<A>>,
) -> Result<(), NetworkError> {
    let outside = |address: A| NetworkError::AddressOutside {
        address: address.into(),
        subnet: subnet.to_string(),
    };
    if !subnet.is_host(gateway) {
        return Err(outside(gateway));
    }
    match range.filter(|range| !subnet.contains(range.base())) {
        Some(range) => Err(outside(range.base())),
        None => Ok(()),
    }
}

fn bridge_name(wanted: Option<String>, id: &str) -> Result<String, NetworkError> {
    let bridge = wanted.unwrap_or_else(|| format!("mk{}", &id[..10]));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if bridge.is_empty() || bridge.len() > 15 || !bridge.bytes().all(plain) {
        return Err(NetworkError::Invalid { what: "bridge name", value: bridge });
    }
    Ok(bridge)
}

/// Whether the kind of sharing has such a mode.
pub(super) fn check_mode(parent: &Parent) -> Result<(), NetworkError> {
    match crate::link::is_mode(parent.kind, &parent.mode) {
        true => Ok(()),
        false => {
            Err(NetworkError::Invalid { what: "mode of the driver", value: parent.mode.clone() })
        }
    }
}
