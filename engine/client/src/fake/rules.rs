//! What the fake engine does and what it refuses.

use super::world::{FakeContainer, Refusal, World};
use crate::RemoveContainer;
use crate::wire::{
    ContainerConfig, ContainerDetails, ContainerState, CreateContainer, CreateNetwork,
    CreateVolume, EndpointSettings, Event, Health, HostNetwork, MountPoint, Network,
    NetworkSettings, RestartPolicy, Volume,
};

type Events = Vec<Event>;

impl World {
    pub fn pull(&mut self, reference: &str, events: &mut Events) -> Result<(), Refusal> {
        self.pull_lines(reference)?;
        let image = self.offered[reference].clone();
        for other in &mut self.images {
            other.repo_tags.retain(|tag| !image.repo_tags.contains(tag));
        }
        match self.images.iter_mut().find(|other| other.id == image.id) {
            Some(known) => {
                known.repo_tags.extend(image.repo_tags);
                for digest in image.repo_digests {
                    if !known.repo_digests.contains(&digest) {
                        known.repo_digests.push(digest);
                    }
                }
            }
            None => self.images.push(image),
        }
        events.push(self.event("image", "pull", reference, &[("name", reference)]));
        Ok(())
    }

    pub fn tag(&mut self, name: &str, new: &str, events: &mut Events) -> Result<(), Refusal> {
        let index = self.image_index(name)?;
        for image in &mut self.images {
            image.repo_tags.retain(|tag| tag != new);
        }
        self.images[index].repo_tags.push(new.to_owned());
        let id = self.images[index].id.clone();
        events.push(self.event("image", "tag", &id, &[("name", new)]));
        Ok(())
    }

    pub fn remove_image(
        &mut self,
        name: &str,
        force: bool,
        events: &mut Events,
    ) -> Result<(), Refusal> {
        let index = self.image_index(name)?;
        let image = &mut self.images[index];
        let by_name = image.repo_tags.len() + image.repo_digests.len() > 1
            && (image.repo_tags.iter().chain(&image.repo_digests).any(|known| known == name));
        if by_name {
            image.repo_tags.retain(|tag| tag != name);
            image.repo_digests.retain(|digest| digest != name);
            let id = image.id.clone();
            events.push(self.event("image", "untag", &id, &[("name", name)]));
            return Ok(());
        }
        let id = image.id.clone();
        if !force && image.repo_tags.len() > 1 {
            let text = "image is referenced in multiple repositories";
            return Err((409, format!("conflict: unable to delete {name}: {text}")));
        }
        let user = self.containers.iter().find(|container| container.details.image == id);
        if let Some(user) = user.filter(|user| !force || user.details.state.running) {
            let text = format!(
                "conflict: unable to delete {name}: image is being used by container {}",
                &user.details.id[..12]
            );
            return Err((409, text));
        }
        self.images.remove(index);
        events.push(self.event("image", "delete", &id, &[("name", name)]));
        Ok(())
    }

    pub fn create(
        &mut self,
        name: &str,
        body: &CreateContainer,
        events: &mut Events,
    ) -> Result<String, Refusal> {
        let image = self.find_image(&body.config.image)?.clone();
        let id = self.next_id("container");
        let name = if name.is_empty() { format!("fake_{}", &id[..8]) } else { name.to_owned() };
        self.check_name_free(&name)?;
        let networks = self.endpoints(body)?;
        let mounts = self.mounts(body, events);
        let mut config: ContainerConfig = body.config.clone();
        for (label, value) in &image.config.labels {
            config.labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        config.cmd = config.cmd.or(image.config.cmd.clone());
        let created = self.now();
        let details = ContainerDetails {
            id: id.clone(),
            created: stamp(created),
            name: format!("/{name}"),
            image: image.id,
            state: ContainerState {
                status: "created".to_owned(),
                started_at: "0001-01-01T00:00:00Z".to_owned(),
                finished_at: "0001-01-01T00:00:00Z".to_owned(),
                ..ContainerState::default()
            },
            host_config: body.host_config.clone(),
            config,
            mounts,
            network_settings: NetworkSettings { networks, ..NetworkSettings::default() },
            ..ContainerDetails::default()
        };
        self.containers.push(FakeContainer { details, log: Vec::new() });
        self.container_event(&id, "create", events);
        Ok(id)
    }

    fn check_name_free(&self, name: &str) -> Result<(), Refusal> {
        let good = name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !good {
            return Err((400, format!("Invalid container name ({name})")));
        }
        match self.containers.iter().find(|other| other.details.name == format!("/{name}")) {
            Some(other) => Err((
                409,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{}\".",
                    other.details.id
                ),
            )),
            None => Ok(()),
        }
    }

