//! Containers enter and leave networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::{NAME_SERVICE_PORT, Networks, mac_of, random_id, sharing};
use crate::document::{AttachOptions, Endpoint, NetworkRecord, Port};
use crate::ipam::{self, Address, Prefix};
use crate::link::{Links, Veth};
use crate::ports::{self, Taken};
use crate::{NetworkError, conntrack, firewall, names, netns, sysctl};

impl Networks {
    /// Attach a container, whose namespace exists, to a network.
    pub async fn attach(&self, options: AttachOptions) -> Result<Endpoint, NetworkError> {
        let _change = self.shared.change.lock().await;
        let mut record = self.get(&options.network)?;
        let container = options.container.clone();
        if record.endpoints.contains_key(&container) {
            return Err(NetworkError::AlreadyAttached { container, network: record.name });
        }
        let endpoint = self.plan_endpoint(&record, &options)?;
        record.endpoints.insert(container.clone(), endpoint.clone());
        self.store(&record)?;
        if let Err(error) = self.connect(&record, &endpoint, options.mac).await {
            record.endpoints.remove(&container);
            let _ = self.store(&record);
            if let Ok(links) = Links::here() {
                let _ = links.delete(&endpoint.host_interface).await;
            }
            return Err(error);
        }
        self.write_names(&record)?;
        self.write_sources(&container)?;
        Ok(endpoint)
    }

    fn plan_endpoint(
        &self,
        record: &NetworkRecord,
        options: &AttachOptions,
    ) -> Result<Endpoint, NetworkError> {
        if let Some(bad) = options.names.iter().find(|name| !names::is_valid(name)) {
            return Err(NetworkError::Invalid { what: "name in a network", value: bad.clone() });
        }
        let address = choose_address(record, options.address)?;
        let address6 = choose_address6(record, options.address6)?;
        let id = random_id();
        let mac = options.mac.unwrap_or_else(|| mac_of(address));
        let (interface, ports) = {
            let records = self.records();
            let all = || records.values().flat_map(|r| r.endpoints.values());
            let used: Vec<&str> = all()
                .filter(|e| e.container == options.container)
                .map(|e| e.interface.as_str())
                .collect();
            let free = (0..).map(|n| format!("eth{n}")).find(|name| !used.contains(&name.as_str()));
            let mut taken: Taken = all().flat_map(|e| &e.ports).flat_map(ports::taken_by).collect();
            let wanted = published(record, &options.ports, address6)?;
            (free.unwrap_or_default(), ports::choose(&wanted, &mut taken)?)
        };
        let has_veth = record.parent.is_none();
        Ok(Endpoint {
            host_interface: if has_veth { format!("mv{}", &id[..10]) } else { String::new() },
            address6,
            id,
            container: options.container.clone(),
            address,
            mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
            interface,
            names: if record.dns { options.names.clone() } else { Vec::new() },
            default_route: options.default_route && !record.internal,
            ports,
        })
    }

    /// Make the kernel have the endpoint.
    async fn connect(
        &self,
        record: &NetworkRecord,
        endpoint: &Endpoint,
        mac: Option<[u8; 6]>,
    ) -> Result<(), NetworkError> {
        let namespace = self.namespace(&endpoint.container)?.netns;
        let links = Links::here()?;
        match &record.parent {
            Some(parent) => {
                sharing::share(&links, parent, record, endpoint, mac, &namespace).await?
            }
            None => self.plug(&links, record, endpoint, mac, &namespace).await?,
        }
        let inside = Links::inside(&namespace)?;
        let interface = &endpoint.interface;
        let index = inside.index(interface).await?.unwrap_or_default();
        let prefix = record.subnet.prefix();
        inside.ensure_address(interface, index, endpoint.address.into(), prefix).await?;
        if let (Some(address), Some(pool)) = (endpoint.address6, &record.v6) {
            netns::enter(&namespace, || sysctl::with_ipv6(interface))?;
            inside.ensure_address(interface, index, address.into(), pool.subnet.prefix()).await?;
        }
        inside.set_up(interface).await?;
        if endpoint.default_route {
            add_routes(&inside, record, endpoint, index).await?;
        }
        let script = firewall::publish_script(&self.shared.engine, record, endpoint);
        if script.is_empty() {
            return Ok(());
        }
        firewall::apply(&script).await?;
        conntrack::forget(&endpoint.ports);
        Ok(())
    }

