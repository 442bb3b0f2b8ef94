//! Containers enter and leave networks.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Networks, mac_of, random_id};
use crate::document::{AttachOptions, Endpoint, NetworkRecord};
use crate::link::{Links, Veth};
use crate::ports::{self, Taken};
use crate::{NetworkError, firewall, ipam, names, netns};

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
            let unspecified = Ipv4Addr::UNSPECIFIED;
            let mut taken: Taken = all()
                .flat_map(|e| &e.ports)
                .map(|p| (p.protocol, p.host_address.unwrap_or(unspecified), p.host_port))
                .collect();
            (free.unwrap_or_default(), ports::choose(&options.ports, &mut taken)?)
        };
        Ok(Endpoint {
            host_interface: format!("mv{}", &id[..10]),
            id,
            container: options.container.clone(),
            address,
            mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
            interface,
            names: if record.dns { options.names.clone() } else { Vec::new() },
            default_route: options.default_route,
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
        let namespace: PathBuf = self.namespace(&endpoint.container)?.netns;
        let links = Links::here()?;
        let bridge = match links.index(&record.bridge).await? {
            Some(index) => index,
            None => {
                self.make(record, &links).await?;
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
        links.make_veth(&veth, &namespace).await?;
        let inside = Links::inside(&namespace)?;
        let index = inside.index(&endpoint.interface).await?.unwrap_or_default();
        let prefix = record.subnet.prefix();
        inside.ensure_address(&endpoint.interface, index, endpoint.address, prefix).await?;
        inside.set_up(&endpoint.interface).await?;
        if endpoint.default_route && !record.internal {
            inside.default_route(record.gateway).await?;
        }
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        firewall::apply(&firewall::publish_script(&self.shared.engine, endpoint)).await
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
        self.withdraw(&endpoint).await?;
        Links::here()?.delete(&endpoint.host_interface).await
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
                self.withdraw(&endpoint).await?;
                left.push(record);
            }
        }
        let namespace = self.namespace(container)?;
        netns::remove(&namespace.netns)?;
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

    async fn withdraw(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        let script = firewall::withdraw_script(&self.shared.engine, endpoint);
        match firewall::apply(&script).await {
            Ok(()) => Ok(()),
            // Somebody flushed the ruleset: then the elements are gone, and the rest must come back.
            Err(_) => firewall::apply(&self.rebuild_script()).await,
        }
    }

    /// The sources file of a container's name service: the names of its networks, then the upstreams.
    fn write_sources(&self, container: &str) -> Result<(), NetworkError> {
        let path = self.namespace(container)?.dns;
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let mut text = String::new();
        for record in self.records().values() {
            if record.dns && record.endpoints.contains_key(container) {
                text.push_str("names ");
                text.push_str(&self.names_path(&record.id).to_string_lossy());
                text.push('\n');
            }
        }
        for line in old.lines().filter(|line| line.starts_with("upstream ")) {
            text.push_str(line);
            text.push('\n');
        }
        names::replace(&path, &text)
    }
}

fn choose_address(
    record: &NetworkRecord,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NetworkError> {
    let used = |address: Ipv4Addr| {
        address == record.gateway || record.endpoints.values().any(|e| e.address == address)
    };
    match wanted {
        Some(address) if !record.subnet.is_host(address) => {
            Err(NetworkError::AddressOutside { address, subnet: record.subnet })
        }
        Some(address) if used(address) => Err(NetworkError::AddressInUse(address)),
        Some(address) => Ok(address),
        None => ipam::free_address(record.subnet, record.ip_range, used)
            .ok_or_else(|| NetworkError::NoFreeAddress(record.name.clone())),
    }
}
