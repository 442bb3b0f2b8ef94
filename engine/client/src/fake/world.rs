//! What the fake engine holds, and how it is looked up.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::wire::{
    Actor, ContainerConfig, ContainerDetails, ContainerSummary, Event, ImageDetails, ImageSummary,
    Info, Network, ProgressDetail, ProgressLine, SummaryHostConfig, SummaryNetworks, Volume,
};
use crate::{Error, EventFilter, LogChunk, LogOptions, LogSource};

/// Why the fake engine refuses: HTTP status and message.
pub(super) type Refusal = (u16, String);

#[derive(Debug)]
pub(super) struct World {
    /// What pulls find: the image by reference.
    pub offered: BTreeMap<String, ImageDetails>,
    pub images: Vec<ImageDetails>,
    pub containers: Vec<FakeContainer>,
    pub networks: Vec<Network>,
    pub volumes: BTreeMap<String, Volume>,
    pub history: Vec<String>,
    counter: u64,
}

#[derive(Debug, Clone)]
pub(super) struct FakeContainer {
    pub details: ContainerDetails,
    pub log: Vec<LogChunk>,
}

impl Default for World {
    fn default() -> Self {
        let mut world = World {
            offered: BTreeMap::new(),
            images: Vec::new(),
            containers: Vec::new(),
            networks: Vec::new(),
            volumes: BTreeMap::new(),
            history: Vec::new(),
            counter: 0,
        };
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            let id = world.next_id("network");
            world.networks.push(Network {
                name: name.to_owned(),
                id,
                driver: driver.to_owned(),
                scope: "local".to_owned(),
                ..Network::default()
            });
        }
        world
    }
}

impl World {
    /// Ids are made by counting, so that a test's run is the same every time.
    pub fn next_id(&mut self, kind: &str) -> String {
        self.counter += 1;
        let tag: u64 = kind.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)) & 0xffff_ffff;
        format!(
            "{:08x}{tag:08x}{:048x}",
            self.counter.wrapping_mul(0x9e37_79b9) as u32,
            self.counter
        )
    }

    /// Time passes by one second a step.
    pub fn now(&mut self) -> i64 {
        self.counter += 1;
        1_700_000_000 + self.counter as i64
    }

    pub fn event(
        &mut self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: &[(&str, &str)],
    ) -> Event {
        let time = self.now();
        self.history.push(format!("{kind} {action} {}", attributes.first().map_or(id, |a| a.1)));
        let old_style = matches!(kind, "container" | "image");
        Event {
            status: if old_style { action.to_owned() } else { String::new() },
            id: if old_style { id.to_owned() } else { String::new() },
            from: String::new(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes: attributes
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            },
            scope: "local".to_owned(),
            time,
            time_nano: time * 1_000_000_000,
        }
    }

    pub fn offer(&mut self, reference: &str, config: ContainerConfig, layers: &[u64]) {
        let id = format!("sha256:{}", self.next_id("image"));
        let layers_ids =
            layers.iter().map(|size| format!("sha256:{}:{size}", self.next_id("layer"))).collect();
        let (repo_tags, repo_digests) = if reference.contains('@') {
            (Vec::new(), vec![reference.to_owned()])
        } else {
            (vec![reference.to_owned()], Vec::new())
        };
        self.offered.insert(
            reference.to_owned(),
            ImageDetails {
                id,
                repo_tags,
                repo_digests,
                config,
                os: "linux".to_owned(),
                size: layers.iter().sum::<u64>() as i64,
                root_fs: crate::wire::RootFs { kind: "layers".to_owned(), layers: layers_ids },
                ..ImageDetails::default()
            },
        );
    }

    pub fn pull_lines(&self, reference: &str) -> Result<Vec<ProgressLine>, Refusal> {
        let offered = self.offered.get(reference).ok_or_else(|| {
            (404, format!("manifest for {reference} not found: manifest unknown"))
        })?;
        let mut lines = Vec::new();
        for layer in &offered.root_fs.layers {
            let size: i64 =
                layer.rsplit(':').next().and_then(|text| text.parse().ok()).unwrap_or_default();
            for (status, current) in [("Downloading", size / 2), ("Pull complete", size)] {
                lines.push(ProgressLine {
                    id: Some(layer.clone()),
                    status: Some(status.to_owned()),
                    progress_detail: Some(ProgressDetail {
                        current: Some(current),
                        total: Some(size),
                    }),
                    ..ProgressLine::default()
                });
            }
        }
        Ok(lines)
    }

    pub fn info(&self) -> Info {
        let running = self.containers.iter().filter(|c| c.details.state.running).count() as i64;
        Info {
            id: "fake".to_owned(),
            containers: self.containers.len() as i64,
            containers_running: running,
            containers_stopped: self.containers.len() as i64 - running,
            images: self.images.len() as i64,
            server_version: "fake".to_owned(),
            os_type: "linux".to_owned(),
            ..Info::default()
        }
    }

    pub fn image_list(&self) -> Vec<ImageSummary> {
        self.images
            .iter()
            .map(|image| ImageSummary {
                id: image.id.clone(),
                repo_tags: image.repo_tags.clone(),
                repo_digests: image.repo_digests.clone(),
                size: image.size,
                labels: image.config.labels.clone(),
                containers: -1,
                shared_size: -1,
                ..ImageSummary::default()
            })
            .collect()
    }

    pub fn image_index(&self, name: &str) -> Result<usize, Refusal> {
        let with_tag = match name.rsplit('/').next().unwrap_or(name).contains([':', '@']) {
            true => name.to_owned(),
            false => format!("{name}:latest"),
        };
        self.images
            .iter()
            .position(|image| {
                image.id == name
                    || image.id.strip_prefix("sha256:") == Some(name)
                    || image.repo_tags.contains(&with_tag)
                    || image.repo_digests.iter().any(|digest| digest == name)
            })
            .ok_or_else(|| (404, format!("No such image: {name}")))
    }

    pub fn find_image(&self, name: &str) -> Result<&ImageDetails, Refusal> {
        Ok(&self.images[self.image_index(name)?])
    }

    pub fn container_index(&self, id: &str) -> Result<usize, Refusal> {
        let name = format!("/{}", id.trim_start_matches('/'));
        self.containers
            .iter()
            .position(|container| container.details.name == name || container.details.id == id)
            .or_else(|| {
                let mut found =
                    self.containers.iter().enumerate().filter(|(_, container)| {
                        id.len() >= 4 && container.details.id.starts_with(id)
                    });
                found.next().map(|(index, _)| index).filter(|_| found.next().is_none())
            })
            .ok_or_else(|| (404, format!("No such container: {id}")))
    }

    pub fn find_container(&self, id: &str) -> Result<&FakeContainer, Refusal> {
        Ok(&self.containers[self.container_index(id)?])
    }

    pub fn container_list(&self, labels: &[String]) -> Vec<ContainerSummary> {
        self.containers
            .iter()
            .filter(|container| {
                labels.iter().all(|label| match label.split_once('=') {
                    Some((name, value)) => {
                        container.details.config.labels.get(name).map(String::as_str) == Some(value)
                    }
                    None => container.details.config.labels.contains_key(label),
                })
            })
            .map(|container| summary(&container.details))
            .collect()
    }

    pub fn log(&self, id: &str, options: &LogOptions) -> Result<Vec<LogChunk>, Refusal> {
        let container = self.find_container(id)?;
        let lines: Vec<LogChunk> =
            container.log.iter().filter(|chunk| wanted(options, chunk.source)).cloned().collect();
        let skip = match options.tail {
            Some(tail) => lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)),
            None => 0,
        };
        Ok(lines.into_iter().skip(skip).collect())
    }

    pub fn say(&mut self, id: &str, source: LogSource, line: &str) -> Option<(String, LogChunk)> {
        let index = self.container_index(id).ok()?;
        let chunk = LogChunk { source, bytes: Bytes::from(format!("{line}\n")) };
        let container = &mut self.containers[index];
        container.log.push(chunk.clone());
        Some((container.details.id.clone(), chunk))
    }

    pub fn find_network(&self, name: &str) -> Result<&Network, Refusal> {
        self.networks
            .iter()
            .find(|network| network.name == name || network.id == name)
            .ok_or_else(|| (404, format!("network {name} not found")))
    }

    pub fn find_volume(&self, name: &str) -> Result<Volume, Refusal> {
        self.volumes.get(name).cloned().ok_or_else(|| (404, format!("get {name}: no such volume")))
    }
}

