//! Makes containers: checks, names, volumes, the document. Nothing runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use minke_engine_client::wire::{
    ContainerConfig, CreateContainer, EndpointSettings, HealthConfig, HostNetwork,
};
use minke_engine_images::{Image, Platform, Use};

use super::container::{Container, make_directories};
use super::document::{ConfigDocument, MountDocument, MountKind, StateDocument, VERSION};
use super::{links, membership, mounts, ports, remove, validate};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::volumes::ANONYMOUS;
use crate::{durable, ids, names, stamp};

/// A made container and what its maker should know.
pub(crate) struct Created {
    pub(crate) container: Arc<Container>,
    pub(crate) warnings: Vec<String>,
}

/// Makes a container; an empty name is chosen.
///
/// `platform` (`os/arch[/variant]`, or empty) is what the image must be for.
pub(crate) fn create(
    daemon: &Daemon,
    name: &str,
    platform: &str,
    body: CreateContainer,
) -> Result<Created> {
    let name = name.strip_prefix('/').unwrap_or(name);
    if !name.is_empty() {
        names::check_container(name)?;
    }
    let CreateContainer { config, host_config: mut host, networking_config } = body;
    if config.image.is_empty() {
        return Err(Error::Invalid("config cannot be empty in order to create a container".into()));
    }
    validate::check(&config, &host)?;
    if daemon.options.user_range.is_some() {
        validate::check_user_namespace(&host)?;
    }
    links::check(daemon, &host)?;
    let image = daemon.images.image(&config.image)?;
    check_platform(&image, &config.image, platform)?;
    let config = merge_image(config, &image)?;
    ports::published(&config, &host)?;
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty)
        && config.cmd.as_ref().is_none_or(Vec::is_empty)
    {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    let mut endpoints = BTreeMap::new();
    for (network, settings) in networking_config.endpoints_config {
        let network = if network == "default" { "bridge".to_owned() } else { network };
        endpoints.insert(network, membership::checked(settings.unwrap_or_default())?);
    }
    if config.network_disabled {
        host.network_mode = "none".to_owned();
    }
    let networks = wanted_networks(daemon, host.network(), endpoints)?;
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".to_owned();
    }
    let mut mounts = mounts::resolve(&config, &host, inherited(daemon, &host.volumes_from)?)?;
    let id = ids::random();
    let name = take_name(daemon, name, &id)?;
    let made = make(daemon, &mut mounts, |mounts| ConfigDocument {
        version: VERSION,
        id: id.clone(),
        name: name.clone(),
        created_at: stamp::now(),
        image_id: image.id.to_string(),
        config: with_hostname(config, &id),
        host_config: host,
        networks,
        mounts,
    });
    if made.is_err() {
        daemon.containers.release_name(&name, &id);
    }
    let container = made?;
    daemon.events.publish("container", "create", &id, container.attributes());
    Ok(Created { container, warnings: Vec::new() })
}

/// Refuses an image that is for another platform than the one asked for.
fn check_platform(image: &Image, name: &str, wanted: &str) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let parsed = Platform::parse(wanted)
        .ok_or_else(|| Error::Invalid(format!("invalid platform {wanted:?}")))?;
    let own = &image.config;
    if parsed.os == own.os && parsed.architecture == own.architecture {
        return Ok(());
    }
    Err(Error::NotFound(format!(
        "image with reference {name} was found but its platform ({}/{}) does not match the specified platform ({wanted})",
        own.os, own.architecture
    )))
}

/// Makes what is on the disk of a container. The document is first: whatever a crash leaves of the rest
/// is found by it, and made at the next start.
fn make(
    daemon: &Daemon,
    mounts: &mut Vec<MountDocument>,
    document: impl FnOnce(Vec<MountDocument>) -> ConfigDocument,
) -> Result<Arc<Container>> {
    name_volumes(mounts);
    let document = document(std::mem::take(mounts));
    let dir = daemon.containers_dir().join(&document.id);
    make_directories(&dir)?;
    let image = document.image_id.parse().map_err(Error::system("reading the image's id"))?;
    daemon.images.pin(&image, &document.id, Use::Stopped)?;
    let written = durable::write_json(&dir.join("config.json"), &document)
        .and_then(|()| durable::sync_directory(&daemon.containers_dir()))
        .and_then(|()| make_volumes(daemon, &document));
    if let Err(error) = written {
        daemon.images.unpin(&document.id);
        // Without a document the next start removes it anyway.
        let _ = std::fs::remove_dir_all(&dir);
        remove::remove_anonymous(daemon, &document.mounts);
        return Err(error);
    }
    let container = Arc::new(Container::new(dir, document, StateDocument::default()));
    container.lock().looked_at = Some(Instant::now());
    daemon.containers.add(container.clone());
    Ok(container)
}

