//! Puts existing containers into networks and takes them out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use minke_engine_client::wire::{EndpointSettings, HostNetwork};
use minke_engine_network::{Endpoint, NetworkError, NetworkRecord, Port};

use super::container::Container;
use super::start::{self, attach_options};
use super::{links, ports};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::networks::{Found, show_endpoint};

/// Puts a container into a network; at once if it runs.
pub(crate) async fn connect(
    daemon: &Daemon,
    container: &Arc<Container>,
    network: &str,
    asked: EndpointSettings,
) -> Result<()> {
    let _turn = container.turn("connected").await?;
    let record = &find(daemon, network)?;
    let (known, own) = {
        let cell = container.lock();
        let mode = cell.config.host_config.network();
        let own =
            !matches!(mode, HostNetwork::Host | HostNetwork::None | HostNetwork::Container(_));
        (cell.config.networks.contains_key(&record.name), own)
    };
    if !own {
        return Err(Error::Forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .to_owned(),
        ));
    }
    if known {
        let (container, network) = (container.name(), record.name.clone());
        return Err(NetworkError::AlreadyAttached { container, network }.into());
    }
    let asked = checked(asked)?;
    if container.status().has_process() {
        enter(daemon, container, record, asked).await?;
    } else {
        container.change_config(|config| {
            config.networks.insert(record.name.clone(), asked);
        })?;
    }
    tell(daemon, container, record, "connect");
    Ok(())
}

/// The network of this name or id, if it is one to enter and to leave. Asked when it is the container's
/// turn: it may be removed while somebody waits for that.
fn find(daemon: &Daemon, network: &str) -> Result<NetworkRecord> {
    let built_in = match daemon.find_network(network)? {
        Found::Bridge(record) => return Ok(*record),
        Found::Host => "host",
        Found::None => "none",
    };
    Err(Error::Forbidden(format!(
        "container cannot be connected to or disconnected from {built_in} network"
    )))
}

/// Puts a running container into a network.
async fn enter(
    daemon: &Daemon,
    container: &Container,
    record: &NetworkRecord,
    asked: EndpointSettings,
) -> Result<()> {
    let way_out = !daemon.networks.has_way_out(&container.id);
    let ports = unpublished(daemon, container, record)?;
    let options = attach_options(daemon, container, record, &asked, way_out, ports)?;
    let endpoint = daemon.networks.attach(options).await?;
    if let Err(error) = settle_in(daemon, container, record, asked, endpoint).await {
        // What failed is what the caller hears, not that it could not be undone as a whole.
        let _ = take_out(daemon, container, record).await;
        return Err(error);
    }
    Ok(())
}

/// The ports that a network which a running container enters is to publish: all, if no other network
/// does, as after leaving the one that did. An internal network is not reached from outside.
fn unpublished(
    daemon: &Daemon,
    container: &Container,
    record: &NetworkRecord,
) -> Result<Vec<Port>> {
    let published = endpoints(daemon, container).iter().any(|endpoint| !endpoint.ports.is_empty());
    if record.internal || published {
        return Ok(Vec::new());
    }
    let cell = container.lock();
    ports::published(&cell.config.config, &cell.config.host_config)
}

/// What a container has in its networks now.
fn endpoints(daemon: &Daemon, container: &Container) -> Vec<Endpoint> {
    let of_container = |mut record: NetworkRecord| record.endpoints.remove(&container.id);
    daemon.networks.list().into_iter().filter_map(of_container).collect()
}

/// Makes the rest of a running container know the network that it is in.
async fn settle_in(
    daemon: &Daemon,
    container: &Container,
    record: &NetworkRecord,
    asked: EndpointSettings,
    endpoint: Endpoint,
) -> Result<()> {
    if record.dns {
        start::serve_names(daemon, container).await?;
    }
    let shown = show_endpoint(&asked, record, &endpoint);
    let ports = ports::given(endpoints(daemon, container).iter());
    container.change_state(|state| {
        state.endpoints.insert(record.name.clone(), shown);
        state.ports = ports;
    })?;
    container.change_config(|config| {
        config.networks.insert(record.name.clone(), asked);
    })?;
    let aliases = links::aliases(container.lock().config.networks.values());
    Ok(daemon.networks.set_aliases(&container.id, &aliases).await?)
}

/// What of an endpoint may be asked for; what only answers hold is dropped, as Docker does.
pub(crate) fn checked(asked: EndpointSettings) -> Result<EndpointSettings> {
    let ipam = asked.ipam_config.clone().unwrap_or_default();
    if !ipam.ipv4_address.is_empty() && ipam.ipv4_address.parse::<Ipv4Addr>().is_err() {
        let address = &ipam.ipv4_address;
        return Err(Error::Invalid(format!("invalid IPv4 address: {address}")));
    }
    if let Some(address) = ipam.link_local_ips.iter().find(|ip| ip.parse::<IpAddr>().is_err()) {
        return Err(Error::Invalid(format!("invalid link-local IP address: {address}")));
    }
    Ok(EndpointSettings {
        ipam_config: asked.ipam_config,
        links: asked.links,
        aliases: asked.aliases,
        mac_address: asked.mac_address,
        driver_opts: asked.driver_opts,
        ..EndpointSettings::default()
    })
}

/// Takes a container out of a network; at once if it runs. One that does not run also leaves a network
/// that is gone, and with `force` so does one that runs: it could never be started again.
pub(crate) async fn disconnect(
    daemon: &Daemon,
    container: &Arc<Container>,
    network: &str,
    force: bool,
) -> Result<()> {
    let _turn = container.turn("disconnected").await?;
    let record = &match find(daemon, network) {
        Err(Error::Network(NetworkError::NotFound(_)))
            if (force || !container.status().has_process())
                && container.lock().config.networks.contains_key(network) =>
        {
            return forget(daemon, container, network);
        }
        found => found?,
    };
    let known = container.lock().config.networks.contains_key(&record.name);
    let attached = record.endpoints.contains_key(&container.id);
    // A daemon that died halfway leaves it with only one side knowing.
    if !known && !attached {
        let (container, network) = (container.name(), record.name.clone());
        return Err(NetworkError::NotAttached { container, network }.into());
    }
    take_out(daemon, container, record).await?;
    tell(daemon, container, record, "disconnect");
    Ok(())
}

/// Takes a container out of a network, as far as it is in it.
async fn take_out(daemon: &Daemon, container: &Container, record: &NetworkRecord) -> Result<()> {
    match daemon.networks.detach(&container.id, &record.id).await {
        Ok(()) | Err(NetworkError::NotAttached { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    forget(daemon, container, &record.name)
}

/// Takes a network, in which a container is not any more, from its documents.
fn forget(daemon: &Daemon, container: &Container, network: &str) -> Result<()> {
    if container.lock().state.endpoints.contains_key(network) {
        let ports = ports::given(endpoints(daemon, container).iter());
        container.change_state(|state| {
            state.endpoints.remove(network);
            state.ports = ports;
        })?;
    }
    container.change_config(|config| {
        config.networks.remove(network);
    })
}

/// Publishes that a container has entered (`connect`) or left (`disconnect`) a network.
pub(super) fn tell(daemon: &Daemon, container: &Container, record: &NetworkRecord, action: &str) {
    let attributes = BTreeMap::from([
        ("container".to_owned(), container.id.clone()),
        ("name".to_owned(), record.name.clone()),
        ("type".to_owned(), record.driver().to_owned()),
    ]);
    daemon.events.publish("network", action, &record.id, attributes);
}