    /// Make a veth from the network's bridge into the namespace.
    async fn plug(
        &self,
        links: &Links,
        record: &NetworkRecord,
        endpoint: &Endpoint,
        mac: Option<[u8; 6]>,
        namespace: &Path,
    ) -> Result<(), NetworkError> {
        let bridge = match links.index(&record.bridge).await? {
            Some(index) if !self.unmade().contains(&record.id) => index,
            _ => {
                self.make(record, links).await?;
                links.index(&record.bridge).await?.unwrap_or_default()
            }
        };
        let veth = Veth {
            host: &endpoint.host_interface,
            container: &endpoint.interface,
            bridge,
            mac: mac.unwrap_or_else(|| mac_of(endpoint.address)),
            mtu: record.mtu,
            isolated: record.no_icc,
            hairpin: !endpoint.ports.is_empty(),
        };
        links.make_veth(&veth, namespace).await?;
        sysctl::without_ipv6(&endpoint.host_interface);
        Ok(())
    }

    /// Have the container's questions to 127.0.0.11:53 answered by its shim, which listens elsewhere so
    /// that the container can have port 53 for itself.
    pub async fn redirect_names(&self, container: &str) -> Result<(), NetworkError> {
        let namespace = self.namespace(container)?.netns;
        firewall::apply_inside(&namespace, firewall::redirect_names_script(NAME_SERVICE_PORT)).await
    }

    /// Take a running container out of a network.
    pub async fn detach(&self, container: &str, network: &str) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        let mut record = self.get(network)?;
        let Some(endpoint) = record.endpoints.remove(container) else {
            let container = container.to_owned();
            return Err(NetworkError::NotAttached { container, network: record.name });
        };
        self.store(&record)?;
        self.write_names(&record)?;
        self.write_sources(container)?;
        self.withdraw(&record, &endpoint).await?;
        // Only deleting it takes the link from the container at once.
        if record.parent.is_some() {
            let namespace = self.namespace(container)?.netns;
            Links::inside(&namespace)?.delete(&endpoint.interface).await?;
        } else {
            Links::here()?.delete(&endpoint.host_interface).await?;
        }
        // Documents of earlier versions have the mark at internal networks too.
        match endpoint.default_route && !record.internal {
            true => self.route_elsewhere(container).await,
            false => Ok(()),
        }
    }

    /// The network with the way out is left: another one of the container's becomes it.
    async fn route_elsewhere(&self, container: &str) -> Result<(), NetworkError> {
        let next = self
            .list()
            .into_iter()
            .find(|record| !record.internal && record.endpoints.contains_key(container));
        let Some(mut record) = next else { return Ok(()) };
        let Some(endpoint) = record.endpoints.get_mut(container) else { return Ok(()) };
        endpoint.default_route = true;
        let endpoint = endpoint.clone();
        self.store(&record)?;
        let inside = Links::inside(&self.namespace(container)?.netns)?;
        let index = inside.index(&endpoint.interface).await?.unwrap_or_default();
        add_routes(&inside, &record, &endpoint, index).await
    }

    /// Take a container that has ended out of all its networks, which are returned, and give its
    /// namespace up. The kernel deletes its veths by itself, later: waiting for it would cost 20 ms each.
    pub async fn release(&self, container: &str) -> Result<Vec<NetworkRecord>, NetworkError> {
        let _change = self.shared.change.lock().await;
        let of_container: Vec<NetworkRecord> = {
            let records = self.records();
            let has = |record: &&NetworkRecord| record.endpoints.contains_key(container);
            records.values().filter(has).cloned().collect()
        };
        let mut left = Vec::with_capacity(of_container.len());
        for mut record in of_container {
            if let Some(endpoint) = record.endpoints.remove(container) {
                self.store(&record)?;
                self.write_names(&record)?;
                self.withdraw(&record, &endpoint).await?;
                left.push(record);
            }
        }
        let namespace = self.namespace(container)?;
        netns::remove(&namespace.netns)?;
        netns::remove(&namespace.user)?;
        netns::remove(&namespace.dns)?;
        Ok(left)
    }

    /// Change what a container is called in a network.
    pub async fn rename(
        &self,
        container: &str,
        network: &str,
        new_names: Vec<String>,
    ) -> Result<(), NetworkError> {
        let _change = self.shared.change.lock().await;
        if let Some(bad) = new_names.iter().find(|name| !names::is_valid(name)) {
            return Err(NetworkError::Invalid { what: "name in a network", value: bad.clone() });
        }
        let mut record = self.get(network)?;
        let dns = record.dns;
        let Some(endpoint) = record.endpoints.get_mut(container) else {
            let container = container.to_owned();
            return Err(NetworkError::NotAttached { container, network: record.name });
        };
        endpoint.names = if dns { new_names } else { Vec::new() };
        self.store(&record)?;
        self.write_names(&record)
    }

    async fn withdraw(
        &self,
        record: &NetworkRecord,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let script = firewall::withdraw_script(&self.shared.engine, record, endpoint);
        if script.is_empty() {
            return Ok(());
        }
        match firewall::apply(&script).await {
            Ok(()) => Ok(()),
            // Somebody flushed the ruleset: then the elements are gone, and the rest must come back.
            Err(_) => firewall::apply(&self.rebuild_script()).await,
        }
    }
}