    fn endpoints(
        &self,
        body: &CreateContainer,
    ) -> Result<std::collections::BTreeMap<String, EndpointSettings>, Refusal> {
        let mut networks = std::collections::BTreeMap::new();
        let mode = body.host_config.network();
        let first = match mode {
            HostNetwork::Bridge => "bridge",
            HostNetwork::Host => "host",
            HostNetwork::None => "none",
            HostNetwork::Container(other) => {
                self.find_container(other)?;
                return Ok(networks);
            }
            HostNetwork::Named(name) => name,
        };
        let asked = &body.networking_config.endpoints_config;
        let alone = asked.is_empty() || matches!(mode, HostNetwork::Host | HostNetwork::None);
        let names = match alone {
            true => vec![first],
            false => asked.keys().map(String::as_str).collect(),
        };
        for name in names {
            let network = self.find_network(name)?;
            let mut endpoint = asked.get(name).cloned().flatten().unwrap_or_default();
            endpoint.network_id = network.id.clone();
            networks.insert(network.name.clone(), endpoint);
        }
        Ok(networks)
    }

    fn mounts(&mut self, body: &CreateContainer, events: &mut Events) -> Vec<MountPoint> {
        let short = body.host_config.binds.iter().filter_map(|bind| {
            let mut parts = bind.splitn(3, ':');
            Some((parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next() != Some("ro")))
        });
        let long = body.host_config.mounts.iter().filter(|mount| mount.kind != "tmpfs");
        let long = long.map(|mount| (mount.source.clone(), mount.target.clone(), !mount.read_only));
        let mut mounts = Vec::new();
        for (source, destination, rw) in short.chain(long) {
            let volume = !source.starts_with('/');
            if volume {
                let body = CreateVolume { name: source.clone(), ..CreateVolume::default() };
                self.create_volume(&body, events);
            }
            mounts.push(MountPoint {
                kind: if volume { "volume" } else { "bind" }.to_owned(),
                name: if volume { source.clone() } else { String::new() },
                source,
                destination,
                rw,
                ..MountPoint::default()
            });
        }
        mounts
    }

