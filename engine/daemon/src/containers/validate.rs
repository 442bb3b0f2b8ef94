//! Checks what a container asks of its host. What this engine does not do is refused by name: a
//! container that silently lacks a limit or a device is worse than none.

use std::net::IpAddr;

use minke_engine_client::wire::{ContainerConfig, HostConfig, HostNetwork, Resources};
use minke_engine_runtime::limits;
use minke_engine_runtime::spec::{self, Seccomp};

use super::{cpusets, log_options, prepare, signals, sysctls};
use crate::daemon::CGROUP;
use crate::error::{Error, Result};
use crate::{apparmor, filters};

/// Smallest memory limit, bytes: the runtime helper itself needs about this much.
const LEAST_MEMORY: i64 = 6 << 20;

/// Checks the whole of a create request.
pub(crate) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    check_unsupported(host)?;
    check_words(host)?;
    sysctls::check(host)?;
    check_resources(&host.resources)?;
    check_network_mode(config, host)?;
    check_names(host)?;
    check_rights(host)?;
    check_restart_policy(host)?;
    check_health(config)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if config.stop_timeout.is_some_and(|seconds| seconds < -1) {
        return Err(Error::Invalid("StopTimeout must be -1 or more".to_owned()));
    }
    signals::parse(&config.stop_signal, signals::TERM)?;
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::Invalid(format!("invalid environment variable: {variable:?}")));
        }
    }
    Ok(())
}

fn unsupported(what: &str, value: &str) -> Error {
    Error::Invalid(format!("{what}: {value:?} is not supported by this engine"))
}

/// Refuses what this engine does not do, whatever the value.
fn check_unsupported(host: &HostConfig) -> Result<()> {
    let limits = &host.resources;
    let refused = [
        ("Cgroup", !host.cgroup.is_empty()),
        ("StorageOpt", !host.storage_opt.is_empty()),
        ("Isolation", !matches!(host.isolation.as_str(), "" | "default")),
        ("DeviceRequests", !limits.device_requests.is_empty()),
        ("CpuRealtimePeriod", limits.cpu_realtime_period != 0),
        ("CpuRealtimeRuntime", limits.cpu_realtime_runtime != 0),
        ("KernelMemory", limits.kernel_memory > 0),
        ("KernelMemoryTCP", limits.kernel_memory_tcp > 0),
        ("CpuCount", limits.cpu_count != 0),
        ("CpuPercent", limits.cpu_percent != 0),
        ("IOMaximumIOps", limits.io_maximum_iops != 0),
        ("IOMaximumBandwidth", limits.io_maximum_bandwidth != 0),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(Error::Invalid(format!("HostConfig.{name} is not supported by this engine")))
        }
        None => Ok(()),
    }
}

fn check_words(host: &HostConfig) -> Result<()> {
    let one_of = |what: &str, value: &str, known: &[&str]| {
        let shared = value.strip_prefix("container:").is_some_and(|name| !name.is_empty());
        let ok = known.contains(&value) || (shared && known.contains(&"container:"));
        if ok { Ok(()) } else { Err(unsupported(what, value)) }
    };
    one_of("Runtime", &host.runtime, &["", "minke", "runc", "io.containerd.runc.v2"])?;
    one_of("UsernsMode", &host.userns_mode, &["", "host"])?;
    one_of("UTSMode", &host.uts_mode, &["", "host", "private"])?;
    one_of("PidMode", &host.pid_mode, &["", "host", "private", "container:"])?;
    let ipc = ["", "none", "private", "shareable", "host", "container:"];
    one_of("IpcMode", &host.ipc_mode, &ipc)?;
    one_of("CgroupnsMode", &host.cgroupns_mode, &["", "private", "host"])?;
    log_options::read(host)?;
    for option in &host.security_opt {
        if let SecurityOption::Seccomp(Seccomp::Profile(text)) = security_option(option)? {
            filters::check(&text)?;
        }
    }
    let parent = &host.resources.cgroup_parent;
    if !parent.is_empty() && (!parent.starts_with('/') || parent.contains("..")) {
        return Err(unsupported("CgroupParent", parent));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::Invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(Error::Invalid("SHM size can not be less than 0".to_owned()));
    }
    Ok(())
}

