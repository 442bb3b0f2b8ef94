//! Which containers a list shows. Values of one key are alternatives; keys (and labels) are all
//! required.

use std::collections::BTreeSet;

use minke_engine_images::ImageId;

use super::container::{Cell, Container};
use super::document::Status;
use super::ports;
use crate::api::filters::{Filters, invalid};
use crate::daemon::Daemon;
use crate::error::Result;

const KNOWN: [&str; 15] = [
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
];
const STATES: [&str; 7] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// The filters of one list, checked, with what they name looked up.
pub(crate) struct Wanted {
    filters: Filters,
    exited: Vec<i64>,
    is_task: Option<bool>,
    /// Made before this time, or after that.
    before: Option<i64>,
    since: Option<i64>,
    /// Images, and those that were made from them.
    images: Option<BTreeSet<String>>,
    publish: BTreeSet<String>,
    expose: BTreeSet<String>,
}

impl Wanted {
    /// Checks filters.
    pub(crate) fn read(daemon: &Daemon, filters: Filters) -> Result<Wanted> {
        filters.check(&KNOWN)?;
        for (key, known) in [("status", &STATES[..]), ("health", &HEALTH)] {
            let unknown = filters.all(key).iter().find(|value| !known.contains(&value.as_str()));
            if let Some(value) = unknown {
                return Err(invalid(key, value));
            }
        }
        let exited = filters.all("exited").iter();
        let exited = exited.map(|code| code.parse().map_err(|_| invalid("exited", code)));
        let made = |key: &str| -> Result<Vec<i64>> {
            let others = filters.all(key).iter().map(|name| daemon.containers.find(name));
            others.map(|other| Ok(other?.lock().config.created_at)).collect()
        };
        Ok(Wanted {
            exited: exited.collect::<Result<_>>()?,
            is_task: filters.switch("is-task")?,
            before: made("before")?.into_iter().min(),
            since: made("since")?.into_iter().max(),
            images: match filters.all("ancestor") {
                [] => None,
                names => Some(descendants(daemon, names)),
            },
            publish: port_keys(&filters, "publish")?,
            expose: port_keys(&filters, "expose")?,
            filters,
        })
    }

    /// Whether the filters ask for containers that do not run, so that `all` goes without saying.
    pub(crate) fn wants_stopped(&self) -> bool {
        !self.filters.all("status").is_empty() || !self.exited.is_empty()
    }

    /// Whether a container passes all filters.
    pub(crate) fn takes(&self, daemon: &Daemon, container: &Container) -> bool {
        let cell = container.lock();
        let (document, state) = (&cell.config, &cell.state);
        let slashed = format!("/{}", document.name);
        let named = self.filters.text_passes("name", &document.name)
            || self.filters.text_passes("name", &slashed);
        let ended = |code: &i64| state.status == Status::Exited && state.exit_code == *code;
        let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
        named
            && self.filters.text_passes("id", &container.id)
            && self.filters.labels_pass(&document.config.labels)
            && self.filters.word_passes("status", state.status.word())
            && self.filters.word_passes("health", health)
            && self.filters.word_passes("isolation", "default")
            && (self.exited.is_empty() || self.exited.iter().any(ended))
            && self.is_task.is_none_or(|wanted| !wanted)
            && self.before.is_none_or(|time| document.created_at < time)
            && self.since.is_none_or(|time| document.created_at > time)
            && self.images.as_ref().is_none_or(|images| images.contains(&document.image_id))
            && self.has_volume(&cell)
            && self.has_network(daemon, &cell)
            && self.has_port(&cell)
    }

    fn has_volume(&self, cell: &Cell) -> bool {
        let wanted = self.filters.all("volume");
        wanted.is_empty()
            || cell.config.mounts.iter().any(|mount| {
                [&mount.volume, &mount.source, &mount.target]
                    .into_iter()
                    .any(|name| !name.is_empty() && wanted.contains(name))
            })
    }

    fn has_network(&self, daemon: &Daemon, cell: &Cell) -> bool {
        let wanted = self.filters.all("network");
        wanted.is_empty()
            || cell.config.networks.keys().any(|name| {
                let id = daemon.network_id(name);
                wanted.iter().any(|value| {
                    value == name || !value.is_empty() && id.starts_with(value.as_str())
                })
            })
    }

    /// As `publish` knows host ports and `expose` the container's, one that fits either is enough.
    fn has_port(&self, cell: &Cell) -> bool {
        if self.publish.is_empty() && self.expose.is_empty() {
            return true;
        }
        let exposed = cell.config.config.exposed_ports.keys();
        if exposed.map(|key| ports::with_protocol(key)).any(|key| self.expose.contains(&key)) {
            return true;
        }
        cell.state.ports.iter().any(|(key, given)| {
            let protocol = key.split_once('/').map_or("tcp", |(_, protocol)| protocol);
            self.expose.contains(key)
                || given
                    .iter()
                    .any(|(_, port)| self.publish.contains(&format!("{port}/{protocol}")))
        })
    }
}

/// The ports that values like `80`, `53/udp` and `8000-8010/tcp` name.
fn port_keys(filters: &Filters, key: &str) -> Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    for value in filters.all(key) {
        let (range, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_| invalid(key, value));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(invalid(key, value));
        }
        keys.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(keys)
}

/// These images and every image that was made from one of them.
fn descendants(daemon: &Daemon, names: &[String]) -> BTreeSet<String> {
    let all = daemon.images.images();
    let named = names.iter().filter_map(|name| daemon.images.image(name).ok());
    let mut waiting: Vec<ImageId> = named.map(|image| image.id).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if found.insert(id.to_string()) {
            let children = all.iter().filter(|image| image.parent.as_ref() == Some(&id));
            waiting.extend(children.map(|image| image.id));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_ranges_of_a_protocol() {
        let keys = |text: &str| {
            let mut filters = Filters::default();
            filters.add("expose", text);
            port_keys(&filters, "expose")
        };
        assert_eq!(keys("80").unwrap(), BTreeSet::from(["80/tcp".to_owned()]));
        assert_eq!(keys("53-54/udp").unwrap().len(), 2);
        for bad in ["x", "9-1", "80/x", "1:2", "70000"] {
            keys(bad).unwrap_err();
        }
    }
}
