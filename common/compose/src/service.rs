//! One service: every key that devices understand, with the shape its value must have.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::build;
use crate::composition::Service;
use crate::endpoints;
use crate::error::ComposeError;
use crate::graph;
use crate::mounts;
use crate::shapes::{self, Notes, wrong};
use crate::yaml::{Key, Node, Value};

/// Names that a service may refer to.
pub(crate) struct Names {
    pub services: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
}

/// Reads one service.
pub(crate) fn service(
    key: &Key,
    node: &Node,
    names: &Names,
    notes: &mut Notes,
) -> Result<Service, ComposeError> {
    shapes::name(key, "service")?;
    let mut out = Service::new(&key.text, (key.line, key.column));
    if !matches!(node.value, Value::Map(_)) {
        return Err(wrong(node, &key.text, "a mapping with `build` or `image`"));
    }
    for (entry, value) in shapes::mapping(node, &key.text)? {
        let what = snake(&entry.text);
        substitution(value, notes);
        match what.as_str() {
            "build" => out.build = Some(build::build(value, notes)?),
            "image" => {
                let image = shapes::string(value, "image")?;
                if image.trim().is_empty() || image.contains(char::is_whitespace) {
                    return Err(wrong(value, "image", "the name of an image"));
                }
                out.image = Some(image.to_owned());
            }
            "depends_on" => out.depends_on = graph::depends_on(value, &names.services, notes)?,
            "extends" => {
                let message = "`extends` is not supported; expected the service written out";
                return Err(ComposeError::new(entry.line, entry.column, message));
            }
            "environment" => out.environment = shapes::pairs(value, &what, &['='], notes)?,
            "labels" => out.labels = shapes::pairs(value, &what, &['='], notes)?,
            _ => {
                if let Some(checked) = other(entry, &what, value, names, notes)? {
                    out.fields.insert(what, checked);
                }
            }
        }
    }
    check(&out, node)?;
    Ok(out)
}

fn check(service: &Service, node: &Node) -> Result<(), ComposeError> {
    let (line, column) = service.place;
    if service.build.is_none() && service.image.is_none() {
        let message = format!(
            "the service `{}` has neither `build` nor `image`; expected one of them",
            service.name
        );
        return Err(ComposeError::new(line, column, message));
    }
    let both = service.fields.contains_key("network_mode")
        && service.fields.get("networks").is_some_and(|n| !n.is_null());
    if both {
        let at = node.get("network_mode").or(node.get("networkMode")).unwrap_or(node);
        return Err(at.error("both `network_mode` and `networks`; expected one of them"));
    }
    Ok(())
}

