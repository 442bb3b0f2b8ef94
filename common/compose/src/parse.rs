//! The file as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::composition::{Composition, Service};
use crate::error::ComposeError;
use crate::service::Names;
use crate::shapes::{self, Notes, wrong};
use crate::yaml::{self, Node, Value};
use crate::{MAX_PARTS, endpoints, graph, mounts, service};

/// Reads a compose file.
pub fn parse(text: &str) -> Result<Composition, ComposeError> {
    let root = yaml::read(text)?;
    let Value::Map(entries) = &root.value else {
        return Err(wrong(&root, "the file", "a mapping with `services`"));
    };
    let mut notes = Notes::default();
    for (key, value) in entries {
        match key.text.as_str() {
            "services" | "networks" | "volumes" | "name" => {}
            "version" => {
                shapes::string(value, "version")?;
            }
            "include" => {
                let message = "`include` is not supported; expected everything in one file";
                return Err(ComposeError::new(key.line, key.column, message));
            }
            other if other.starts_with("x-") => {}
            other => {
                let message = format!("`{other}` is not supported and is left out");
                notes.warn(key.line, key.column, message);
            }
        }
    }
    let networks = definitions(&root, "networks", "network", &mut notes, endpoints::network)?;
    let volumes = definitions(&root, "volumes", "volume", &mut notes, mounts::volume)?;
    let services = services(&root, &networks, &volumes, &mut notes)?;
    waits(&services)?;
    Ok(Composition { services, networks, volumes, warnings: notes.0 })
}

type Definition = fn(&Node, &mut Notes) -> Result<Json, ComposeError>;

fn definitions(
    root: &Node,
    section: &str,
    what: &str,
    notes: &mut Notes,
    read: Definition,
) -> Result<BTreeMap<String, Json>, ComposeError> {
    let Some(node) = root.get(section) else { return Ok(BTreeMap::new()) };
    let entries = shapes::mapping(node, section)?;
    count(node, section, entries.len())?;
    let mut out = BTreeMap::new();
    for (key, value) in entries {
        shapes::name(key, what)?;
        out.insert(key.text.clone(), read(value, notes)?);
    }
    Ok(out)
}

fn count(node: &Node, what: &str, found: usize) -> Result<(), ComposeError> {
    if found > MAX_PARTS {
        return Err(node.error(format!("{found} {what}; the limit is {MAX_PARTS}")));
    }
    Ok(())
}

fn services(
    root: &Node,
    networks: &BTreeMap<String, Json>,
    volumes: &BTreeMap<String, Json>,
    notes: &mut Notes,
) -> Result<Vec<Service>, ComposeError> {
    let Some(node) = root.get("services") else {
        return Err(root.error("there is no `services`; expected `services:` with at least one"));
    };
    let entries = shapes::mapping(node, "services")?;
    if entries.is_empty() {
        return Err(node.error("`services` is empty; expected at least one"));
    }
    count(node, "services", entries.len())?;
    let names = Names {
        services: entries.iter().map(|(k, _)| k.text.clone()).collect::<BTreeSet<_>>(),
        networks: networks.keys().cloned().collect(),
        volumes: volumes.keys().cloned().collect(),
    };
    entries.iter().map(|(key, node)| service::service(key, node, &names, notes)).collect()
}

fn waits(services: &[Service]) -> Result<(), ComposeError> {
    let shared = |s: &Service| -> Option<String> {
        let mode = s.fields.get("network_mode")?.as_str()?;
        mode.strip_prefix("service:").map(str::to_owned)
    };
    let modes: Vec<Option<String>> = services.iter().map(shared).collect();
    let edges = services.iter().zip(&modes).map(|(s, mode)| {
        let targets = s.depends_on.iter().map(String::as_str).chain(mode.as_deref());
        (s.name.as_str(), targets.collect::<Vec<_>>())
    });
    match graph::cycle(&edges.collect()) {
        None => Ok(()),
        Some(names) => {
            let first = services.iter().find(|s| s.name == names[0]);
            let (line, column) = first.map_or((1, 1), |s| s.place);
            let message = format!("services wait for each other: {}", names.join(" → "));
            Err(ComposeError::new(line, column, message))
        }
    }
}
