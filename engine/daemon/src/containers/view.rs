//! Containers as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use minke_engine_client::wire::{
    ContainerDetails, ContainerState, ContainerSummary, EndpointSettings, GraphDriver, HostNetwork,
    MountPoint, NetworkSettings, PortBinding, PortSummary, SummaryHostConfig, SummaryNetworks,
};
use minke_engine_runtime::spec::{MASKED_PATHS, READONLY_PATHS};

use super::container::{Cell, Container};
use super::document::{MountDocument, MountKind, Status};
use super::exec::Progress;
use super::ports;
use crate::daemon::Daemon;
use crate::{apparmor, stamp, volumes};

/// The answer of inspect; `size` is what the container's own files take, if that was asked for.
pub(crate) fn details(
    daemon: &Daemon,
    container: &Container,
    size: Option<i64>,
) -> ContainerDetails {
    let cell = container.lock();
    let document = &cell.config;
    let config = &document.config;
    let mut words = config.entrypoint.clone().unwrap_or_default();
    words.extend(config.cmd.clone().unwrap_or_default());
    let mut words = words.into_iter();
    let mut host = document.host_config.clone();
    if !host.privileged {
        let list = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect());
        host.masked_paths = host.masked_paths.or_else(|| list(&MASKED_PATHS));
        host.readonly_paths = host.readonly_paths.or_else(|| list(&READONLY_PATHS));
    }
    if host.log_config.kind.is_empty() {
        host.log_config.kind = "json-file".to_owned();
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    if host.isolation.is_empty() {
        host.isolation = "default".to_owned();
    }
    if host.runtime.is_empty() {
        host.runtime = "runc".to_owned();
    }
    let path = |name: &str| container.dir.join(name).to_string_lossy().into_owned();
    let running_execs: Vec<String> = cell
        .execs
        .iter()
        .filter(|(_, exec)| exec.progress == Progress::Running)
        .map(|(id, _)| id.clone())
        .collect();
    ContainerDetails {
        id: container.id.clone(),
        created: stamp::rfc3339(document.created_at),
        path: words.next().unwrap_or_default(),
        args: words.collect(),
        state: state(&cell),
        image: document.image_id.clone(),
        resolv_conf_path: path("resolv.conf"),
        hostname_path: path("hostname"),
        hosts_path: path("hosts"),
        log_path: match host.log_config.kind.as_str() {
            // Of other drivers only the engine reads the files.
            "json-file" => path(&format!("{}-json.log", container.id)),
            _ => String::new(),
        },
        name: format!("/{}", document.name),
        restart_count: cell.state.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        app_armor_profile: apparmor::shown(&cell.state.apparmor),
        exec_ids: (!running_execs.is_empty()).then_some(running_execs),
        host_config: host,
        graph_driver: GraphDriver {
            name: "overlay2".to_owned(),
            data: BTreeMap::from([
                ("UpperDir".to_owned(), path("upper")),
                ("WorkDir".to_owned(), path("work")),
                ("MergedDir".to_owned(), path("rootfs")),
            ]),
        },
        size_rw: size,
        size_root_fs: size.map(|size| size + image_size(daemon, &document.image_id)),
        mounts: document.mounts.iter().map(|mount| mount_point(daemon, mount)).collect(),
        config: config.clone(),
        network_settings: network_settings(daemon, container, &cell),
        ..ContainerDetails::default()
    }
}

fn state(cell: &Cell) -> ContainerState {
    let state = &cell.state;
    ContainerState {
        status: state.status.word().to_owned(),
        running: state.status.counts_as_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        // A removal either happens or leaves all as it was.
        dead: false,
        pid: i64::from(state.pid),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: stamp::rfc3339(state.started_at),
        finished_at: stamp::rfc3339(state.finished_at),
        health: state.health.clone(),
    }
}

fn mount_point(daemon: &Daemon, mount: &MountDocument) -> MountPoint {
    let propagation = match mount.kind {
        MountKind::Bind if mount.propagation.is_empty() => "rprivate".to_owned(),
        _ => mount.propagation.clone(),
    };
    MountPoint {
        kind: mount.kind.word().to_owned(),
        name: mount.volume.clone(),
        source: match mount.kind {
            MountKind::Volume => daemon.volumes.data(&mount.volume).to_string_lossy().into_owned(),
            _ => mount.source.clone(),
        },
        destination: mount.target.clone(),
        driver: if mount.kind == MountKind::Volume { "local".to_owned() } else { String::new() },
        mode: mount.mode.clone(),
        rw: !mount.read_only,
        propagation,
    }
}

/// The networks of a container: what it has while it runs, else what it will ask for.
fn networks(daemon: &Daemon, cell: &Cell) -> BTreeMap<String, EndpointSettings> {
    let mut shown = BTreeMap::new();
    for (name, asked) in &cell.config.networks {
        let mut endpoint = match cell.state.endpoints.get(name) {
            Some(endpoint) if cell.state.status.has_process() => endpoint.clone(),
            _ => asked.clone(),
        };
        if endpoint.network_id.is_empty() {
            endpoint.network_id = daemon.network_id(name);
        }
        shown.insert(name.clone(), endpoint);
    }
    shown
}

