//! Puts a container that starts into its networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use minke_engine_client::wire::{EndpointSettings, HostConfig, HostNetwork};
use minke_engine_network::{
    AttachOptions, Endpoint, NAME_SERVICE_PORT, Namespace, NetworkRecord, Port,
};
use minke_engine_shim::config::DnsConfig;

use super::host_resolver;
use crate::containers::container::Container;
use crate::containers::document::ConfigDocument;
use crate::containers::{links, membership, ports, prepare};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::networks::show_endpoint;
use crate::users;

/// What a container got in its networks.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) endpoints: BTreeMap<String, (EndpointSettings, Endpoint)>,
    /// Where the shim's name service is.
    pub(super) dns: Option<DnsConfig>,
    /// The container asks it.
    pub(super) named: bool,
    pub(super) gateway: Option<String>,
}

pub(super) async fn join_networks(daemon: &Daemon, container: &Arc<Container>) -> Result<Joined> {
    if !container.has_own_network() {
        let host = container.lock().config.host_config.clone();
        if let Some(users) = prepare::users(daemon, &host)? {
            let make = |user: &Path| users::make(daemon, &users, user, None);
            daemon.networks.make_user_namespace_by(&container.id, make)?;
        }
        return Ok(Joined::default());
    }
    let document = container.lock().config.clone();
    let upstreams: Vec<SocketAddr> = document
        .host_config
        .dns
        .iter()
        .filter_map(|server| Some(SocketAddr::new(server.parse::<IpAddr>().ok()?, 53)))
        .collect();
    daemon.networks.release(&container.id).await?;
    let namespace = match prepare::users(daemon, &document.host_config)? {
        None => daemon.networks.make_namespace(&container.id, &upstreams).await?,
        Some(users) => {
            let make = |namespace: &Namespace| {
                users::make(daemon, &users, &namespace.user, Some(&namespace.netns))
            };
            daemon.networks.make_namespace_by(&container.id, &upstreams, make).await?
        }
    };
    let mut joined = Joined::default();
    if document.host_config.network() == HostNetwork::None {
        return Ok(joined);
    }
    let named = enter_all(daemon, container, &document, &mut joined).await?;
    let aliases = links::aliases(document.networks.values());
    if !aliases.is_empty() {
        daemon.networks.set_aliases(&container.id, &aliases).await?;
    }
    // Also where the host's resolver can only be reached from the host.
    joined.named =
        named || (document.host_config.dns.is_empty() && host_resolver().servers.is_empty());
    if joined.named {
        daemon.networks.redirect_names(&container.id).await?;
    }
    // A container may come into a network with names later: its shim is ready for that.
    let (netns, sources) = (namespace.netns, namespace.dns);
    joined.dns = Some(DnsConfig { netns, sources, port: NAME_SERVICE_PORT });
    Ok(joined)
}

/// Enters every network of a container. True: in one of them names resolve.
async fn enter_all(
    daemon: &Daemon,
    container: &Container,
    document: &ConfigDocument,
    joined: &mut Joined,
) -> Result<bool> {
    let mut ports = ports::published(&document.config, &document.host_config)?;
    let mut named = false;
    let records = in_order(daemon, document)?;
    // What is only reached from within has no use for a route or a published port. If all are such, the
    // first one's ports answer at least to the host.
    let way_out = records.iter().position(|record| !record.internal).unwrap_or_default();
    for (place, record) in records.into_iter().enumerate() {
        let asked = document.networks.get(&record.name).cloned().unwrap_or_default();
        let is_way_out = place == way_out;
        let ports = if is_way_out { std::mem::take(&mut ports) } else { Vec::new() };
        let options = attach_options(daemon, container, &record, &asked, is_way_out, ports)?;
        let endpoint = daemon.networks.attach(options).await?;
        named |= record.dns;
        if is_way_out {
            joined.gateway = Some(record.gateway.to_string());
        }
        let shown = show_endpoint(&asked, &record, &endpoint);
        membership::tell(daemon, container, &record, "connect");
        joined.endpoints.insert(record.name, (shown, endpoint));
    }
    Ok(named)
}

/// The network of the network mode first: if it has a way out, it gets the default route and the
/// published ports, else the next one that has.
fn in_order(daemon: &Daemon, document: &ConfigDocument) -> Result<Vec<NetworkRecord>> {
    let first = network_of_mode(daemon, &document.host_config);
    let mut names: Vec<&String> = document.networks.keys().collect();
    names.sort_by_key(|name| **name != first);
    names.into_iter().map(|name| Ok(daemon.networks.get(name)?)).collect()
}

/// The name of the network of the network mode.
fn network_of_mode(daemon: &Daemon, host: &HostConfig) -> String {
    let mode = match host.network() {
        HostNetwork::Named(name) => name,
        _ => "bridge",
    };
    // The mode is as it was asked for: it may be an id.
    daemon.networks.get(mode).map_or_else(|_| mode.to_owned(), |record| record.name)
}

/// How a container asks for a place in a network. `way_out`: this one gives it the default route.
/// `ports`: what it publishes.
pub(crate) fn attach_options(
    daemon: &Daemon,
    container: &Container,
    record: &NetworkRecord,
    asked: &EndpointSettings,
    way_out: bool,
    ports: Vec<Port>,
) -> Result<AttachOptions> {
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    let address = match ipam.ipv4_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Error::Invalid(format!("invalid IPv4 address {text:?} for the container"))
        })?),
    };
    let address6 = match ipam.ipv6_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Error::Invalid(format!("invalid IPv6 address {text:?} for the container"))
        })?),
    };
    let mac_text = match asked.mac_address.as_str() {
        "" => address_of_mode(daemon, container, record),
        text => text.to_owned(),
    };
    Ok(AttachOptions {
        network: record.id.clone(),
        container: container.id.clone(),
        address,
        address6,
        mac: if mac_text.is_empty() { None } else { Some(parse_mac(&mac_text)?) },
        names: dns_names(container, &container.name(), asked),
        default_route: way_out,
        ports,
    })
}

/// The hardware address that the container as a whole was given. It is that of one link: the one in the
/// network of its mode.
fn address_of_mode(daemon: &Daemon, container: &Container, record: &NetworkRecord) -> String {
    let document = &container.lock().config;
    match network_of_mode(daemon, &document.host_config) == record.name {
        true => document.config.mac_address.clone(),
        false => String::new(),
    }
}

/// What a container of this name is called in a network.
pub(crate) fn dns_names(
    container: &Container,
    name: &str,
    asked: &EndpointSettings,
) -> Vec<String> {
    let cell = container.lock();
    let mut names = vec![name.to_owned()];
    names.extend(asked.aliases.iter().flatten().cloned());
    names.push(container.id[..12].to_owned());
    names.push(cell.config.config.hostname.clone());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let mut mac = [0u8; 6];
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let read = |part: &&str| u8::from_str_radix(part, 16).ok();
    let bytes: Option<Vec<u8>> = parts.iter().map(read).collect();
    match bytes {
        Some(bytes) if bytes.len() == 6 => mac.copy_from_slice(&bytes),
        _ => return Err(Error::Invalid(format!("invalid MAC address {text:?}"))),
    }
    Ok(mac)
}
