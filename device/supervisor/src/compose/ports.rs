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

/// Reads `ports` of a service.
pub(super) fn bindings(fields: Fields, warnings: &mut Warnings) -> Bindings {
    let mut bindings = Bindings::new();
    let Some(Value::Array(ports)) = fields.get("ports") else { return bindings };
    for port in ports {
        if add(port, &mut bindings).is_none() {
            warnings.push(format!("the port {port} is not understood and not published"));
        }
    }
    bindings
}

fn add(port: &Value, bindings: &mut Bindings) -> Option<()> {
    if let Value::Object(long) = port {
        let fields = Fields(long);
        let target = range(&fields.text("target")?)?;
        let published = fields.text("published").map_or(Some(target), |text| range(&text))?;
        let protocol = fields.text("protocol").unwrap_or_else(|| "tcp".to_owned());
        return publish(
            bindings,
            &fields.text("host_ip").unwrap_or_default(),
            published,
            target,
            &protocol,
        );
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
    publish(bindings, address, published, target, protocol)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last && last - first < MAX_RANGE).then_some((first, last))
}

fn publish(
    bindings: &mut Bindings,
    address: &str,
    published: (u16, u16),
    target: (u16, u16),
    protocol: &str,
) -> Option<()> {
    let protocol = protocol.to_ascii_lowercase();
    let is_address = address.is_empty() || address.parse::<IpAddr>().is_ok();
    let is_even = published.1 - published.0 == target.1 - target.0;
    if !is_even || !is_address || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    for (host, container) in (published.0..=published.1).zip(target.0..=target.1) {
        let binding = PortBinding { host_ip: address.to_owned(), host_port: host.to_string() };
        bindings
            .entry(format!("{container}/{protocol}"))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    Some(())
}
