//! One service of compose to the engine's create request.

use std::collections::BTreeMap;

use minke_common_model::ids::{NetworkName, ServiceName};
use minke_engine_client::wire::{
    ContainerConfig, CreateContainer, DeviceMapping, EndpointIpam, EndpointSettings, HealthConfig,
    HostConfig, Mount, NetworkingConfig, Resources, RestartPolicy, Ulimit,
};
use serde_json::{Map, Value};

use super::Warnings;
use super::fields::{Fields, pairs, scalar};
use super::ports;
use super::volumes::Mounts;
use crate::state::{Condition, NetworkKey};

/// Where a service's packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkMode {
    /// `host`, `none` or `bridge`: the engine's own.
    BuiltIn(String),
    /// The namespace of another service.
    Of(ServiceName),
    /// Networks of the release, the first of which is the default route.
    Named(Vec<(NetworkName, Map<String, Value>)>),
}

pub(super) fn network_mode(fields: Fields, warnings: &mut Warnings) -> NetworkMode {
    match fields.text("network_mode").as_deref() {
        Some(mode @ ("host" | "none" | "bridge")) => NetworkMode::BuiltIn(mode.to_owned()),
        Some(mode) => match mode.strip_prefix("service:").map(str::parse) {
            Some(Ok(service)) => NetworkMode::Of(service),
            _ => {
                warnings.push(format!("the network mode {mode:?} is not supported"));
                NetworkMode::Named(named_networks(fields))
            }
        },
        None => NetworkMode::Named(named_networks(fields)),
    }
}

fn named_networks(fields: Fields) -> Vec<(NetworkName, Map<String, Value>)> {
    let mut named = Vec::new();
    match fields.get("networks") {
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(scalar).filter_map(|name| name.parse().ok());
            named.extend(names.map(|name| (name, Map::new())));
        }
        Some(Value::Object(networks)) => {
            for (name, settings) in networks {
                if let Ok(name) = name.parse() {
                    named.push((name, settings.as_object().cloned().unwrap_or_default()));
                }
            }
        }
        _ => {}
    }
    if named.is_empty() {
        named.push(("default".parse().expect("a name"), Map::new()));
    }
    named
}

/// What must have happened to which service before this one starts.
pub(super) fn depends_on(fields: Fields) -> BTreeMap<ServiceName, Condition> {
    match fields.get("depends_on") {
        Some(Value::Object(map)) => map
            .iter()
            .filter_map(|(name, how)| {
                let condition = match how.get("condition").and_then(Value::as_str) {
                    Some("service_healthy") => Condition::Healthy,
                    Some("service_completed_successfully") => Condition::Completed,
                    _ => Condition::Started,
                };
                Some((name.parse().ok()?, condition))
            })
            .collect(),
        _ => fields
            .list("depends_on")
            .into_iter()
            .filter_map(|name| Some((name.parse().ok()?, Condition::Started)))
            .collect(),
    }
}

/// How a service joins one network.
pub(super) fn endpoint(service: &ServiceName, settings: &Map<String, Value>) -> EndpointSettings {
    let fields = Fields(settings);
    let mut aliases = fields.list("aliases");
    if !aliases.iter().any(|alias| alias == service.as_str()) {
        aliases.push(service.to_string());
    }
    let address = fields.text("ipv4_address");
    let ipam = address.map(|ipv4_address| EndpointIpam { ipv4_address, ..Default::default() });
    EndpointSettings { aliases: Some(aliases), ipam_config: ipam, ..EndpointSettings::default() }
}

/// The parts of a create request that do not come from the compose service itself.
pub(super) struct Given {
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub binds: Vec<String>,
    pub mounts: Mounts,
    pub network_mode: String,
    pub endpoints: Vec<(NetworkKey, EndpointSettings)>,
}

/// The whole create request but the image.
pub(super) fn body(fields: Fields, given: Given, warnings: &mut Warnings) -> CreateContainer {
    let port_bindings = ports::bindings(fields, warnings);
    let exposed = port_bindings.keys().cloned();
    let config = ContainerConfig {
        hostname: fields.text("hostname").unwrap_or_default(),
        domainname: fields.text("domainname").unwrap_or_default(),
        user: fields.text("user").unwrap_or_default(),
        exposed_ports: minke_engine_client::wire::set_of(exposed),
        tty: fields.truth("tty").unwrap_or(true),
        env: given.env,
        cmd: fields.words("command"),
        entrypoint: fields.words("entrypoint"),
        healthcheck: health(fields),
        volumes: given.mounts.anonymous.clone(),
        working_dir: fields.text("working_dir").unwrap_or_default(),
        labels: given.labels,
        mac_address: fields.text("mac_address").unwrap_or_default(),
        stop_signal: fields.text("stop_signal").unwrap_or_default(),
        stop_timeout: fields.duration("stop_grace_period").map(|nanos| nanos / 1_000_000_000),
        ..ContainerConfig::default()
    };
    let mut binds = given.mounts.binds.clone();
    binds.extend(given.binds);
    let host_config = HostConfig {
        binds,
        tmpfs: given.mounts.tmpfs.clone(),
        network_mode: given.network_mode,
        port_bindings,
        ..host_config(fields, warnings)
    };
    let endpoints_config = given.endpoints.into_iter().map(|(key, e)| (key, Some(e))).collect();
    CreateContainer {
        config,
        host_config,
        networking_config: NetworkingConfig { endpoints_config },
    }
}