/// `capAdd` as `cap_add`.
fn snake(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Says once per value that `${X}` stays as it is.
fn substitution(node: &Node, notes: &mut Notes) {
    match &node.value {
        Value::Scalar(text, _) => {
            if let Some(at) = text.find("${") {
                let shown: String = text[at..].chars().take(30).collect();
                let message =
                    format!("variables are not substituted: `{shown}` is passed on as it is");
                notes.warn(node.line, node.column, message);
            }
        }
        Value::Seq(items) => items.iter().for_each(|n| substitution(n, notes)),
        Value::Map(entries) => entries.iter().for_each(|(_, n)| substitution(n, notes)),
        Value::Null => {}
    }
}

/// Keys that go to the device as they are, once their shape is right.
fn other(
    key: &Key,
    what: &str,
    value: &Node,
    names: &Names,
    notes: &mut Notes,
) -> Result<Option<Json>, ComposeError> {
    if value.is_null() && !matches!(what, "command" | "entrypoint") {
        return Ok(None);
    }
    Ok(Some(match what {
        "cap_add" | "cap_drop" | "devices" | "dns" | "dns_opt" | "dns_search" | "group_add"
        | "security_opt" | "tmpfs" => json!(shapes::strings(value, what)?),
        "command" | "entrypoint" => shapes::command(value, what)?,
        "cgroup_parent" | "domainname" | "hostname" | "ipc" | "mac_address" | "pid"
        | "stop_signal" | "user" | "userns_mode" | "working_dir" | "cpuset" => {
            json!(shapes::string(value, what)?)
        }
        "init" | "oom_kill_disable" | "privileged" | "read_only" | "running" | "tty" => {
            json!(shapes::boolean(value, what)?)
        }
        "cpu_shares" | "cpu_quota" | "oom_score_adj" | "pids_limit" => {
            json!(shapes::integer(value, what)?)
        }
        "cpus" => json!(shapes::number(value, what)?),
        "mem_limit" | "mem_reservation" | "shm_size" => shapes::size(value, what)?,
        "stop_grace_period" => shapes::duration(value, what)?,
        "extra_hosts" => {
            let pairs = shapes::pairs(value, what, &[':', '='], notes)?;
            json!(pairs.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>())
        }
        "sysctls" | "storage_opt" => shapes::object(shapes::pairs(value, what, &['='], notes)?),
        "ulimits" => ulimits(value)?,
        "healthcheck" => healthcheck(value)?,
        "restart" => restart(value, notes),
        "ports" => endpoints::ports(value)?,
        "networks" => endpoints::memberships(value, &names.networks, notes)?,
        "network_mode" => match endpoints::mode(value, &names.services, notes)? {
            Some(mode) => mode,
            None => return Ok(None),
        },
        "volumes" => mounts::places(value, &names.volumes, notes)?,
        _ => {
            if !what.starts_with("x-") && what != "expose" {
                let message = format!("`{}` is not supported and is left out", key.text);
                notes.warn(key.line, key.column, message);
            }
            return Ok(None);
        }
    }))
}

fn restart(node: &Node, notes: &mut Notes) -> Json {
    match node.text() {
        Some("false") => json!("no"),
        Some(text @ ("no" | "always" | "on-failure" | "unless-stopped")) => json!(text),
        Some(text) if text.starts_with("on-failure:") => {
            let message = "devices do not count restarts: `on-failure` is used";
            notes.warn(node.line, node.column, message);
            json!("on-failure")
        }
        _ => {
            let message = format!(
                "`restart` is {}; `always` is used (expected no, always, on-failure or unless-stopped)",
                node.kind()
            );
            notes.warn(node.line, node.column, message);
            json!("always")
        }
    }
}

fn ulimits(node: &Node) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "ulimits")? {
        let checked = match &value.value {
            Value::Scalar(..) => json!(shapes::integer(value, &key.text)?),
            Value::Map(_) => {
                let part = |name: &str| match value.get(name) {
                    Some(node) => shapes::integer(node, name),
                    None => Err(value
                        .error(format!("`{}` has no `{name}`; expected soft and hard", key.text))),
                };
                json!({"soft": part("soft")?, "hard": part("hard")?})
            }
            _ => return Err(wrong(value, &key.text, "a number, or `soft` and `hard`")),
        };
        out.insert(key.text.clone(), checked);
    }
    Ok(Json::Object(out))
}

fn healthcheck(node: &Node) -> Result<Json, ComposeError> {
    let mut out = Map::new();
    for (key, value) in shapes::mapping(node, "healthcheck")? {
        let what = key.text.as_str();
        let checked = match what {
            "test" => {
                let test = shapes::command(value, what)?;
                let first = test.get(0).and_then(Json::as_str);
                if test.is_array() && !matches!(first, Some("CMD" | "CMD-SHELL" | "NONE")) {
                    let expected = "text, or a list that begins with CMD, CMD-SHELL or NONE";
                    return Err(wrong(value, what, expected));
                }
                test
            }
            "interval" | "timeout" | "start_period" | "start_interval" => {
                shapes::duration(value, what)?
            }
            "retries" => json!(shapes::integer(value, what)?),
            "disable" => json!(shapes::boolean(value, what)?),
            _ => {
                let message = format!(
                    "unknown key `{what}` in `healthcheck`; expected test, interval, timeout, start_period, start_interval, retries or disable"
                );
                return Err(ComposeError::new(key.line, key.column, message));
            }
        };
        out.insert(what.to_owned(), checked);
    }
    Ok(Json::Object(out))
}