/// Routes everything through a network.
async fn add_routes(
    inside: &Links,
    record: &NetworkRecord,
    endpoint: &Endpoint,
    index: u32,
) -> Result<(), NetworkError> {
    inside.default_route(record.gateway.into(), index).await?;
    if let (Some(_), Some(pool)) = (endpoint.address6, &record.v6) {
        inside.default_route(pool.gateway.into(), index).await?;
    }
    Ok(())
}

/// The ports to publish, with the network's own address where none is said. A container that shares a
/// link of the host is reached by its own address; one without an IPv6 address is not reached by one.
fn published(
    record: &NetworkRecord,
    wanted: &[Port],
    address6: Option<Ipv6Addr>,
) -> Result<Vec<Port>, NetworkError> {
    if record.parent.is_some() {
        return Ok(Vec::new());
    }
    let with_address = |port: &Port| match port.host_address.or(record.publish_on) {
        Some(address) if address.is_ipv6() && address6.is_none() => {
            let (port, network) = (port.container_port, record.name.clone());
            Err(NetworkError::PublishedWithoutIpv6 { port, address, network })
        }
        host_address => Ok(Port { host_address, ..port.clone() }),
    };
    wanted.iter().map(with_address).collect()
}

fn choose_address(
    record: &NetworkRecord,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NetworkError> {
    let used = |address: Ipv4Addr| {
        address == record.gateway
            || record.reserved.values().any(|other| *other == address)
            || record.endpoints.values().any(|e| e.address == address)
    };
    choose(record, record.subnet, record.ip_range, wanted, used)
}

fn choose_address6(
    record: &NetworkRecord,
    wanted: Option<Ipv6Addr>,
) -> Result<Option<Ipv6Addr>, NetworkError> {
    let Some(pool) = &record.v6 else {
        return match wanted {
            Some(_) => Err(NetworkError::NoIpv6(record.name.clone())),
            None => Ok(None),
        };
    };
    let used = |address: Ipv6Addr| {
        address == pool.gateway
            || record.reserved.values().any(|other| *other == address)
            || record.endpoints.values().any(|e| e.address6 == Some(address))
    };
    choose(record, pool.subnet, pool.ip_range, wanted, used).map(Some)
}

fn choose<A: Address + Into<IpAddr>>(
    record: &NetworkRecord,
    subnet: Prefix<A>,
    range: Option<Prefix<A>>,
    wanted: Option<A>,
    used: impl Fn(A) -> bool,
) -> Result<A, NetworkError> {
    match wanted {
        Some(address) if !subnet.is_host(address) => Err(NetworkError::AddressOutside {
            address: address.into(),
            subnet: subnet.to_string(),
        }),
        Some(address) if used(address) => Err(NetworkError::AddressInUse(address.into())),
        Some(address) => Ok(address),
        None => ipam::free_address(subnet, range, used)
            .ok_or_else(|| NetworkError::NoFreeAddress(record.name.clone())),
    }
}
