//! Networks as the API shows them: those of `minke-engine-network`, and the two that are not made.

use std::collections::BTreeMap;

use minke_engine_client::wire::{
    CreateNetwork, EndpointSettings, Ipam, IpamPool, Network, NetworkContainer,
};
use minke_engine_network::{Endpoint, NetworkError, NetworkOptions, NetworkRecord, Subnet};
use sha2::{Digest, Sha256};

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::stamp;

/// Networks that exist without being made.
const BUILT_IN: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

/// A network that a name or id stands for.
pub(crate) enum Found {
    Bridge(NetworkRecord),
    Host,
    None,
}

/// The id of a network that is not made.
fn built_in_id(engine: &str, name: &str) -> String {
    hex::encode(Sha256::digest(format!("{engine} {name}")))
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
        Ok(Found::Bridge(self.networks.get(name)?))
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
        let options = network_options(body)?;
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

    /// The id of a network that is not made.
    pub(crate) fn built_in_network_id(&self, name: &str) -> String {
        built_in_id(&self.id, name)
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
                    ipv6_address: String::new(),
                };
                (id.clone(), shown)
            })
            .collect();
        Network {
            name: record.name.clone(),
            id: record.id.clone(),
            created: stamp::rfc3339(record.created_at as i64 * 1_000_000),
            scope: "local".to_owned(),
            driver: "bridge".to_owned(),
            ipam: Ipam {
                driver: "default".to_owned(),
                options: Some(BTreeMap::new()),
                config: vec![IpamPool {
                    subnet: record.subnet.to_string(),
                    ip_range: record.ip_range.map(|range| range.to_string()).unwrap_or_default(),
                    gateway: record.gateway.to_string(),
                    ..IpamPool::default()
                }],
            },
            internal: record.internal,
            containers,
            options: shown_options(record),
            labels: record.labels.clone(),
            ..Network::default()
        }
    }
}

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

fn shown_options(record: &NetworkRecord) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([
        (BRIDGE_NAME.to_owned(), record.bridge.clone()),
        (MTU.to_owned(), record.mtu.to_string()),
    ]);
    if record.no_icc {
        options.insert(ICC.to_owned(), "false".to_owned());
    }
    if record.no_masquerade {
        options.insert(MASQUERADE.to_owned(), "false".to_owned());
    }
    options
}

/// Turns a request into options, refusing by name what this engine does not do.
fn network_options(body: &CreateNetwork) -> Result<NetworkOptions> {
    let refuse = |what: &str| {
        Err(Error::Invalid(format!("a network with {what} is not supported by this engine")))
    };
    crate::names::check_network(&body.name)?;
    if !matches!(body.driver.as_str(), "" | "bridge" | "default") {
        return Err(Error::NotFound(format!(
            "could not find plugin {} in v1 plugin registry: plugin not found",
            body.driver
        )));
    }
    if body.enable_ipv6 {
        return refuse("EnableIPv6");
    }
    if body.ingress || body.config_only || !matches!(body.scope.as_str(), "" | "local") {
        return refuse("Ingress, ConfigOnly or a Scope other than local");
    }
    if body.config_from.as_ref().is_some_and(|from| !from.network.is_empty()) {
        return refuse("ConfigFrom");
    }
    let mut options = NetworkOptions {
        name: body.name.clone(),
        internal: body.internal,
        dns: true,
        labels: body.labels.clone(),
        ..NetworkOptions::default()
    };
    for (name, value) in &body.options {
        let invalid = || Error::Invalid(format!("invalid value {value:?} of option {name}"));
        match name.as_str() {
            BRIDGE_NAME => options.bridge = Some(value.clone()),
            MTU => options.mtu = value.parse().map_err(|_| invalid())?,
            ICC => options.no_icc = !value.parse::<bool>().map_err(|_| invalid())?,
            MASQUERADE => {
                options.no_masquerade = !value.parse::<bool>().map_err(|_| invalid())?;
            }
            // Marks of compose and of balena's supervisor that change nothing.
            _ if name.starts_with("io.balena.") || name.starts_with("com.docker.compose.") => {}
            _ => return refuse(&format!("the option {name}")),
        }
    }
    let Some(ipam) = &body.ipam else { return Ok(options) };
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return refuse(&format!("the IPAM driver {}", ipam.driver));
    }
    let mut pools = ipam.config.iter();
    if let Some(pool) = pools.next() {
        options.subnet = subnet(&pool.subnet)?;
        options.ip_range = subnet(&pool.ip_range)?;
        if !pool.gateway.is_empty() {
            let gateway = pool.gateway.parse();
            options.gateway = Some(gateway.map_err(|_| {
                Error::Invalid(format!("invalid gateway address {:?}", pool.gateway))
            })?);
        }
        if options.subnet.is_none() && (options.gateway.is_some() || options.ip_range.is_some()) {
            return Err(Error::Invalid("a Gateway or IPRange needs a Subnet".to_owned()));
        }
        if !pool.auxiliary_addresses.is_empty() {
            return refuse("AuxiliaryAddresses");
        }
    }
    if pools.next().is_some() {
        return refuse("more than one IPAM pool");
    }
    Ok(options)
}

fn subnet(text: &str) -> Result<Option<Subnet>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse::<Subnet>();
    parsed.map(Some).map_err(|_| Error::Invalid(format!("invalid subnet {text:?}: want a.b.c.d/n")))
}

fn attributes(record: &NetworkRecord) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("name".to_owned(), record.name.clone()),
        ("type".to_owned(), "bridge".to_owned()),
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
        dns_names: record.dns.then(|| endpoint.names.clone()),
        ..asked.clone()
    }
}