fn summary(details: &ContainerDetails) -> ContainerSummary {
    ContainerSummary {
        id: details.id.clone(),
        names: vec![details.name.clone()],
        image: details.config.image.clone(),
        image_id: details.image.clone(),
        labels: details.config.labels.clone(),
        state: details.state.status.clone(),
        status: details.state.status.clone(),
        host_config: SummaryHostConfig { network_mode: details.host_config.network_mode.clone() },
        network_settings: SummaryNetworks { networks: details.network_settings.networks.clone() },
        mounts: details.mounts.clone(),
        ..ContainerSummary::default()
    }
}

/// Whether an event passes a filter.
pub(super) fn passes(filter: &EventFilter, event: &Event) -> bool {
    filter.filters.iter().all(|(key, values)| {
        values.iter().any(|value| match key.as_str() {
            "type" => event.kind == *value,
            "event" => event.action == *value || event.action.starts_with(&format!("{value}:")),
            "container" | "image" | "network" | "volume" => {
                event.kind == *key
                    && (event.actor.id.starts_with(value.as_str())
                        || event.actor.attributes.get("name") == Some(value))
            }
            "label" => match value.split_once('=') {
                Some((name, wanted)) => {
                    event.actor.attributes.get(name).map(String::as_str) == Some(wanted)
                }
                None => event.actor.attributes.contains_key(value),
            },
            _ => false,
        })
    })
}

/// A log that goes on.
pub(super) struct Follow {
    pub id: String,
    pub options: LogOptions,
    pub pending: VecDeque<LogChunk>,
    pub lines: broadcast::Receiver<(String, LogChunk)>,
    pub events: broadcast::Receiver<Event>,
    pub running: bool,
}

impl Follow {
    /// The next chunk; ends after the container's last line.
    pub async fn next(mut self) -> Option<(Result<LogChunk, Error>, Follow)> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Some((Ok(chunk), self));
            }
            if !self.running {
                return None;
            }
            // Both receives are cancel-safe. Lines come first: the last one is said before the end.
            tokio::select! {
                biased;
                line = self.lines.recv() => match line {
                    Ok((id, chunk)) if id == self.id && wanted(&self.options, chunk.source) => {
                        self.pending.push_back(chunk);
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                event = self.events.recv() => {
                    self.running = !event.is_ok_and(|event| {
                        event.actor.id == self.id && matches!(event.action.as_str(), "die" | "destroy")
                    });
                }
            }
        }
    }
}

fn wanted(options: &LogOptions, source: LogSource) -> bool {
    match source {
        LogSource::Stdout => options.stdout,
        LogSource::Stderr => options.stderr,
    }
}
