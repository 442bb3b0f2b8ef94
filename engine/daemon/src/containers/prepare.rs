//! A container's documents as the runtime wants them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use minke_engine_client::wire::{HostConfig, HostNetwork, ThrottleDevice};
use minke_engine_runtime::spec::{
    BlockRate, BlockWeight, ContainerSpec, DeviceRequest, Mount, MountKind as SpecMount, Namespace,
    NetNamespace, Resources, Ulimit, UserNamespace,
};

use super::container::Container;
use super::document::{ConfigDocument, MountDocument, MountKind};
use super::validate::{self, SecurityOption};
use super::{links, shm, subpaths, sysctls};
use crate::apparmor;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::users::{self, Users};

/// The files that are mounted over the image's.
pub(crate) const OWN_FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// Where containers that ask for an init find it.
const INIT: &str = "/sbin/docker-init";

/// What the runtime is told of a container that starts.
pub(crate) fn spec(daemon: &Daemon, container: &Container) -> Result<ContainerSpec> {
    let document = container.lock().config.clone();
    let host = &document.host_config;
    let mut spec = ContainerSpec {
        network: network(daemon, &document)?,
        pid: shared(daemon, &host.pid_mode, "pid")?,
        ipc: shared(daemon, &host.ipc_mode, "ipc")?,
        uts: shared(daemon, &host.uts_mode, "uts")?,
        cgroup_namespace: match host.cgroupns_mode.as_str() {
            "host" => Some(Namespace::Host),
            "private" => Some(Namespace::Private),
            _ => None,
        },
        mounts: mounts(daemon, container, &document)?,
        devices: devices(host),
        device_cgroup_rules: host.resources.device_cgroup_rules.clone(),
        shm: shm::of(daemon, container, host)?,
        shm_size: host.shm_size.max(0) as u64,
        sysctls: sysctls::of(host, container.has_own_network(), users::of(daemon, host).is_some()),
        ..spec_of_processes(daemon, container)?
    };
    if host.init == Some(true) {
        let kind = SpecMount::Bind {
            source: daemon.init_program()?,
            recursive: false,
            propagation: String::new(),
            own_ids: true,
        };
        spec.mounts.push(Mount { kind, target: INIT.to_owned(), readonly: true });
        spec.args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    Ok(spec)
}

/// The part of it that each of the container's processes needs: nothing of what it shares with others, who
/// may have gone by now.
pub(super) fn spec_of_processes(daemon: &Daemon, container: &Container) -> Result<ContainerSpec> {
    let document = container.lock().config.clone();
    let host = &document.host_config;
    let config = &document.config;
    let mut args = config.entrypoint.clone().unwrap_or_default();
    args.extend(config.cmd.clone().unwrap_or_default());
    let mut spec = ContainerSpec {
        id: container.id.clone(),
        rootfs: container.rootfs(),
        readonly_rootfs: host.readonly_rootfs,
        args,
        // `NAME` alone only takes the image's variable away.
        env: environment(daemon, &document),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        group_add: host.group_add.clone(),
        tty: config.tty,
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user_namespace: user_namespace(daemon, container)?,
        privileged: host.privileged,
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        resources: resources(&host.resources),
        oom_score_adj: i32::try_from(host.oom_score_adj).unwrap_or_default(),
        ulimits: ulimits(host),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        cgroup_path: cgroup_path(daemon, host, &container.id),
        apparmor: apparmor::default_profile(host.privileged),
        ..ContainerSpec::default()
    };
    for option in &host.security_opt {
        match validate::security_option(option)? {
            SecurityOption::NoNewPrivileges(on) => spec.no_new_privileges = on,
            SecurityOption::Seccomp(seccomp) => spec.seccomp = seccomp,
            SecurityOption::AppArmor(profile) => spec.apparmor = profile,
            SecurityOption::OpenSystemPaths => {
                spec.masked_paths = Some(Vec::new());
                spec.readonly_paths = Some(Vec::new());
            }
            SecurityOption::Label => {}
        }
    }
    Ok(spec)
}

fn environment(daemon: &Daemon, document: &ConfigDocument) -> Vec<String> {
    let own = document.config.env.iter().filter(|variable| variable.contains('=')).cloned();
    let mut all: Vec<String> = own.collect();
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = all.iter().map(|variable| name_of(variable)).collect();
    let links = links::variables(daemon, &document.name, &document.host_config.links);
    all.extend(links.into_iter().filter(|variable| !known.contains(&name_of(variable))));
    all
}

fn cgroup_path(daemon: &Daemon, host: &HostConfig, id: &str) -> String {
    match host.resources.cgroup_parent.trim_end_matches('/') {
        "" => format!("{}/{id}", daemon.cgroup_parent()),
        parent => format!("{parent}/{id}"),
    }
}

fn network(daemon: &Daemon, document: &ConfigDocument) -> Result<NetNamespace> {
    Ok(match document.host_config.network() {
        HostNetwork::Host => NetNamespace::Host,
        HostNetwork::Container(other) => NetNamespace::Path(namespace_of(daemon, other, "net")?),
        _ => NetNamespace::Path(daemon.networks.namespace(&document.id)?.netns),
    })
}

/// Where the container's user namespace is.
pub(super) fn user_namespace(
    daemon: &Daemon,
    container: &Container,
) -> Result<Option<UserNamespace>> {
    let host = container.lock().config.host_config.clone();
    let Some(range) = users::of(daemon, &host) else { return Ok(None) };
    let path = daemon.networks.namespace(&container.id)?.user;
    Ok(Some(UserNamespace { path, first: range.first }))
}

/// Whose users a container gets: its own, or those of the container whose other namespaces it joins,
/// because who owns a namespace decides who may enter it. `None`: the host's.
pub(super) fn users(daemon: &Daemon, host: &HostConfig) -> Result<Option<Users>> {
    let Some(range) = users::of(daemon, host) else { return Ok(None) };
    let modes = [&host.network_mode, &host.pid_mode, &host.ipc_mode];
    match modes.into_iter().find_map(|mode| mode.strip_prefix("container:")) {
        Some(other) => Ok(Some(Users::Of(namespace_of(daemon, other, "user")?))),
        None => Ok(Some(Users::New(range))),
    }
}

/// A namespace that is private, the host's, or another container's.
fn shared(daemon: &Daemon, mode: &str, kind: &str) -> Result<Namespace> {
    match mode.strip_prefix("container:") {
        Some(other) => Ok(Namespace::Path(namespace_of(daemon, other, kind)?)),
        None if mode == "host" => Ok(Namespace::Host),
        None => Ok(Namespace::Private),
    }
}

/// The file of a namespace of a running container.
pub(crate) fn namespace_of(daemon: &Daemon, name: &str, kind: &str) -> Result<PathBuf> {
    let other = daemon.containers.find(name)?;
    let pid = other.lock().state.pid;
    if pid == 0 {
        return Err(Error::Conflict(format!(
            "cannot join the {kind} namespace of a container that is not running: {}",
            other.id
        )));
    }
    Ok(PathBuf::from(format!("/proc/{pid}/ns/{kind}")))
}

fn mounts(daemon: &Daemon, container: &Container, document: &ConfigDocument) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let files = match document.host_config.network() {
        HostNetwork::Container(other) => daemon.containers.find(other)?.dir.clone(),
        _ => container.dir.clone(),
    };
    for (file, target) in OWN_FILES {
        let own = document.mounts.iter().any(|mount| mount.target == target);
        let source = files.join(file);
        if !own && source.exists() {
            mounts.push(Mount {
                kind: SpecMount::Bind {
                    source,
                    recursive: false,
                    propagation: String::new(),
                    own_ids: true,
                },
                target: target.to_owned(),
                readonly: false,
            });
        }
    }
    for (number, mount) in document.mounts.iter().enumerate() {
        let part = subpaths::place(daemon, &container.id, number);
        mounts.push(spec_mount(daemon, mount, part));
    }
    Ok(mounts)
}

