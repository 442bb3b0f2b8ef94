//! Which containers a list shows. Values of one key are alternatives; keys (and labels) are all
//! required.

use std::collections::BTreeMap;

use super::container::Container;
use super::document::Status;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Filters as a request gives them.
pub(crate) type Filters = BTreeMap<String, Vec<String>>;

const KNOWN: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "until",
];

/// Refuses keys that are not known: a filter that is ignored shows too much.
pub(crate) fn check_keys(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Error::Invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// Checks the filters of a list of containers.
pub(crate) fn check(filters: &Filters) -> Result<()> {
    check_keys(filters, &KNOWN)?;
    const STATES: [&str; 7] =
        ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
    for status in filters.get("status").into_iter().flatten() {
        if !STATES.contains(&status.as_str()) {
            return Err(Error::Invalid(format!("invalid filter 'status={status}'")));
        }
    }
    for code in filters.get("exited").into_iter().flatten() {
        if code.parse::<i64>().is_err() {
            return Err(Error::Invalid(format!("invalid filter 'exited={code}'")));
        }
    }
    Ok(())
}

/// Whether filters ask for containers that do not run, so that `all` goes without saying.
pub(crate) fn wants_stopped(filters: &Filters) -> bool {
    filters.contains_key("status") || filters.contains_key("exited")
}

/// Whether a container passes all filters.
pub(crate) fn passes(daemon: &Daemon, container: &Container, filters: &Filters) -> bool {
    filters.iter().all(|(key, values)| match key.as_str() {
        "label" => {
            values.iter().all(|value| label_matches(&container.lock().config.config.labels, value))
        }
        "before" | "since" => values.iter().all(|value| {
            daemon.containers.find(value).is_ok_and(|other| {
                let other = if other.id == container.id { return false } else { other };
                let theirs = other.lock().config.created_at;
                let own = container.lock().config.created_at;
                if key == "before" { own < theirs } else { own > theirs }
            })
        }),
        _ => values.is_empty() || values.iter().any(|value| matches(daemon, container, key, value)),
    })
}

/// Whether labels have `name` or `name=value`.
pub(crate) fn label_matches(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).map(String::as_str) == Some(value),
        None => labels.contains_key(wanted),
    }
}

fn matches(daemon: &Daemon, container: &Container, key: &str, value: &str) -> bool {
    let image_of_filter = (key == "ancestor").then(|| daemon.images.image(value).ok()).flatten();
    let network_of_filter = (key == "network").then(|| daemon.networks.get(value).ok()).flatten();
    let cell = container.lock();
    let (document, state) = (&cell.config, &cell.state);
    match key {
        "id" => container.id.starts_with(value),
        "name" => name_matches(&document.name, value),
        "status" => state.status.word() == value,
        "exited" => state.status == Status::Exited && value.parse() == Ok(state.exit_code),
        "health" => match &state.health {
            Some(health) => health.status == value,
            None => value == "none",
        },
        "ancestor" => {
            image_of_filter.is_some_and(|image| image.id.to_string() == document.image_id)
        }
        "network" => {
            let name = network_of_filter.map_or(value.to_owned(), |record| record.name);
            document.networks.contains_key(&name)
        }
        "volume" => {
            document.mounts.iter().any(|mount| mount.volume == value || mount.target == value)
        }
        "publish" => state.ports.values().flatten().any(|(_, port)| {
            let number = value.split('/').next().unwrap_or_default();
            number.split('-').next().and_then(|first| first.parse().ok()) == Some(*port)
        }),
        "expose" => document
            .config
            .exposed_ports
            .keys()
            .any(|port| port == value || port.split('/').next() == Some(value)),
        "is-task" => value == "false" || value == "0",
        _ => false,
    }
}

/// A name filter is a piece of the name; `^` and `$` bind it to the ends, with or without the slash.
fn name_matches(name: &str, filter: &str) -> bool {
    let (filter, from_start) = match filter.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (filter, false),
    };
    let (filter, to_end) = match filter.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (filter, false),
    };
    let full = format!("/{name}");
    [name, &full].into_iter().any(|name| match (from_start, to_end) {
        (true, true) => name == filter,
        (true, false) => name.starts_with(filter),
        (false, true) => name.ends_with(filter),
        (false, false) => name.contains(filter),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_piece_or_by_anchor() {
        assert!(name_matches("web_1", "eb"));
        assert!(name_matches("web_1", "^/web_1$"));
        assert!(name_matches("web_1", "^web"));
        assert!(name_matches("web_1", "/web"));
        assert!(!name_matches("web_1", "^eb"));
        assert!(!name_matches("web_12", "^web_1$"));
    }

    #[test]
    fn filters_that_are_not_known_are_refused() {
        let filters =
            |key: &str, value: &str| Filters::from([(key.to_owned(), vec![value.to_owned()])]);
        check(&filters("status", "running")).unwrap();
        check(&filters("status", "well")).unwrap_err();
        check(&filters("colour", "red")).unwrap_err();
        check(&filters("exited", "x")).unwrap_err();
    }
}