/// What one of `SecurityOpt` asks for.
pub(crate) enum SecurityOption {
    NoNewPrivileges(bool),
    Seccomp(Seccomp),
    /// A profile that the kernel has; empty: none.
    AppArmor(String),
    /// Nothing masked, nothing read-only in /proc and /sys.
    OpenSystemPaths,
    /// SELinux's: nothing where the kernel does not label.
    Label,
}

/// Reads one of `SecurityOpt`.
pub(crate) fn security_option(option: &str) -> Result<SecurityOption> {
    let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    Ok(match (name, value) {
        ("no-new-privileges", "" | "true") => SecurityOption::NoNewPrivileges(true),
        ("no-new-privileges", "false") => SecurityOption::NoNewPrivileges(false),
        ("seccomp", "unconfined") => SecurityOption::Seccomp(Seccomp::Unconfined),
        ("seccomp", "") => {
            return Err(Error::Invalid("Decoding seccomp profile failed: it is empty".to_owned()));
        }
        ("seccomp", "builtin") => SecurityOption::Seccomp(Seccomp::Default),
        ("seccomp", text) => SecurityOption::Seccomp(Seccomp::Profile(text.to_owned())),
        ("systempaths", "unconfined") => SecurityOption::OpenSystemPaths,
        ("label", _) => SecurityOption::Label,
        ("apparmor", "unconfined") => SecurityOption::AppArmor(String::new()),
        ("apparmor", profile) if apparmor::has(profile) => {
            SecurityOption::AppArmor(profile.to_owned())
        }
        ("apparmor", profile) => {
            return Err(Error::Invalid(format!(
                "apparmor profile {profile:?} is not loaded on this host"
            )));
        }
        _ => return Err(unsupported("security option", option)),
    })
}

/// Checks limits; also of an update.
pub(crate) fn check_resources(limits: &Resources) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if limits.memory_swap > 0 && limits.memory == 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit");
    }
    if limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit");
    }
    if limits.memory_reservation > 0
        && limits.memory > 0
        && limits.memory < limits.memory_reservation
    {
        return invalid("Minimum memory limit can not be less than memory reservation limit");
    }
    if limits.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
        return invalid("Invalid value for memory swappiness: valid range is 0-100");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if limits.nano_cpus < 0 || limits.nano_cpus as u128 > cores as u128 * 1_000_000_000 {
        return Err(Error::Invalid(format!(
            "range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available"
        )));
    }
    if limits.nano_cpus > 0 && (limits.cpu_period > 0 || limits.cpu_quota > 0) {
        return invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
        );
    }
    if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    let of_devices = limits.blkio_weight_device.iter().map(|d| ("BlkioWeightDevice", d.weight));
    for (name, weight) in of_devices.chain([("BlkioWeight", limits.blkio_weight)]) {
        if weight != 0 && !(10..=1000).contains(&weight) {
            return Err(Error::Invalid(format!(
                "HostConfig.{name}: Range of blkio weight is from 10 to 1000"
            )));
        }
    }
    check_block_support(limits)?;
    if limits.cpu_shares < 0 {
        return invalid("CpuShares can not be less than 0");
    }
    cpusets::check(&limits.cpuset_cpus, &limits.cpuset_mems)
}

/// Refuses limits of block devices that this kernel lacks. Which it has is looked up when one is asked
/// for: it changes with the modules that are loaded.
fn check_block_support(limits: &Resources) -> Result<()> {
    let rates = [
        ("BlkioDeviceReadBps", &limits.blkio_device_read_bps),
        ("BlkioDeviceWriteBps", &limits.blkio_device_write_bps),
        ("BlkioDeviceReadIOps", &limits.blkio_device_read_iops),
        ("BlkioDeviceWriteIOps", &limits.blkio_device_write_iops),
    ];
    let rate = rates.into_iter().find(|(_, devices)| !devices.is_empty());
    let weights = limits.blkio_weight != 0 || !limits.blkio_weight_device.is_empty();
    if rate.is_none() && !weights {
        return Ok(());
    }
    let support = limits::probe_block(CGROUP).map_err(Error::system("asking for block limits"))?;
    let refused = [
        ("BlkioWeight", limits.blkio_weight != 0 && !support.weight, "no weights at disks"),
        (
            "BlkioWeightDevice",
            !limits.blkio_weight_device.is_empty() && !support.weight_device,
            "no weights at single disks",
        ),
        (
            rate.map_or("", |(name, _)| name),
            rate.is_some() && !support.throttle,
            "no rates of disks (CONFIG_BLK_DEV_THROTTLING)",
        ),
    ];
    match refused.iter().find(|(_, lacks, _)| *lacks) {
        Some((name, _, what)) => Err(Error::Invalid(format!(
            "HostConfig.{name} cannot be had: this kernel has {what}, or no cgroup for them is mounted"
        ))),
        None => Ok(()),
    }
}

