//! Volumes: their definitions and their places in services.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::error::ComposeError;
use crate::shapes::{self, Notes, wrong};
use crate::yaml::{Node, Value};

const SHORT: &str = "name:/path[:ro], or /path";

/// `volumes:` of a service. Bind mounts are left out with a warning.
pub(crate) fn places(
    node: &Node,
    defined: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Json, ComposeError> {
    let mut out = Vec::new();
    for item in shapes::list(node, "volumes")? {
        let place = match &item.value {
            Value::Scalar(text, _) => short(item, text, defined, notes)?,
            Value::Map(_) => long(item, defined, notes)?,
            _ => return Err(wrong(item, "volumes", SHORT)),
        };
        out.extend(place);
    }
    Ok(Json::Array(out))
}

fn bind(node: &Node, notes: &mut Notes) {
    let message = format!(
        "the bind mount {} is not supported and is left out; use a named volume or a feature label",
        node.kind()
    );
    notes.warn(node.line, node.column, message);
}

fn known(node: &Node, name: &str, defined: &BTreeSet<String>) -> Result<(), ComposeError> {
    if defined.contains(name) {
        return Ok(());
    }
    let message =
        format!("the volume `{name}` is not defined; expected it under the file's `volumes`");
    Err(node.error(message))
}

fn short(
    node: &Node,
    text: &str,
    defined: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Option<Json>, ComposeError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target) = match parts.as_slice() {
        [target] => (None, *target),
        [source, target] | [source, target, _] => (Some(*source), *target),
        _ => return Err(wrong(node, "volumes", SHORT)),
    };
    if !target.starts_with('/') {
        return Err(wrong(node, "volumes", SHORT));
    }
    if let Some(source) = source {
        if source.starts_with(['/', '.', '~']) {
            bind(node, notes);
            return Ok(None);
        }
        known(node, source, defined)?;
    }
    if let Some(mode) = parts.get(2) {
        let all = ["ro", "rw", "z", "Z", "nocopy"];
        if !mode.split(',').all(|m| all.contains(&m)) {
            return Err(wrong(node, "volumes", "`ro` or `rw` as the mode"));
        }
    }
    Ok(Some(json!(text)))
}

fn long(
    node: &Node,
    defined: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Option<Json>, ComposeError> {
    let field = |key: &str| node.get(key).map(|n| shapes::string(n, key)).transpose();
    match field("target")? {
        Some(target) if target.starts_with('/') => {}
        _ => {
            return Err(
                node.error("this volume has no absolute `target`; expected `target: /path`")
            );
        }
    }
    let source = field("source")?;
    match field("type")? {
        Some("volume") => {
            if let Some(source) = source {
                known(node, source, defined)?;
            }
        }
        Some("tmpfs") => {}
        Some("bind") => {
            bind(node, notes);
            return Ok(None);
        }
        _ => return Err(node.error("this volume has no `type`; expected volume or tmpfs")),
    }
    Ok(Some(node.to_json()))
}

/// The definition of a volume.
pub(crate) fn volume(node: &Node, notes: &mut Notes) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "volumes")? {
        let what = key.text.as_str();
        let checked = match what {
            "driver" => json!(shapes::string(value, what)?),
            "driver_opts" | "labels" => shapes::object(shapes::pairs(value, what, &['='], notes)?),
            _ => {
                let message = format!("`{what}` of a volume is not supported and is left out");
                notes.warn(key.line, key.column, message);
                continue;
            }
        };
        out.insert(what.to_owned(), checked);
    }
    Ok(Json::Object(out))
}
