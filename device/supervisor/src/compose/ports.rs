//! Published ports: `[address:][host:]container[/protocol]` and the long form.

use std::collections::BTreeMap;
use std::net::IpAddr;

use minke_engine_client::wire::PortBinding;
use serde_json::Value;

use super::Warnings;
use super::fields::{Fields, scalar};

pub(super) type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Longest range of ports.
const MAX_RANGE: u16 = 1024;
/// Most ports that a service publishes; each may be a rule of the firewall.
const MAX_PORTS: usize = 4096;

/// What one entry publishes.
struct Published {
    address: String,
    host: (u16, u16),
    container: (u16, u16),
    protocol: String,
}

/// Reads `ports` of a service.
pub(super) fn bindings(fields: Fields, warnings: &mut Warnings) -> Bindings {
    let mut bindings = Bindings::new();
    let Some(Value::Array(ports)) = fields.get("ports") else { return bindings };
    let mut left = MAX_PORTS;
    for port in ports {
        let published = read(port);
        let Some(rest) = left.checked_sub(published.as_ref().map_or(1, Published::count)) else {
            warnings.push(format!(
                "the port {port} and those after it are not published: the limit is {MAX_PORTS}"
            ));
            break;
        };
        left = rest;
        match published {
            Some(published) => published.add_to(&mut bindings),
            None => warnings.push(format!("the port {port} is not understood and not published")),
        }
    }
    bindings
}

fn read(port: &Value) -> Option<Published> {
    if let Value::Object(long) = port {
        let fields = Fields(long);
        let target = range(&fields.text("target")?)?;
        let published = fields.text("published").map_or(Some(target), |text| range(&text))?;
        let protocol = fields.text("protocol").unwrap_or_else(|| "tcp".to_owned());
        let address = fields.text("host_ip").unwrap_or_default();
        return Published::new(&address, published, target, &protocol);
    }
    let text = scalar(port)?;
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
    let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
    let target = range(target)?;
    let (address, published) = match rest.rsplit_once(':') {
        Some((address, published)) => (address.trim_matches(['[', ']']), published),
        None if rest.parse::<IpAddr>().is_ok() => (rest, ""),
        None => ("", rest),
    };
    let published = if published.is_empty() { target } else { range(published)? };
    Published::new(address, published, target, protocol)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last && last - first < MAX_RANGE).then_some((first, last))
}

impl Published {
    fn new(
        address: &str,
        host: (u16, u16),
        container: (u16, u16),
        protocol: &str,
    ) -> Option<Published> {
        let protocol = protocol.to_ascii_lowercase();
        let is_address = address.is_empty() || address.parse::<IpAddr>().is_ok();
        let is_even = host.1 - host.0 == container.1 - container.0;
        let is_good = is_even && is_address && matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
        is_good.then(|| Published { address: address.to_owned(), host, container, protocol })
    }

    fn count(&self) -> usize {
        usize::from(self.container.1 - self.container.0) + 1
    }

    fn add_to(&self, bindings: &mut Bindings) {
        for (host, container) in
            (self.host.0..=self.host.1).zip(self.container.0..=self.container.1)
        {
            let binding =
                PortBinding { host_ip: self.address.clone(), host_port: host.to_string() };
            bindings
                .entry(format!("{container}/{}", self.protocol))
                .or_default()
                .get_or_insert_default()
                .push(binding);
        }
    }
}
