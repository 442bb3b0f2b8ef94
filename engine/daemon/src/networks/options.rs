//! What the API asks of a network, as `minke-engine-network` understands it, and back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use minke_engine_client::wire::{CreateNetwork, IpamPool};
use minke_engine_network::{
    NetworkOptions, NetworkRecord, Parent, ParentKind, Subnet, Subnet6, Wanted6,
};

use crate::error::{Error, Result};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const PUBLISH_ON: &str = "com.docker.network.bridge.host_binding_ipv4";
const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// Options of `macvlan` and `ipvlan`.
const PARENT: &str = "parent";
const KIND_MODES: [&str; 2] = ["macvlan_mode", "ipvlan_mode"];
/// A bridge driver's option: a network whose containers others reach by their own addresses.
const ROUTED: &str = "routed";

fn refuse<T>(what: &str) -> Result<T> {
    Err(Error::Invalid(format!("a network with {what} is not supported by this engine")))
}

/// Turns a request into options, refusing by name what this engine does not do.
pub(super) fn read(body: &CreateNetwork) -> Result<NetworkOptions> {
    crate::names::check_network(&body.name)?;
    let shared = match body.driver.as_str() {
        "" | "bridge" | "default" | ROUTED => None,
        "macvlan" => Some(ParentKind::Macvlan),
        "ipvlan" => Some(ParentKind::Ipvlan),
        other => {
            return Err(Error::NotFound(format!(
                "could not find plugin {other} in v1 plugin registry: plugin not found"
            )));
        }
    };
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
        asked: Some(body.options.clone()),
        ipv6: body.enable_ipv6.then(Wanted6::default),
        routed: body.driver == ROUTED,
        ..NetworkOptions::default()
    };
    if let (ROUTED, Some(wanted)) = (body.driver.as_str(), &mut options.ipv6) {
        wanted.routed = true;
    }
    match shared {
        Some(kind) => options.parent = Some(read_parent(kind, &body.options, &mut options.mtu)?),
        None => {
            for (name, value) in &body.options {
                read_option(&mut options, name, value)?;
            }
        }
    }
    let Some(ipam) = &body.ipam else { return Ok(options) };
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return refuse(&format!("the IPAM driver {}", ipam.driver));
    }
    if ipam.options.as_ref().is_some_and(|options| !options.is_empty()) {
        return refuse("IPAM options");
    }
    let (mut pools, mut pools6) = (0, 0);
    for pool in &ipam.config {
        if pool.subnet.contains(':') {
            pools6 += 1;
            read_pool6(&mut options, pool)?;
        } else {
            pools += 1;
            read_pool(&mut options, pool)?;
        }
        for (name, address) in &pool.auxiliary_addresses {
            options.reserved.insert(name.clone(), address_of("auxiliary", address)?);
        }
    }
    if pools > 1 || pools6 > 1 {
        return refuse("more than one IPAM pool of a version");
    }
    Ok(options)
}

fn invalid(name: &str, value: &str) -> Error {
    Error::Invalid(format!("invalid value {value:?} of option {name}"))
}

/// Marks of compose and of balena's supervisor that change nothing.
fn is_mark(name: &str) -> bool {
    name.starts_with("io.balena.") || name.starts_with("com.docker.compose.")
}

fn read_option(options: &mut NetworkOptions, name: &str, value: &str) -> Result<()> {
    let bad = || invalid(name, value);
    let flag = || match value {
        "1" => Ok(true),
        "0" => Ok(false),
        text => text.parse::<bool>().map_err(|_| bad()),
    };
    match name {
        BRIDGE_NAME => options.bridge = Some(value.to_owned()),
        MTU => options.mtu = value.parse().map_err(|_| bad())?,
        ICC => options.no_icc = !flag()?,
        MASQUERADE => options.no_masquerade = !flag()?,
        PUBLISH_ON => {
            let address: IpAddr = value.parse().map_err(|_| bad())?;
            options.publish_on = (!address.is_unspecified()).then_some(address);
        }
        MODE => options.routed = is_routed(name, value)?,
        MODE6 => {
            let routed = is_routed(name, value)?;
            match &mut options.ipv6 {
                Some(wanted) => wanted.routed = routed,
                None => return refuse(&format!("the option {name} but without EnableIPv6")),
            }
        }
        _ if is_mark(name) => {}
        _ => return refuse(&format!("the option {name}")),
    }
    Ok(())
}