fn network_settings(daemon: &Daemon, container: &Container, cell: &Cell) -> NetworkSettings {
    let networks = networks(daemon, cell);
    let running = cell.state.status.has_process();
    let mut shown_ports: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    if running {
        for key in cell.config.config.exposed_ports.keys() {
            shown_ports.insert(ports::with_protocol(key), None);
        }
        for (key, given) in &cell.state.ports {
            let bindings = given
                .iter()
                .map(|(host_ip, port)| PortBinding {
                    host_ip: host_ip.clone(),
                    host_port: port.to_string(),
                })
                .collect();
            shown_ports.insert(key.clone(), Some(bindings));
        }
    }
    let default = networks.get("bridge").filter(|_| running).cloned().unwrap_or_default();
    let own = running
        && !matches!(
            cell.config.host_config.network(),
            HostNetwork::Host | HostNetwork::Container(_)
        );
    let key = own.then(|| daemon.networks.namespace(&container.id).ok()).flatten();
    NetworkSettings {
        sandbox_id: if own { container.id.clone() } else { String::new() },
        sandbox_key: key
            .map(|namespace| namespace.netns.to_string_lossy().into_owned())
            .unwrap_or_default(),
        ports: shown_ports,
        endpoint_id: default.endpoint_id,
        gateway: default.gateway,
        ip_address: default.ip_address,
        ip_prefix_len: default.ip_prefix_len,
        mac_address: default.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

/// A row of a list; `size` as in [`details`].
pub(crate) fn summary(
    daemon: &Daemon,
    container: &Container,
    size: Option<i64>,
) -> ContainerSummary {
    let cell = container.lock();
    let document = &cell.config;
    let config = &document.config;
    let mut command = config.entrypoint.clone().unwrap_or_default();
    command.extend(config.cmd.clone().unwrap_or_default());
    // A name that was given to another image meanwhile would lie.
    let image = match daemon.images.image(&config.image) {
        Ok(image) if image.id.to_string() != document.image_id => document.image_id.clone(),
        _ => config.image.clone(),
    };
    ContainerSummary {
        id: container.id.clone(),
        names: vec![format!("/{}", document.name)],
        image,
        image_id: document.image_id.clone(),
        command: command.join(" "),
        created: document.created_at / 1_000_000_000,
        ports: port_list(&cell),
        size_rw: size,
        size_root_fs: size.map(|size| size + image_size(daemon, &document.image_id)),
        labels: config.labels.clone(),
        state: cell.state.status.word().to_owned(),
        status: status_line(&cell, stamp::now()),
        host_config: SummaryHostConfig { network_mode: document.host_config.network_mode.clone() },
        network_settings: SummaryNetworks { networks: networks(daemon, &cell) },
        mounts: document.mounts.iter().map(|mount| mount_point(daemon, mount)).collect(),
    }
}

fn port_list(cell: &Cell) -> Vec<PortSummary> {
    if !cell.state.status.has_process() {
        return Vec::new();
    }
    let mut list = Vec::new();
    for (key, given) in &cell.state.ports {
        let (number, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        for (ip, port) in given {
            list.push(PortSummary {
                ip: ip.clone(),
                private_port: number.parse().unwrap_or_default(),
                public_port: Some(*port),
                protocol: protocol.to_owned(),
            });
        }
    }
    for key in cell.config.config.exposed_ports.keys() {
        if let Ok((port, _)) = ports::parse_port(key)
            && !cell.state.ports.contains_key(&ports::with_protocol(key))
        {
            list.push(PortSummary {
                private_port: port,
                protocol: key.split_once('/').map_or("tcp", |(_, p)| p).to_owned(),
                ..PortSummary::default()
            });
        }
    }
    list
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`, `Created`.
fn status_line(cell: &Cell, now: i64) -> String {
    let state = &cell.state;
    let ago = |time: i64| stamp::for_people(now.saturating_sub(time));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, ago(state.finished_at))
        }
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished_at)),
        Status::Running => {
            let health = match state.health.as_ref().map(|health| health.status.as_str()) {
                Some("starting") => " (health: starting)".to_owned(),
                Some(other @ ("healthy" | "unhealthy")) => format!(" ({other})"),
                _ => String::new(),
            };
            format!("Up {}{health}", ago(state.started_at))
        }
    }
}

/// What the own files of containers take. They are all looked at: this is for a thread that may wait.
pub(crate) fn sizes(containers: &[Arc<Container>]) -> Vec<i64> {
    let uppers = containers.iter().map(|container| container.dir.join("upper"));
    uppers.map(|upper| i64::try_from(volumes::disk_usage(&upper)).unwrap_or(i64::MAX)).collect()
}

fn image_size(daemon: &Daemon, id: &str) -> i64 {
    daemon.images.image(id).map_or(0, |image| i64::try_from(image.size).unwrap_or(i64::MAX))
}
