//! The Linux part: namespaces, cgroup, limits, devices, masked paths, kernel parameters.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxMemory, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};

use super::{
    BlockRate, ContainerSpec, Facts, MountKind, Namespace, NetNamespace, Resources, SpecError,
    defaults, devices,
};

/// Length of the CPU period that `nano_cpus` is turned into, microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Build it.
pub(super) fn build(container: &ContainerSpec, facts: &Facts) -> Result<Linux, SpecError> {
    if !container.cgroup_path.starts_with('/') {
        let value = container.cgroup_path.clone();
        return Err(SpecError::Invalid { what: "cgroup path", value });
    }
    let paths = |own: &Option<Vec<String>>, default: &[&str]| match own {
        Some(paths) => paths.clone(),
        None if container.privileged => Vec::new(),
        None => default.iter().map(|path| path.to_string()).collect(),
    };
    let mut readonly = paths(&container.readonly_paths, &defaults::READONLY_PATHS);
    if !container.privileged && !facts.hierarchies.is_empty() {
        // libcontainer takes no notice of their mount's `ro`; who writes there lifts its own limits.
        readonly.push("/sys/fs/cgroup".to_owned());
        readonly.extend(facts.hierarchies.iter().map(|name| format!("/sys/fs/cgroup/{name}")));
    }
    let sysctls = container.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(container, facts)?))
        .set_cgroups_path(Some(container.cgroup_path.clone().into()))
        .set_resources(Some(resources(container, facts)?))
        .set_devices(Some(devices::nodes(container, facts)?))
        .set_sysctl(Some(sysctls))
        .set_masked_paths(Some(paths(&container.masked_paths, &defaults::MASKED_PATHS)))
        .set_readonly_paths(Some(readonly))
        .set_rootfs_propagation(root_propagation(container))
        .set_seccomp(None);
    Ok(linux)
}

/// A shared mount can only be shared if the root is.
fn root_propagation(container: &ContainerSpec) -> Option<String> {
    let has = |names: [&str; 2]| {
        container.mounts.iter().any(|mount| match &mount.kind {
            MountKind::Bind { propagation, .. } => names.contains(&propagation.as_str()),
            MountKind::Tmpfs { .. } => false,
        })
    };
    if has(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if has(["slave", "rslave"]) {
        Some("slave".to_owned())
    } else {
        None
    }
}

fn namespace(kind: LinuxNamespaceType, path: Option<&Path>) -> Result<LinuxNamespace, SpecError> {
    let mut built = LinuxNamespaceBuilder::default().typ(kind);
    if let Some(path) = path {
        built = built.path(PathBuf::from(path));
    }
    Ok(built.build()?)
}

fn namespaces(container: &ContainerSpec, facts: &Facts) -> Result<Vec<LinuxNamespace>, SpecError> {
    let cgroup = container.cgroup_namespace.clone().unwrap_or(match facts.cgroup_v2 {
        true => Namespace::Private,
        false => Namespace::Host,
    });
    let mut list = vec![namespace(LinuxNamespaceType::Mount, None)?];
    if let Some(user) = &container.user_namespace {
        list.push(namespace(LinuxNamespaceType::User, Some(&user.path))?);
    }
    for (kind, wanted) in [
        (LinuxNamespaceType::Pid, &container.pid),
        (LinuxNamespaceType::Ipc, &container.ipc),
        (LinuxNamespaceType::Uts, &container.uts),
        (LinuxNamespaceType::Cgroup, &cgroup),
    ] {
        match wanted {
            Namespace::Private => list.push(namespace(kind, None)?),
            Namespace::Path(path) => list.push(namespace(kind, Some(path))?),
            Namespace::Host => {}
        }
    }
    match &container.network {
        NetNamespace::Private => list.push(namespace(LinuxNamespaceType::Network, None)?),
        NetNamespace::Path(path) => {
            list.push(namespace(LinuxNamespaceType::Network, Some(path))?);
        }
        NetNamespace::Host => {}
    }
    Ok(list)
}

/// Limits and device rules as the cgroup gets them.
fn resources(container: &ContainerSpec, facts: &Facts) -> Result<LinuxResources, SpecError> {
    let built = limits(&container.resources, facts)?;
    Ok(built.devices(devices::rules(container, facts)?).build()?)
}

/// Limits alone.
pub(super) fn limits(
    limits: &Resources,
    facts: &Facts,
) -> Result<LinuxResourcesBuilder, SpecError> {
    let mut built = LinuxResourcesBuilder::default().memory(memory(limits, facts)).cpu(cpu(limits));
    if let Some(pids) = limits.pids.filter(|limit| *limit != 0) {
        built = built.pids(LinuxPidsBuilder::default().limit(pids).build()?);
    }
    if let Some(block) = block(limits, facts)? {
        built = built.block_io(block);
    }
    Ok(built)
}

fn memory(limits: &Resources, facts: &Facts) -> LinuxMemory {
    let limit = limits.memory.filter(|bytes| *bytes != 0);
    // Twice the memory, unless stated: Docker's rule.
    let swap = match (limit, limits.memory_swap.filter(|bytes| *bytes != 0)) {
        _ if !facts.swap_accounting => None,
        // There is no limit of swap without one of memory, and none is what -1 asks for.
        (None, _) => None,
        (_, Some(stated)) => Some(stated),
        (Some(bytes), None) if bytes > 0 => Some(bytes.saturating_mul(2)),
        (Some(_), None) => None,
    };
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(limit)
        .set_swap(swap)
        .set_reservation(limits.memory_reservation.filter(|bytes| *bytes != 0))
        .set_swappiness(limits.memory_swappiness.filter(|_| !facts.cgroup_v2))
        .set_disable_oom_killer((limits.oom_kill_disable && !facts.cgroup_v2).then_some(true));
    memory
}

fn cpu(limits: &Resources) -> LinuxCpu {
    let (period, quota) = if limits.nano_cpus > 0 {
        let quota = limits.nano_cpus as i128 * CPU_PERIOD as i128 / 1_000_000_000;
        (Some(CPU_PERIOD), Some(i64::try_from(quota).unwrap_or(i64::MAX).max(1000)))
    } else {
        (
            Some(limits.cpu_period).filter(|us| *us != 0),
            Some(limits.cpu_quota).filter(|us| *us != 0),
        )
    };
    let text = |list: &String| (!list.is_empty()).then(|| list.clone());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(limits.cpu_shares).filter(|shares| *shares != 0))
        .set_period(period)
        .set_quota(quota)
        .set_cpus(text(&limits.cpuset_cpus))
        .set_mems(text(&limits.cpuset_mems));
    cpu
}