/// Checks what a container in a user namespace may not have.
pub(crate) fn check_user_namespace(host: &HostConfig) -> Result<()> {
    if host.userns_mode == "host" {
        return Ok(());
    }
    let refuse = |what: &str| {
        Err(Error::Invalid(format!(
            "{what} when user namespaces are enabled: ask for the host's (UsernsMode \"host\")"
        )))
    };
    if host.privileged {
        return refuse("privileged mode is incompatible with user namespaces: it cannot be had");
    }
    if host.network() == HostNetwork::Host {
        return refuse("cannot share the host's network namespace");
    }
    if host.pid_mode == "host" {
        return refuse("cannot share the host PID namespace");
    }
    if host.ipc_mode == "host" {
        return refuse("cannot share the host IPC namespace");
    }
    Ok(())
}

fn check_network_mode(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let conflict = |what: &str| {
        Err(Error::Invalid(format!("conflicting options: {what} and the network mode")))
    };
    match host.network() {
        HostNetwork::Container(_) => {
            if !config.hostname.is_empty() {
                return conflict("hostname");
            }
            if !host.port_bindings.is_empty() || host.publish_all_ports {
                return conflict("port publishing");
            }
            if !config.exposed_ports.is_empty() {
                return conflict("port exposing");
            }
            if !host.dns.is_empty() {
                return conflict("dns");
            }
            if !host.extra_hosts.is_empty() {
                return conflict("custom host-to-IP mapping");
            }
            Ok(())
        }
        HostNetwork::Host if host.uts_mode == "host" && !config.hostname.is_empty() => {
            conflict("hostname")
        }
        _ => Ok(()),
    }
}

