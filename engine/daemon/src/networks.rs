//! Networks as the API shows them: those of `minke-engine-network`, and the two that are not made.

mod options;

use std::collections::BTreeMap;

use minke_common_model::digest::Digest;
use minke_engine_client::wire::{CreateNetwork, EndpointSettings, Ipam, Network, NetworkContainer};
use minke_engine_network::{Endpoint, NetworkError, NetworkOptions, NetworkRecord};

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::stamp;

/// Networks that exist without being made.
const BUILT_IN: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

/// A network that a name or id stands for.
pub(crate) enum Found {
    Bridge(Box<NetworkRecord>),
    Host,
    None,
}

/// The id of a network that is not made.
fn built_in_id(engine: &str, name: &str) -> String {
    Digest::of(format!("{engine} {name}")).hex()
}

impl Daemon {
    /// The network of this name, id or beginning of an id.
    pub(crate) fn find_network(&self, name: &str) -> Result<Found> {
        for (built_in, _) in BUILT_IN {
            let id = built_in_id(&self.id, built_in);
            if name == built_in || (name.len() >= 12 && id.starts_with(name)) {
                return Ok(if built_in == "host" { Found::Host } else { Found::None });
            }
        }
        let name = if name == "default" { "bridge" } else { name };
        Ok(Found::Bridge(Box::new(self.networks.get(name)?)))
    }

    /// Makes the default network if it is missing.
    pub(crate) async fn ensure_default_network(&self) -> Result<()> {
        if self.networks.get("bridge").is_ok() {
            return Ok(());
        }
        let options = NetworkOptions { name: "bridge".to_owned(), ..NetworkOptions::default() };
        self.networks.create(options).await?;
        Ok(())
    }

    /// Makes a network that the API asked for.
    pub(crate) async fn create_network(&self, body: &CreateNetwork) -> Result<NetworkRecord> {
        let options = options::read(body)?;
        if self.find_network(&body.name).is_ok_and(|found| !matches!(found, Found::Bridge(_))) {
            return Err(NetworkError::NameInUse(body.name.clone()).into());
        }
        let record = self.networks.create(options).await?;
        self.events.publish("network", "create", &record.id, attributes(&record));
        Ok(record)
    }

    /// Removes a network.
    pub(crate) async fn remove_network(&self, name: &str) -> Result<()> {
        let record = match self.find_network(name)? {
            Found::Bridge(record) if record.name != "bridge" => record,
            _ => {
                return Err(Error::Forbidden(format!(
                    "{name} is a pre-defined network and cannot be removed"
                )));
            }
        };
        self.networks.remove(&record.id).await?;
        self.events.publish("network", "destroy", &record.id, attributes(&record));
        Ok(())
    }

    /// Every network.
    pub(crate) fn show_networks(&self) -> Vec<Network> {
        let mut shown: Vec<_> =
            self.networks.list().iter().map(|record| self.show_network(record)).collect();
        shown.extend(BUILT_IN.map(|(name, driver)| self.show_built_in(name, driver)));
        shown
    }

    /// A found network.
    pub(crate) fn show_found(&self, found: &Found) -> Network {
        match found {
            Found::Bridge(record) => self.show_network(record),
            Found::Host => self.show_built_in("host", "host"),
            Found::None => self.show_built_in("none", "null"),
        }
    }

    /// The id of the network of this name; empty if there is none.
    pub(crate) fn network_id(&self, name: &str) -> String {
        match name {
            "host" | "none" => built_in_id(&self.id, name),
            _ => self.networks.get(name).map(|record| record.id).unwrap_or_default(),
        }
    }

    fn show_built_in(&self, name: &str, driver: &str) -> Network {
        Network {
            name: name.to_owned(),
            id: built_in_id(&self.id, name),
            created: stamp::NEVER.to_owned(),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            ipam: Ipam { driver: "default".to_owned(), ..Ipam::default() },
            ..Network::default()
        }
    }

    fn show_network(&self, record: &NetworkRecord) -> Network {
        let containers = record
            .endpoints
            .iter()
            .map(|(id, endpoint)| {
                let name = self.containers.find(id).map(|found| found.name());
                let shown = NetworkContainer {
                    name: name.unwrap_or_default(),
                    endpoint_id: endpoint.id.clone(),
                    mac_address: endpoint.mac.clone(),
                    ipv4_address: format!("{}/{}", endpoint.address, record.subnet.prefix()),
                    ipv6_address: match (endpoint.address6, &record.v6) {
                        (Some(address), Some(v6)) => format!("{address}/{}", v6.subnet.prefix()),
                        _ => String::new(),
                    },
                };
                (id.clone(), shown)
            })
            .collect();
        Network {
            name: record.name.clone(),
            id: record.id.clone(),
            created: stamp::rfc3339(record.created_at as i64 * 1_000_000),
            scope: "local".to_owned(),
            driver: record.driver().to_owned(),
            enable_ipv6: record.v6.is_some(),
            ipam: Ipam {
                driver: "default".to_owned(),
                options: None,
                config: options::show_pools(record),
            },
            internal: record.internal,
            containers,
            options: options::show(record),
            labels: record.labels.clone(),
            ..Network::default()
        }
    }
}

fn attributes(record: &NetworkRecord) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("name".to_owned(), record.name.clone()),
        ("type".to_owned(), record.driver().to_owned()),
    ])
}

/// An endpoint as a container shows it.
pub(crate) fn show_endpoint(
    asked: &EndpointSettings,
    record: &NetworkRecord,
    endpoint: &Endpoint,
) -> EndpointSettings {
    EndpointSettings {
        mac_address: endpoint.mac.clone(),
        network_id: record.id.clone(),
        endpoint_id: endpoint.id.clone(),
        gateway: if record.internal { String::new() } else { record.gateway.to_string() },
        ip_address: endpoint.address.to_string(),
        ip_prefix_len: i64::from(record.subnet.prefix()),
        ipv6_gateway: match &record.v6 {
            Some(v6) if !record.internal => v6.gateway.to_string(),
            _ => String::new(),
        },
        global_ipv6_address: endpoint.address6.map(|a| a.to_string()).unwrap_or_default(),
        global_ipv6_prefix_len: match &record.v6 {
            Some(v6) if endpoint.address6.is_some() => i64::from(v6.subnet.prefix()),
            _ => 0,
        },
        dns_names: record.dns.then(|| endpoint.names.clone()),
        ..asked.clone()
    }
}