/// Gives names to the volumes that were asked for without one, and says which they are.
fn name_volumes(mounts: &mut [MountDocument]) {
    for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume) {
        // Another container's mount says it already.
        mount.unnamed.get_or_insert(mount.volume.is_empty());
        if mount.volume.is_empty() {
            mount.volume = ids::random();
            mount.labels.insert(ANONYMOUS.to_owned(), String::new());
        }
    }
}

/// Makes the volumes of a container that are not there, by its driver where a mount names none of its own.
pub(super) fn make_volumes(daemon: &Daemon, document: &ConfigDocument) -> Result<()> {
    for mount in document.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        let body = minke_engine_client::wire::CreateVolume {
            name: mount.volume.clone(),
            labels: mount.labels.clone(),
            driver: match mount.driver.as_str() {
                "" => document.host_config.volume_driver.clone(),
                own => own.to_owned(),
            },
            driver_opts: mount.driver_options.clone(),
        };
        let (volume, new) = daemon.volumes.create(&body)?;
        if new {
            let driver = Attributes::from([("driver".to_owned(), "local".to_owned())]);
            daemon.events.publish("volume", "create", &volume.name, driver);
        }
    }
    Ok(())
}

fn take_name(daemon: &Daemon, name: &str, id: &str) -> Result<String> {
    if !name.is_empty() {
        daemon.containers.take_name(name, id)?;
        return Ok(name.to_owned());
    }
    for attempt in 0..100 {
        let name = ids::friendly_name(attempt);
        if daemon.containers.take_name(&name, id).is_ok() {
            return Ok(name);
        }
    }
    Err(Error::Conflict("no free name was found; give the container one".to_owned()))
}

fn with_hostname(mut config: ContainerConfig, id: &str) -> ContainerConfig {
    if config.hostname.is_empty() {
        config.hostname = id[..12].to_owned();
    }
    config
}

/// The networks that a container shall be in, by name. That of its mode is one of them only if no other
/// was named: who names an internal network alone wants no way out.
fn wanted_networks(
    daemon: &Daemon,
    mode: HostNetwork<'_>,
    mut endpoints: BTreeMap<String, EndpointSettings>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    let first = match mode {
        HostNetwork::Container(other) => {
            daemon.containers.find(other)?;
            return Ok(BTreeMap::new());
        }
        HostNetwork::Bridge => "bridge",
        HostNetwork::Host => "host",
        HostNetwork::None => "none",
        HostNetwork::Named(name) => name,
    };
    if matches!(mode, HostNetwork::Host | HostNetwork::None) {
        endpoints.retain(|name, _| name == first);
        if endpoints.is_empty() {
            endpoints.insert(first.to_owned(), EndpointSettings::default());
        }
        return Ok(endpoints);
    }
    // Ids and names of one network are one network.
    let name_of = |name: &str| match daemon.networks.get(name) {
        Ok(record) => record.name,
        Err(_) => name.to_owned(),
    };
    let mut networks = BTreeMap::new();
    for (name, settings) in endpoints {
        networks.insert(name_of(&name), settings);
    }
    if networks.is_empty() {
        networks.insert(name_of(first), EndpointSettings::default());
    }
    Ok(networks)
}

fn inherited(daemon: &Daemon, from: &[String]) -> Result<Vec<MountDocument>> {
    let mut all: Vec<MountDocument> = Vec::new();
    for entry in from {
        let (name, mode) = entry.split_once(':').unwrap_or((entry, "rw"));
        if !matches!(mode, "rw" | "ro") {
            return Err(Error::Invalid(format!("invalid mode in VolumesFrom: {entry:?}")));
        }
        let other = daemon.containers.find(name)?;
        for mut mount in other.lock().config.mounts.clone() {
            mount.read_only |= mode == "ro";
            mount.unnamed = Some(mount.is_unnamed());
            all.retain(|known| known.target != mount.target);
            all.push(mount);
        }
    }
    Ok(all)
}

/// Adds what the image says to what was asked.
fn merge_image(config: ContainerConfig, image: &Image) -> Result<ContainerConfig> {
    let value = serde_json::to_value(&image.config.config)
        .map_err(Error::system("reading the image's configuration"))?;
    let of_image: ContainerConfig = serde_json::from_value(value)
        .map_err(Error::system("reading the image's configuration"))?;
    Ok(fill_in(config, of_image))
}