/// `pid` or `ipc`. That of another service is left out: the engine knows no services.
fn namespace_mode(fields: Fields, key: &str, warnings: &mut Warnings) -> Option<String> {
    let mode = fields.text(key)?;
    if mode.starts_with("service:") {
        warnings.push(format!("the {key} mode {mode:?} is not supported"));
        return None;
    }
    Some(mode)
}

fn host_config(fields: Fields, warnings: &mut Warnings) -> HostConfig {
    let extra_hosts = fields.get("extra_hosts").map(|hosts| match hosts {
        Value::Object(_) => {
            pairs(hosts).into_iter().map(|(name, address)| format!("{name}:{address}")).collect()
        }
        _ => fields.list("extra_hosts").iter().map(|host| host.replacen('=', ":", 1)).collect(),
    });
    HostConfig {
        restart_policy: restart(fields, warnings),
        cap_add: fields.list("cap_add"),
        cap_drop: fields.list("cap_drop"),
        dns: fields.list("dns"),
        dns_options: fields.list("dns_opt"),
        dns_search: fields.list("dns_search"),
        extra_hosts: extra_hosts.unwrap_or_default(),
        group_add: fields.list("group_add"),
        ipc_mode: namespace_mode(fields, "ipc", warnings).unwrap_or_else(|| "shareable".to_owned()),
        oom_score_adj: fields.number("oom_score_adj").unwrap_or(0),
        pid_mode: namespace_mode(fields, "pid", warnings).unwrap_or_default(),
        privileged: fields.truth("privileged").unwrap_or(false),
        readonly_rootfs: fields.truth("read_only").unwrap_or(false),
        security_opt: fields.list("security_opt"),
        userns_mode: fields.text("userns_mode").unwrap_or_default(),
        shm_size: fields.bytes("shm_size").unwrap_or(64 * 1024 * 1024),
        sysctls: fields.map("sysctls"),
        init: fields.truth("init"),
        resources: resources(fields),
        mounts: Vec::<Mount>::new(),
        ..HostConfig::default()
    }
}

fn resources(fields: Fields) -> Resources {
    let cpus: Option<f64> = fields.text("cpus").and_then(|text| text.parse().ok());
    Resources {
        cpu_shares: fields.number("cpu_shares").unwrap_or(0),
        cpu_quota: fields.number("cpu_quota").unwrap_or(0),
        nano_cpus: cpus.map_or(0, |cpus| (cpus * 1e9) as i64),
        cpuset_cpus: fields.text("cpuset").unwrap_or_default(),
        cgroup_parent: fields.text("cgroup_parent").unwrap_or_default(),
        memory: fields.bytes("mem_limit").unwrap_or(0),
        memory_reservation: fields.bytes("mem_reservation").unwrap_or(0),
        oom_kill_disable: fields.truth("oom_kill_disable"),
        pids_limit: fields.number("pids_limit"),
        devices: fields.list("devices").iter().map(|device| device_mapping(device)).collect(),
        ulimits: ulimits(fields),
        ..Resources::default()
    }
}

fn device_mapping(text: &str) -> DeviceMapping {
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default().to_owned();
    let (container, permissions) = match (parts.next(), parts.next()) {
        (Some(path), Some(permissions)) => (path.to_owned(), permissions.to_owned()),
        (Some(path), None) if path.starts_with('/') => (path.to_owned(), "rwm".to_owned()),
        (Some(permissions), None) => (host.clone(), permissions.to_owned()),
        _ => (host.clone(), "rwm".to_owned()),
    };
    DeviceMapping {
        path_on_host: host,
        path_in_container: container,
        cgroup_permissions: permissions,
    }
}

fn ulimits(fields: Fields) -> Vec<Ulimit> {
    let Some(Value::Object(limits)) = fields.get("ulimits") else { return Vec::new() };
    limits
        .iter()
        .filter_map(|(name, limit)| {
            let (soft, hard) = match limit {
                Value::Object(pair) => (Fields(pair).number("soft")?, Fields(pair).number("hard")?),
                one => {
                    let limit = scalar(one)?.parse().ok()?;
                    (limit, limit)
                }
            };
            Some(Ulimit { name: name.clone(), soft, hard })
        })
        .collect()
}

fn restart(fields: Fields, warnings: &mut Warnings) -> RestartPolicy {
    let policy = |name: &str| RestartPolicy { name: name.to_owned(), maximum_retry_count: 0 };
    match fields.get("restart") {
        // YAML reads a bare `no` as false.
        Some(Value::Bool(false)) => policy("no"),
        None => policy("always"),
        Some(value) => match scalar(value).as_deref() {
            Some(name @ ("no" | "always" | "unless-stopped" | "on-failure")) => policy(name),
            Some(name) if name.starts_with("on-failure:") => policy("on-failure"),
            _ => {
                warnings.push(format!("the restart policy {value} is not known; it is \"always\""));
                policy("always")
            }
        },
    }
}

fn health(fields: Fields) -> Option<HealthConfig> {
    let Some(Value::Object(check)) = fields.get("healthcheck") else { return None };
    let check = Fields(check);
    if check.truth("disable") == Some(true) {
        return Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() });
    }
    let test = match check.get("test") {
        Some(Value::String(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        Some(_) => check.list("test"),
        None => Vec::new(),
    };
    Some(HealthConfig {
        test,
        interval: check.duration("interval").unwrap_or(0),
        timeout: check.duration("timeout").unwrap_or(0),
        start_period: check.duration("start_period").unwrap_or(0),
        start_interval: check.duration("start_interval").unwrap_or(0),
        retries: check.number("retries").unwrap_or(0),
    })
}