    pub fn start(&mut self, id: &str, events: &mut Events) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        if self.containers[index].details.state.running {
            return Ok(());
        }
        let pid = self.now();
        let container = &mut self.containers[index].details;
        let health = container
            .config
            .healthcheck
            .as_ref()
            .map(|_| Health { status: "starting".to_owned(), ..Health::default() });
        container.state = ContainerState {
            status: "running".to_owned(),
            running: true,
            pid: pid % 30_000 + 2,
            started_at: stamp(pid),
            finished_at: container.state.finished_at.clone(),
            health,
            ..ContainerState::default()
        };
        let id = container.id.clone();
        self.container_event(&id, "start", events);
        Ok(())
    }

    fn end(&mut self, index: usize, code: i64, events: &mut Events) {
        let now = self.now();
        let container = &mut self.containers[index].details;
        container.state.status = "exited".to_owned();
        container.state.running = false;
        container.state.pid = 0;
        container.state.exit_code = code;
        container.state.finished_at = stamp(now);
        let id = container.id.clone();
        self.container_event(&id, "die", events);
    }

    pub fn exit(&mut self, id: &str, code: i64, events: &mut Events) {
        let Ok(index) = self.container_index(id) else { return };
        if !self.containers[index].details.state.running {
            return;
        }
        self.end(index, code, events);
        let details = &mut self.containers[index].details;
        let policy = &details.host_config.restart_policy;
        let again = match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                code != 0
                    && (policy.maximum_retry_count == 0
                        || details.restart_count < policy.maximum_retry_count)
            }
            _ => false,
        };
        if again {
            details.restart_count += 1;
            let id = details.id.clone();
            // It exists and does not run, so it starts.
            let _ = self.start(&id, events);
        } else if details.host_config.auto_remove {
            let id = details.id.clone();
            let _ = self.remove(&id, RemoveContainer { force: true, volumes: true }, events);
        }
    }

    pub fn stop(&mut self, id: &str, events: &mut Events) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        if self.containers[index].details.state.running {
            self.end(index, 0, events);
            let id = self.containers[index].details.id.clone();
            self.container_event(&id, "stop", events);
        }
        Ok(())
    }

    pub fn kill(&mut self, id: &str, signal: &str, events: &mut Events) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        if !self.containers[index].details.state.running {
            return Err((409, format!("cannot kill container: {id}: container is not running")));
        }
        let id = self.containers[index].details.id.clone();
        self.container_event(&id, "kill", events);
        match signal.trim_start_matches("SIG") {
            "" | "KILL" | "9" => self.end(index, 137, events),
            "TERM" | "15" => self.end(index, 143, events),
            _ => {}
        }
        Ok(())
    }

    pub fn rename(&mut self, id: &str, name: &str, events: &mut Events) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        self.check_name_free(name)?;
        let details = &mut self.containers[index].details;
        details.name = format!("/{name}");
        let id = details.id.clone();
        self.container_event(&id, "rename", events);
        Ok(())
    }

    pub fn set_restart_policy(&mut self, id: &str, policy: &RestartPolicy) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        if !matches!(policy.name.as_str(), "" | "no" | "always" | "unless-stopped" | "on-failure") {
            return Err((400, format!("invalid restart policy '{}'", policy.name)));
        }
        self.containers[index].details.host_config.restart_policy = policy.clone();
        Ok(())
    }

    pub fn set_health(&mut self, id: &str, status: &str, events: &mut Events) {
        let Ok(index) = self.container_index(id) else { return };
        let details = &mut self.containers[index].details;
        details.state.health.get_or_insert_default().status = status.to_owned();
        let id = details.id.clone();
        self.container_event(&id, &format!("health_status: {status}"), events);
    }

    pub fn remove(
        &mut self,
        id: &str,
        options: RemoveContainer,
        events: &mut Events,
    ) -> Result<(), Refusal> {
        let index = self.container_index(id)?;
        if self.containers[index].details.state.running {
            if !options.force {
                let text =
                    "container is running: stop the container before removing or force remove";
                return Err((409, format!("cannot remove container \"{id}\": {text}")));
            }
            self.end(index, 137, events);
        }
        let id = self.containers[index].details.id.clone();
        self.container_event(&id, "destroy", events);
        self.containers.remove(index);
        Ok(())
    }

    fn container_event(&mut self, id: &str, action: &str, events: &mut Events) {
        let Ok(container) = self.find_container(id) else { return };
        let details = &container.details;
        let name = details.name.trim_start_matches('/').to_owned();
        let (image, labels) = (details.config.image.clone(), details.config.labels.clone());
        let exit_code = details.state.exit_code.to_string();
        let mut event = self.event("container", action, id, &[("name", &name), ("image", &image)]);
        event.actor.attributes.extend(labels);
        if action == "die" {
            event.actor.attributes.insert("exitCode".to_owned(), exit_code);
        }
        event.from = image;
        events.push(event);
    }

    pub fn create_network(
        &mut self,
        body: &CreateNetwork,
        events: &mut Events,
    ) -> Result<String, Refusal> {
        if self.find_network(&body.name).is_ok() {
            return Err((409, format!("network with name {} already exists", body.name)));
        }
        let id = self.next_id("network");
        let created = stamp(self.now());
        self.networks.push(Network {
            name: body.name.clone(),
            id: id.clone(),
            created,
            scope: "local".to_owned(),
            driver: if body.driver.is_empty() { "bridge".into() } else { body.driver.clone() },
            enable_ipv6: body.enable_ipv6,
            ipam: body.ipam.clone().unwrap_or_default(),
            internal: body.internal,
            options: body.options.clone(),
            labels: body.labels.clone(),
            ..Network::default()
        });
        events.push(self.event("network", "create", &id, &[("name", &body.name)]));
        Ok(id)
    }

    pub fn remove_network(&mut self, name: &str, events: &mut Events) -> Result<(), Refusal> {
        let network = self.find_network(name)?.clone();
        if matches!(network.name.as_str(), "bridge" | "host" | "none") {
            let text = "is a pre-defined network and cannot be removed";
            return Err((403, format!("{} {text}", network.name)));
        }
        let member = self.containers.iter().any(|container| {
            container.details.state.running
                && container.details.network_settings.networks.contains_key(&network.name)
        });
        if member {
            return Err((403, format!("network {} has active endpoints", network.name)));
        }
        self.networks.retain(|other| other.id != network.id);
        events.push(self.event("network", "destroy", &network.id, &[("name", &network.name)]));
        Ok(())
    }

    pub fn connect(
        &mut self,
        network: &str,
        container: &str,
        endpoint: Option<EndpointSettings>,
    ) -> Result<(), Refusal> {
        let (name, id) = {
            let network = self.find_network(network)?;
            (network.name.clone(), network.id.clone())
        };
        let index = self.container_index(container)?;
        let networks = &mut self.containers[index].details.network_settings.networks;
        if networks.contains_key(&name) {
            return Err((403, format!("endpoint already exists in network {name}")));
        }
        networks.insert(name, EndpointSettings { network_id: id, ..endpoint.unwrap_or_default() });
        Ok(())
    }

    pub fn disconnect(
        &mut self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), Refusal> {
        let name = self.find_network(network)?.name.clone();
        let index = self.container_index(container)?;
        let networks = &mut self.containers[index].details.network_settings.networks;
        if networks.remove(&name).is_none() && !force {
            return Err((403, format!("container {container} is not connected to network {name}")));
        }
        Ok(())
    }

    pub fn create_volume(&mut self, body: &CreateVolume, events: &mut Events) -> Volume {
        if let Some(volume) = self.volumes.get(&body.name) {
            return volume.clone();
        }
        let name = if body.name.is_empty() { self.next_id("volume") } else { body.name.clone() };
        let created_at = stamp(self.now());
        let volume = Volume {
            mountpoint: format!("/fake/volumes/{name}/_data"),
            name: name.clone(),
            driver: if body.driver.is_empty() { "local".into() } else { body.driver.clone() },
            created_at,
            labels: body.labels.clone(),
            scope: "local".to_owned(),
            options: body.driver_opts.clone(),
            usage_data: None,
        };
        self.volumes.insert(name.clone(), volume.clone());
        events.push(self.event("volume", "create", &name, &[]));
        volume
    }

    pub fn remove_volume(
        &mut self,
        name: &str,
        force: bool,
        events: &mut Events,
    ) -> Result<(), Refusal> {
        if let Err(refusal) = self.find_volume(name) {
            return if force { Ok(()) } else { Err(refusal) };
        }
        let user = self
            .containers
            .iter()
            .find(|container| container.details.mounts.iter().any(|mount| mount.name == name));
        if let Some(user) = user {
            let text = format!("remove {name}: volume is in use - [{}]", user.details.id);
            return Err((409, text));
        }
        self.volumes.remove(name);
        events.push(self.event("volume", "destroy", name, &[]));
        Ok(())
    }
}

/// A time as the API writes it; the fake's clock counts seconds within one day.
fn stamp(seconds: i64) -> String {
    let second = seconds - 1_700_000_000;
    format!("2023-11-14T{:02}:{:02}:{:02}Z", second / 3600 % 24, second / 60 % 60, second % 60)
}
