//! Puts existing containers into networks and takes them out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use minke_engine_client::wire::{EndpointSettings, HostNetwork};
use minke_engine_network::{Endpoint, NetworkError, NetworkRecord};

use super::container::Container;
use super::links;
use super::start::{self, attach_options};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::networks::show_endpoint;

/// Puts a container into a network; at once if it runs.
pub(crate) async fn connect(
    daemon: &Daemon,
    container: &Arc<Container>,
    record: &NetworkRecord,
    asked: EndpointSettings,
) -> Result<()> {
    let _turn = container.turn("connected").await?;
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
        let way_out = !daemon.networks.has_way_out(&container.id);
        let options = attach_options(container, &record.id, &asked, way_out, &mut Vec::new())?;
        let endpoint = daemon.networks.attach(options).await?;
        if let Err(error) = settle_in(daemon, container, record, asked, endpoint).await {
            // What failed is what the caller hears, not that it could not be undone as a whole.
            let _ = take_out(daemon, container, record).await;
            return Err(error);
        }
    } else {
        container.change_config(|config| {
            config.networks.insert(record.name.clone(), asked);
        })?;
    }
    tell(daemon, container, record, "connect");
    Ok(())
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
    container.change_state(|state| {
        state.endpoints.insert(record.name.clone(), shown);
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

/// Takes a container out of a network; at once if it runs.
pub(crate) async fn disconnect(
    daemon: &Daemon,
    container: &Arc<Container>,
    record: &NetworkRecord,
) -> Result<()> {
    let _turn = container.turn("disconnected").await?;
    let known = container.lock().config.networks.contains_key(&record.name);
    let attached = daemon.networks.get(&record.id)?.endpoints.contains_key(&container.id);
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
    if container.lock().state.endpoints.contains_key(&record.name) {
        container.change_state(|state| {
            state.endpoints.remove(&record.name);
        })?;
    }
    container.change_config(|config| {
        config.networks.remove(&record.name);
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