fn is_routed(name: &str, value: &str) -> Result<bool> {
    match value {
        ROUTED => Ok(true),
        "" | "nat" => Ok(false),
        _ => Err(invalid(name, value)),
    }
}

fn read_parent(
    kind: ParentKind,
    given: &BTreeMap<String, String>,
    mtu: &mut u32,
) -> Result<Parent> {
    let mut parent = Parent { kind, link: String::new(), mode: String::new() };
    for (name, value) in given {
        match name.as_str() {
            PARENT => parent.link.clone_from(value),
            MTU => *mtu = value.parse().map_err(|_| invalid(name, value))?,
            _ if *name == format!("{}_mode", kind.word())
                && KIND_MODES.contains(&name.as_str()) =>
            {
                parent.mode.clone_from(value);
            }
            _ if is_mark(name) => {}
            _ => return refuse(&format!("the option {name}")),
        }
    }
    if parent.link.is_empty() {
        return Err(Error::Invalid(format!(
            "a {} network needs the option {PARENT}: the host's link that containers share",
            kind.word()
        )));
    }
    Ok(parent)
}

fn address_of<A: std::str::FromStr>(what: &str, text: &str) -> Result<A> {
    text.parse().map_err(|_| Error::Invalid(format!("invalid {what} address {text:?}")))
}