/// Fills in what a configuration leaves open from another one.
pub(super) fn fill_in(mut config: ContainerConfig, of_image: ContainerConfig) -> ContainerConfig {
    config.exposed_ports.extend(of_image.exposed_ports);
    config.volumes.extend(of_image.volumes);
    for variable in &of_image.env {
        let name = variable.split('=').next().unwrap_or_default();
        let given = config.env.iter().any(|own| own.split('=').next() == Some(name));
        if !given {
            config.env.push(variable.clone());
        }
    }
    for (name, value) in of_image.labels {
        config.labels.entry(name).or_insert(value);
    }
    if config.user.is_empty() {
        config.user = of_image.user;
    }
    if config.working_dir.is_empty() {
        config.working_dir = of_image.working_dir;
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = of_image.stop_signal;
    }
    config.stop_timeout = config.stop_timeout.or(of_image.stop_timeout);
    config.shell = config.shell.or(of_image.shell);
    // A new entrypoint also does away with the image's command; an empty one takes its entrypoint alone.
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty)
        && config.cmd.as_ref().is_none_or(Vec::is_empty)
    {
        config.cmd = of_image.cmd;
    }
    config.entrypoint = config.entrypoint.or(of_image.entrypoint);
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    config.healthcheck = merge_health(config.healthcheck, of_image.healthcheck);
    config
}

fn merge_health(own: Option<HealthConfig>, image: Option<HealthConfig>) -> Option<HealthConfig> {
    let (Some(mut own), Some(image)) = (own.clone(), image.clone()) else { return own.or(image) };
    if own.test.is_empty() {
        own.test = image.test;
    }
    for (value, inherited) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *value == 0 {
            *value = inherited;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str) -> Image {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        Image {
            id: "sha256:0000000000000000000000000000000000000000000000000000000000000000"
                .parse()
                .unwrap(),
            config: Arc::new(serde_json::from_str(&text).unwrap()),
            parent: None,
            tags: Vec::new(),
            digests: Vec::new(),
            size: 0,
            last_tagged: 0,
        }
    }

    #[test]
    fn the_image_fills_in_what_was_not_asked_for() {
        let image = image(
            r#"{"Env":["PATH=/bin","A=1","GONE=x"],"Cmd":["serve"],"Entrypoint":["/init"],
                "Labels":{"a":"image","b":"image"},"WorkingDir":"/app","User":"app",
                "Healthcheck":{"Test":["CMD","true"],"Retries":5}}"#,
        );
        let asked: ContainerConfig = serde_json::from_str(
            r#"{"Env":["A=2","GONE"],"Labels":{"a":"own"},"Healthcheck":{"Retries":2}}"#,
        )
        .unwrap();
        let merged = merge_image(asked, &image).unwrap();
        // `GONE` alone takes the image's variable away when the container starts.
        assert_eq!(merged.env, ["A=2", "GONE", "PATH=/bin"]);
        assert_eq!(merged.cmd, Some(vec!["serve".to_owned()]));
        assert_eq!(merged.entrypoint, Some(vec!["/init".to_owned()]));
        assert_eq!((merged.labels["a"].as_str(), merged.labels["b"].as_str()), ("own", "image"));
        assert_eq!((merged.working_dir.as_str(), merged.user.as_str()), ("/app", "app"));
        let health = merged.healthcheck.unwrap();
        assert_eq!((health.retries, health.test.len()), (2, 2));
    }

    #[test]
    fn a_new_entrypoint_drops_the_images_command() {
        let image = image(r#"{"Cmd":["serve"],"Entrypoint":["/init"]}"#);
        let asked = |text: &str| serde_json::from_str::<ContainerConfig>(text).unwrap();
        let merged = merge_image(asked(r#"{"Entrypoint":["/own"]}"#), &image).unwrap();
        assert_eq!(merged.cmd, None);
        let merged = merge_image(asked(r#"{"Cmd":["own"]}"#), &image).unwrap();
        assert_eq!(merged.entrypoint, Some(vec!["/init".to_owned()]));
        let merged = merge_image(asked(r#"{"Entrypoint":[""],"Cmd":["own"]}"#), &image).unwrap();
        assert_eq!(merged.entrypoint, None);
        let merged = merge_image(asked(r#"{"Entrypoint":[""]}"#), &image).unwrap();
        assert_eq!((merged.entrypoint, merged.cmd), (None, None));
        // Compose and docker-py take away the entrypoint alone.
        let merged = merge_image(asked(r#"{"Entrypoint":[]}"#), &image).unwrap();
        assert_eq!(merged.entrypoint, Some(Vec::new()));
        assert_eq!(merged.cmd, Some(vec!["serve".to_owned()]));
        let merged = merge_image(asked(r#"{"Entrypoint":[],"Cmd":["own"]}"#), &image).unwrap();
        assert_eq!(merged.cmd, Some(vec!["own".to_owned()]));
    }
}