/// Checks what is written into `/etc/hosts` and `/etc/resolv.conf`.
fn check_names(host: &HostConfig) -> Result<()> {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    for entry in &host.extra_hosts {
        let bad = || Error::Invalid(format!("bad format for add-host: {entry:?}"));
        let (name, address) = entry.split_once(['=', ':']).ok_or_else(bad)?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        if address != "host-gateway" && !is_address(address) {
            return Err(Error::Invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    // With the name of an interface, which an address of one link needs.
    let is_server = |text: &String| {
        let (address, interface) = text.split_once('%').unwrap_or((text, ""));
        is_address(address) && !interface.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if let Some(server) = host.dns.iter().find(|server| !is_server(server)) {
        return Err(Error::Invalid(format!("bad nameserver address: {server:?}")));
    }
    for (what, list) in [("DnsOptions", &host.dns_options), ("DnsSearch", &host.dns_search)] {
        if let Some(bad) = list.iter().find(|text| text.contains(char::is_control)) {
            return Err(Error::Invalid(format!("invalid value {bad:?} in {what}")));
        }
    }
    Ok(())
}

/// Checks names of capabilities and of limits of processes.
fn check_rights(host: &HostConfig) -> Result<()> {
    for (what, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        if let Some(name) = names.iter().find(|name| !spec::is_capability(name)) {
            return Err(Error::Invalid(format!("invalid {what}: unknown capability: {name:?}")));
        }
    }
    Ok(spec::check_ulimits(prepare::ulimits(host))?)
}

fn check_restart_policy(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    check_policy(&policy.name, policy.maximum_retry_count)?;
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::Invalid(
            "can't create 'AutoRemove' container with restart policy".to_owned(),
        ));
    }
    Ok(())
}

/// Checks a restart policy; also of an update.
pub(crate) fn check_policy(name: &str, retries: i64) -> Result<()> {
    let text = match (name, retries) {
        ("on-failure", 0..) | ("" | "no" | "always" | "unless-stopped", 0) => return Ok(()),
        ("on-failure", _) => "invalid restart policy: maximum retry count cannot be negative",
        ("" | "no" | "always" | "unless-stopped", _) => {
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        }
        _ => {
            return Err(Error::Invalid(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    Err(Error::Invalid(text.to_owned()))
}

fn check_health(config: &ContainerConfig) -> Result<()> {
    let Some(health) = &config.healthcheck else { return Ok(()) };
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < 1_000_000 {
            return Err(Error::Invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(Error::Invalid("Retries in Healthcheck cannot be negative".to_owned()));
    }
    match health.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => {
            Err(Error::Invalid(format!("Unknown type {other:?} in Healthcheck (try 'CMD')")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_engine_client::wire::CreateContainer;

    fn check_json(text: &str) -> Result<()> {
        let body: CreateContainer = serde_json::from_str(text).unwrap();
        check(&body.config, &body.host_config)
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_by_name() {
        let refused = |host: &str, name: &str| {
            let error = check_json(&format!(r#"{{"HostConfig":{host}}}"#)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        };
        refused(r#"{"DeviceRequests":[{"Count":-1}]}"#, "DeviceRequests");
        refused(r#"{"KernelMemory":1000000}"#, "KernelMemory");
        refused(r#"{"SecurityOpt":["seccomp={"]}"#, "Decoding seccomp profile failed");
        refused(r#"{"SecurityOpt":["apparmor=no-such"]}"#, "no-such");
        refused(r#"{"BlkioWeight":5}"#, "blkio weight");
        refused(r#"{"LogConfig":{"Type":"journald"}}"#, "journald");
        refused(r#"{"Runtime":"nvidia"}"#, "nvidia");
        refused(r#"{"Memory":1000}"#, "6MB");
        refused(r#"{"NanoCpus":1000000000000}"#, "range of CPUs");
        refused(r#"{"RestartPolicy":{"Name":"sometimes"}}"#, "sometimes");
        refused(r#"{"ExtraHosts":["foo"]}"#, "bad format for add-host");
        refused(r#"{"ExtraHosts":["a b:10.0.0.1"]}"#, "bad format for add-host");
        refused(r#"{"ExtraHosts":["bar:notanip"]}"#, "invalid IP address in add-host");
        refused(r#"{"Dns":["not-an-ip"]}"#, "bad nameserver address");
        refused(r#"{"DnsOptions":["ndots:1\nnameserver 10.0.0.1"]}"#, "DnsOptions");
        refused(r#"{"CapAdd":["FLY"]}"#, "invalid CapAdd: unknown capability");
        refused(r#"{"CapDrop":["FLY"]}"#, "invalid CapDrop: unknown capability");
        refused(r#"{"Ulimits":[{"Name":"luck","Soft":1,"Hard":1}]}"#, "unknown ulimit: luck");
        refused(r#"{"Ulimits":[{"Name":"core","Soft":2,"Hard":1}]}"#, "soft limit");
        refused(r#"{"CpusetCpus":"8000"}"#, "Requested CPUs are not available");
        refused(r#"{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#, "AutoRemove");
    }

    #[test]
    fn names_of_hosts_and_rights_are_taken_as_docker_takes_them() {
        check_json(
            r#"{"HostConfig":{"ExtraHosts":["a:10.0.0.1","b=::1","c:::1","up:host-gateway"],
            "Dns":["9.9.9.9","fe80::1%eth0"],"DnsOptions":["ndots:2"],"DnsSearch":["."],
            "CapAdd":["all","net_admin","CAP_MKNOD"],"CapDrop":["ALL"],"CpusetCpus":"0",
            "Ulimits":[{"Name":"nofile","Soft":10,"Hard":-1}]}}"#,
        )
        .unwrap();
    }

    #[test]
    fn what_a_go_client_sends_for_nothing_is_nothing() {
        check_json(
            r#"{"Env":null,"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},
            "ConsoleSize":[0,0],"Isolation":"","BlkioWeight":0,"BlkioWeightDevice":[],"DeviceRequests":null,
            "KernelMemory":0,"CpuRealtimePeriod":0,"IOMaximumBandwidth":0,"Cgroup":"","StorageOpt":null,
            "Init":null,"MaskedPaths":null,"PidsLimit":0,"OomKillDisable":false,"Memory":0}}"#,
        )
        .unwrap();
    }
}