fn optional<T>(text: &str, read: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

fn need_subnet(pool: &IpamPool) -> Result<()> {
    let rest = pool.gateway.is_empty() && pool.ip_range.is_empty();
    if pool.subnet.is_empty() && !(rest && pool.auxiliary_addresses.is_empty()) {
        return Err(Error::Invalid(
            "a Gateway, IPRange or auxiliary address needs a Subnet".to_owned(),
        ));
    }
    Ok(())
}

fn read_pool(options: &mut NetworkOptions, pool: &IpamPool) -> Result<()> {
    need_subnet(pool)?;
    let subnet = |text: &str| {
        text.parse::<Subnet>()
            .map_err(|_| Error::Invalid(format!("invalid subnet {text:?}: want a.b.c.d/n")))
    };
    options.subnet = optional(&pool.subnet, subnet)?;
    options.ip_range = optional(&pool.ip_range, subnet)?;
    options.gateway = optional(&pool.gateway, |text| address_of("gateway", text))?;
    Ok(())
}

fn read_pool6(options: &mut NetworkOptions, pool: &IpamPool) -> Result<()> {
    let Some(wanted) = &mut options.ipv6 else {
        return Err(Error::Invalid(format!("the subnet {} needs EnableIPv6", pool.subnet)));
    };
    let subnet = |text: &str| {
        text.parse::<Subnet6>()
            .map_err(|_| Error::Invalid(format!("invalid subnet {text:?}: want a:b::/n")))
    };
    wanted.subnet = optional(&pool.subnet, subnet)?;
    wanted.ip_range = optional(&pool.ip_range, subnet)?;
    wanted.gateway = optional(&pool.gateway, |text| address_of("gateway", text))?;
    Ok(())
}

/// The options of a network as `inspect` shows them.
pub(super) fn show(record: &NetworkRecord) -> BTreeMap<String, String> {
    // As Docker: an option that nobody gave is none. compose would make the network anew for it.
    if let Some(asked) = &record.asked {
        return asked.clone();
    }
    let mut options = BTreeMap::new();
    let mut add = |name: &str, value: String| options.insert(name.to_owned(), value);
    add(MTU, record.mtu.to_string());
    if let Some(parent) = &record.parent {
        add(PARENT, parent.link.clone());
        if !parent.mode.is_empty() {
            add(&format!("{}_mode", parent.kind.word()), parent.mode.clone());
        }
        return options;
    }
    add(BRIDGE_NAME, record.bridge.clone());
    if record.no_icc {
        add(ICC, "false".to_owned());
    }
    if record.no_masquerade {
        add(MASQUERADE, "false".to_owned());
    }
    if let Some(address) = record.publish_on {
        add(PUBLISH_ON, address.to_string());
    }
    if record.routed {
        add(MODE, ROUTED.to_owned());
    }
    if record.v6.as_ref().is_some_and(|v6| v6.routed) {
        add(MODE6, ROUTED.to_owned());
    }
    options
}

/// The pools of a network as `inspect` shows them.
pub(super) fn show_pools(record: &NetworkRecord) -> Vec<IpamPool> {
    let reserved = |ipv6: bool| {
        let of_version = record.reserved.iter().filter(|(_, address)| address.is_ipv6() == ipv6);
        of_version.map(|(name, address)| (name.clone(), address.to_string())).collect()
    };
    let text = |value: Option<String>| value.unwrap_or_default();
    let first = IpamPool {
        subnet: record.subnet.to_string(),
        ip_range: text(record.ip_range.map(|range| range.to_string())),
        gateway: record.gateway.to_string(),
        auxiliary_addresses: reserved(false),
    };
    let second = record.v6.as_ref().map(|v6| IpamPool {
        subnet: v6.subnet.to_string(),
        ip_range: text(v6.ip_range.map(|range| range.to_string())),
        gateway: v6.gateway.to_string(),
        auxiliary_addresses: reserved(true),
    });
    std::iter::once(first).chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> Result<NetworkOptions> {
        read(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn both_versions_and_reserved_addresses_are_read() {
        let read = options(
            r#"{"Name":"net","EnableIPv6":true,"IPAM":{"Config":[
                {"Subnet":"10.1.0.0/16","IPRange":"10.1.5.0/24","Gateway":"10.1.0.9","AuxiliaryAddresses":{"router":"10.1.5.1"}},
                {"Subnet":"fd00:5::/64","AuxiliaryAddresses":{"nas":"fd00:5::7"}}]}}"#,
        )
        .unwrap();
        assert_eq!(read.gateway, Some("10.1.0.9".parse().unwrap()));
        assert_eq!(read.ipv6.unwrap().subnet, Some("fd00:5::/64".parse().unwrap()));
        assert_eq!(read.reserved.len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (json, word) in [
            (r#"{"Name":"net","Driver":"overlay"}"#, "overlay"),
            (r#"{"Name":"net","Driver":"macvlan"}"#, "parent"),
            (
                r#"{"Name":"net","Options":{"com.docker.network.bridge.inhibit_ipv4":"1"}}"#,
                "inhibit_ipv4",
            ),
            (
                r#"{"Name":"net","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"isolated"}}"#,
                "isolated",
            ),
            (r#"{"Name":"net","IPAM":{"Config":[{"Subnet":"fd00::/64"}]}}"#, "EnableIPv6"),
            (r#"{"Name":"net","IPAM":{"Config":[{"Gateway":"10.0.0.1"}]}}"#, "Subnet"),
            (
                r#"{"Name":"net","IPAM":{"Config":[{"Subnet":"10.0.0.0/24"},{"Subnet":"10.0.1.0/24"}]}}"#,
                "pool",
            ),
            (r#"{"Name":"net","IPAM":{"Driver":"dhcp"}}"#, "dhcp"),
        ] {
            let error = options(json).unwrap_err();
            assert!(error.to_string().contains(word), "{json}: {error}");
        }
    }
}