/// `part`: where a part of a volume is mounted.
fn spec_mount(daemon: &Daemon, mount: &MountDocument, part: PathBuf) -> Mount {
    let kind = match mount.kind {
        MountKind::Tmpfs => SpecMount::Tmpfs { options: mount.options.clone() },
        MountKind::Bind => SpecMount::Bind {
            source: PathBuf::from(&mount.source),
            recursive: !mount.non_recursive,
            propagation: mount.propagation.clone(),
            own_ids: false,
        },
        MountKind::Volume => SpecMount::Bind {
            source: match mount.subpath.is_empty() {
                true => daemon.volumes.data(&mount.volume),
                false => part,
            },
            recursive: true,
            propagation: mount.propagation.clone(),
            own_ids: true,
        },
    };
    Mount { kind, target: mount.target.clone(), readonly: mount.read_only }
}

fn devices(host: &HostConfig) -> Vec<DeviceRequest> {
    let devices = host.resources.devices.iter();
    devices
        .map(|device| DeviceRequest {
            host: PathBuf::from(&device.path_on_host),
            container: match device.path_in_container.as_str() {
                "" => device.path_on_host.clone(),
                path => path.to_owned(),
            },
            permissions: device.cgroup_permissions.clone(),
        })
        .collect()
}

pub(super) fn ulimits(host: &HostConfig) -> Vec<Ulimit> {
    let limits = host.resources.ulimits.iter();
    limits
        .map(|limit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
        .collect()
}

fn rates(devices: &[ThrottleDevice]) -> Vec<BlockRate> {
    devices
        .iter()
        .map(|device| BlockRate { path: PathBuf::from(&device.path), rate: device.rate })
        .collect()
}

/// Limits as the runtime has them.
pub(super) fn resources(limits: &minke_engine_client::wire::Resources) -> Resources {
    let some = |value: i64| (value != 0).then_some(value);
    Resources {
        memory: some(limits.memory),
        memory_swap: some(limits.memory_swap),
        memory_reservation: some(limits.memory_reservation),
        memory_swappiness: limits.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: limits.oom_kill_disable.unwrap_or(false),
        nano_cpus: limits.nano_cpus,
        cpu_shares: limits.cpu_shares.max(0) as u64,
        cpu_period: limits.cpu_period.max(0) as u64,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        pids: limits.pids_limit.map(|limit| if limit > 0 { limit } else { -1 }),
        blkio_weight: limits.blkio_weight,
        blkio_weight_device: limits
            .blkio_weight_device
            .iter()
            .map(|device| BlockWeight { path: PathBuf::from(&device.path), weight: device.weight })
            .collect(),
        blkio_read_bps: rates(&limits.blkio_device_read_bps),
        blkio_write_bps: rates(&limits.blkio_device_write_bps),
        blkio_read_iops: rates(&limits.blkio_device_read_iops),
        blkio_write_iops: rates(&limits.blkio_device_write_iops),
    }
}