fn block(limits: &Resources, facts: &Facts) -> Result<Option<LinuxBlockIo>, SpecError> {
    let numbers = |path: &PathBuf| {
        facts.block_devices.get(path).copied().ok_or_else(|| SpecError::NoBlockDevice(path.clone()))
    };
    let rates = |rates: &[BlockRate]| -> Result<Vec<LinuxThrottleDevice>, SpecError> {
        let one = |rate: &BlockRate| {
            let (major, minor) = numbers(&rate.path)?;
            let built = LinuxThrottleDeviceBuilder::default().major(major).minor(minor);
            Ok(built.rate(rate.rate).build()?)
        };
        rates.iter().map(one).collect()
    };
    let mut weights = Vec::new();
    for weight in &limits.blkio_weight_device {
        let (major, minor) = numbers(&weight.path)?;
        let built = LinuxWeightDeviceBuilder::default().major(major).minor(minor);
        weights.push(built.weight(weight.weight).build()?);
    }
    let mut built = LinuxBlockIoBuilder::default()
        .throttle_read_bps_device(rates(&limits.blkio_read_bps)?)
        .throttle_write_bps_device(rates(&limits.blkio_write_bps)?)
        .throttle_read_iops_device(rates(&limits.blkio_read_iops)?)
        .throttle_write_iops_device(rates(&limits.blkio_write_iops)?)
        .weight_device(weights);
    if limits.blkio_weight != 0 {
        built = built.weight(limits.blkio_weight);
    }
    let built = built.build()?;
    let lists = [
        built.throttle_read_bps_device(),
        built.throttle_write_bps_device(),
        built.throttle_read_iops_device(),
        built.throttle_write_iops_device(),
    ];
    let limited = lists.iter().any(|list| list.as_ref().is_some_and(|l| !l.is_empty()))
        || limits.blkio_weight != 0
        || !limits.blkio_weight_device.is_empty();
    Ok(limited.then_some(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: Resources) -> ContainerSpec {
        ContainerSpec { resources, cgroup_path: "/minke/e/c".into(), ..Default::default() }
    }

    #[test]
    fn cpus_become_a_quota() {
        let built = cpu(&Resources { nano_cpus: 1_500_000_000, ..Default::default() });
        assert_eq!((built.period(), built.quota()), (Some(100_000), Some(150_000)));
        let stated =
            cpu(&Resources { cpu_period: 50_000, cpu_quota: 25_000, ..Default::default() });
        assert_eq!((stated.period(), stated.quota()), (Some(50_000), Some(25_000)));
    }

    #[test]
    fn swap_is_twice_the_memory_where_it_can_be_limited() {
        let limits = Resources { memory: Some(64 << 20), ..Default::default() };
        let with = Facts { swap_accounting: true, ..Default::default() };
        assert_eq!(memory(&limits, &with).swap(), Some(128 << 20));
        assert_eq!(memory(&limits, &Facts::default()).swap(), None);
    }

    #[test]
    fn a_shared_namespace_is_left_out_or_named() {
        let mut spec = container(Resources::default());
        spec.pid = Namespace::Host;
        spec.network = NetNamespace::Path("/run/netns/x".into());
        let built = build(&spec, &Facts::default()).unwrap();
        let list = built.namespaces().as_ref().unwrap();
        assert!(!list.iter().any(|n| n.typ() == LinuxNamespaceType::Pid));
        let net = list.iter().find(|n| n.typ() == LinuxNamespaceType::Network).unwrap();
        assert_eq!(net.path().as_deref(), Some(Path::new("/run/netns/x")));
    }

    #[test]
    fn privileged_containers_see_everything() {
        let mut spec = container(Resources::default());
        spec.privileged = true;
        let built = build(&spec, &Facts::default()).unwrap();
        assert!(built.masked_paths().as_ref().unwrap().is_empty());
        let rules = built.resources().as_ref().unwrap().devices().as_ref().unwrap();
        assert!(rules.len() == 1 && rules[0].allow());
    }
}
