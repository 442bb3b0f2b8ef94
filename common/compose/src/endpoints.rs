//! Ports, networks and modes of a service; definitions of networks.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::MAX_PORTS;
use crate::error::ComposeError;
use crate::shapes::{self, Notes, wrong};
use crate::yaml::{Node, Value};

const PORT: &str = "[ip:][host:]container[/tcp|udp], such as \"80:8080\"";

/// `ports:`, each in the short form.
pub(crate) fn ports(node: &Node) -> Result<Json, ComposeError> {
    let (mut out, mut count) = (Vec::new(), 0);
    for item in shapes::list(node, "ports")? {
        let text = match &item.value {
            Value::Scalar(text, _) => text.clone(),
            Value::Map(_) => long_port(item)?,
            _ => return Err(wrong(item, "ports", PORT)),
        };
        count += check_port(item, &text)?;
        if count > MAX_PORTS {
            let message = format!("this is more than {MAX_PORTS} ports, which is the limit");
            return Err(item.error(message));
        }
        out.push(Json::String(text));
    }
    Ok(Json::Array(out))
}

fn long_port(node: &Node) -> Result<String, ComposeError> {
    let field = |key: &str| node.get(key).and_then(Node::text);
    let Some(target) = field("target") else {
        return Err(node.error("this port has no `target`; expected the container's port"));
    };
    let mut text = String::new();
    if let Some(ip) = field("host_ip") {
        text.push_str(ip);
        text.push(':');
    }
    if let Some(published) = field("published") {
        text.push_str(published);
        text.push(':');
    }
    text.push_str(target);
    if let Some(protocol) = field("protocol") {
        text.push('/');
        text.push_str(protocol);
    }
    Ok(text)
}

/// How many ports the entry publishes.
fn check_port(node: &Node, text: &str) -> Result<usize, ComposeError> {
    let bad = || wrong(node, "ports", PORT);
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(bad());
    }
    let (before, container) = match rest.rsplit_once(':') {
        Some((before, container)) => (Some(before), container),
        None => (None, rest),
    };
    let container = range(container).ok_or_else(bad)?;
    let count = usize::from(container.1 - container.0) + 1;
    let Some(before) = before else { return Ok(count) };
    let host = match before.rsplit_once(':') {
        Some((ip, host)) => {
            let ip = ip.trim_start_matches('[').trim_end_matches(']');
            ip.parse::<std::net::IpAddr>().map_err(|_| bad())?;
            host
        }
        None => before,
    };
    if host.is_empty() {
        return Ok(count);
    }
    let host = range(host).ok_or_else(bad)?;
    if host != container && host.1 - host.0 != container.1 - container.0 {
        let message = format!("the port ranges of `{text}` differ in length; expected equal ones");
        return Err(node.error(message));
    }
    Ok(count)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from > 0 && from <= to).then_some((from, to))
}

/// `networks:` of a service; every name must be defined.
pub(crate) fn memberships(
    node: &Node,
    defined: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Json, ComposeError> {
    let known = |line: usize, column: usize, name: &str| {
        if name == "default" || defined.contains(name) {
            return Ok(());
        }
        let message =
            format!("the network `{name}` is not defined; expected it under the file's `networks`");
        Err(ComposeError::new(line, column, message))
    };
    if let Value::Map(entries) = &node.value {
        let mut out = Map::new();
        for (key, value) in entries {
            known(key.line, key.column, &key.text)?;
            out.insert(key.text.clone(), membership(value, notes)?);
        }
        return Ok(Json::Object(out));
    }
    let mut out = Vec::new();
    for item in shapes::list(node, "networks")? {
        let name = shapes::string(item, "networks")?;
        known(item.line, item.column, name)?;
        out.push(Json::String(name.to_owned()));
    }
    Ok(Json::Array(out))
}

fn membership(node: &Node, notes: &mut Notes) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "networks")? {
        let what = key.text.as_str();
        let checked = match what {
            "aliases" | "link_local_ips" => json!(shapes::strings(value, what)?),
            "ipv4_address" => address(value, what, true)?,
            "ipv6_address" => address(value, what, false)?,
            _ => {
                let message = format!("`{what}` in `networks` is not supported and is left out");
                notes.warn(key.line, key.column, message);
                continue;
            }
        };
        out.insert(what.to_owned(), checked);
    }
    Ok(Json::Object(out))
}

fn address(node: &Node, what: &str, v4: bool) -> Result<Json, ComposeError> {
    let text = shapes::string(node, what)?;
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv4() == v4 => Ok(json!(text)),
        _ => Err(wrong(node, what, if v4 { "an IPv4 address" } else { "an IPv6 address" })),
    }
}

/// `network_mode:`; nothing when the device would ignore it.
pub(crate) fn mode(
    node: &Node,
    services: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Option<Json>, ComposeError> {
    let text = shapes::string(node, "network_mode")?;
    if let Some(name) = text.strip_prefix("service:") {
        if !services.contains(name) {
            let message = format!("the service `{name}` does not exist; expected one of this file");
            return Err(node.error(message));
        }
        return Ok(Some(json!(text)));
    }
    if text.starts_with("container:") {
        let message = "`network_mode: container:…` is not supported and is left out";
        notes.warn(node.line, node.column, message);
        return Ok(None);
    }
    if ["bridge", "host", "none", "default"].contains(&text) {
        return Ok(Some(json!(text)));
    }
    Err(wrong(node, "network_mode", "bridge, host, none or service:<name>"))
}

/// The definition of a network.
pub(crate) fn network(node: &Node, notes: &mut Notes) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "networks")? {
        let what = key.text.as_str();
        let checked = match what {
            "driver" => json!(shapes::string(value, what)?),
            "driver_opts" => shapes::object(shapes::pairs(value, what, &['='], notes)?),
            "labels" => shapes::object(shapes::pairs(value, what, &['='], notes)?),
            "internal" | "enable_ipv6" => json!(shapes::boolean(value, what)?),
            "ipam" => ipam(value, notes)?,
            _ => {
                let message = format!("`{what}` of a network is not supported and is left out");
                notes.warn(key.line, key.column, message);
                continue;
            }
        };
        out.insert(what.to_owned(), checked);
    }
    Ok(Json::Object(out))
}

fn ipam(node: &Node, notes: &mut Notes) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "ipam")? {
        let checked = match key.text.as_str() {
            "driver" => json!(shapes::string(value, "driver")?),
            "options" => shapes::object(shapes::pairs(value, "options", &['='], notes)?),
            "config" => {
                for item in shapes::list(value, "config")? {
                    shapes::mapping(item, "config")?;
                    if item.get("subnet").is_none() || item.get("gateway").is_none() {
                        let message = "an `ipam` entry should have both `subnet` and `gateway`";
                        notes.warn(item.line, item.column, message);
                    }
                }
                value.to_json()
            }
            other => {
                let message = format!("`{other}` in `ipam` is not supported and is left out");
                notes.warn(key.line, key.column, message);
                continue;
            }
        };
        out.insert(key.text.clone(), checked);
    }
    Ok(Json::Object(out))
}
