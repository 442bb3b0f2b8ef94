//! Which capabilities a container's processes get.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::{ContainerSpec, Facts, SpecError};

/// All that there are, in the order of their numbers in the kernel.
const ALL: [Capability; 41] = {
    use Capability::*;
    [
        Chown,
        DacOverride,
        DacReadSearch,
        Fowner,
        Fsetid,
        Kill,
        Setgid,
        Setuid,
        Setpcap,
        LinuxImmutable,
        NetBindService,
        NetBroadcast,
        NetAdmin,
        NetRaw,
        IpcLock,
        IpcOwner,
        SysModule,
        SysRawio,
        SysChroot,
        SysPtrace,
        SysPacct,
        SysAdmin,
        SysBoot,
        SysNice,
        SysResource,
        SysTime,
        SysTtyConfig,
        Mknod,
        Lease,
        AuditWrite,
        AuditControl,
        Setfcap,
        MacOverride,
        MacAdmin,
        Syslog,
        WakeAlarm,
        BlockSuspend,
        AuditRead,
        Perfmon,
        Bpf,
        CheckpointRestore,
    ]
};

/// A set as the kernel writes it: a bit per capability.
pub(crate) fn bits(set: &HashSet<Capability>) -> u64 {
    let bit = |it: &Capability| ALL.iter().position(|known| known == it).map_or(0, |at| 1 << at);
    set.iter().map(bit).fold(0, |all, bit: u64| all | bit)
}

/// The capabilities that Docker gives by default.
pub fn default_capabilities() -> HashSet<Capability> {
    use Capability::*;
    HashSet::from([
        Chown,
        DacOverride,
        Fsetid,
        Fowner,
        Mknod,
        NetRaw,
        Setgid,
        Setuid,
        Setfcap,
        Setpcap,
        NetBindService,
        SysChroot,
        Kill,
        AuditWrite,
    ])
}

fn parse(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    bare.parse().map_err(|_| SpecError::UnknownCapability(name.to_owned()))
}

/// Whether a container can be given this one, or be denied it; `ALL` is all.
pub fn is_capability(name: &str) -> bool {
    name.eq_ignore_ascii_case("all") || parse(name).is_ok()
}

/// The set a container gets, before what this process may not give is taken away.
fn wanted(container: &ContainerSpec) -> Result<HashSet<Capability>, SpecError> {
    if container.privileged {
        return Ok(ALL.into_iter().collect());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let mut set =
        if container.cap_drop.iter().any(is_all) { HashSet::new() } else { default_capabilities() };
    if container.cap_add.iter().any(is_all) {
        set = ALL.into_iter().collect();
    }
    for name in container.cap_drop.iter().filter(|name| !is_all(name)) {
        set.remove(&parse(name)?);
    }
    for name in container.cap_add.iter().filter(|name| !is_all(name)) {
        set.insert(parse(name)?);
    }
    Ok(set)
}

/// The sets of a process that runs as `uid`. Others than root keep them only as a bound.
pub(super) fn build(
    container: &ContainerSpec,
    facts: &Facts,
    uid: u32,
    privileged_exec: bool,
) -> Result<LinuxCapabilities, SpecError> {
    let mut set = if privileged_exec { ALL.into_iter().collect() } else { wanted(container)? };
    set.retain(|capability| {
        ALL.iter()
            .position(|c| c == capability)
            .is_some_and(|bit| facts.capabilities >> bit & 1 == 1)
    });
    let held = if uid == 0 { set.clone() } else { HashSet::new() };
    // Beside what it may use, the process keeps what installs the filter of system calls, until it has
    // been installed.
    let mut permitted = held.clone();
    permitted.insert(Capability::SysAdmin);
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .effective(held.clone())
        .permitted(permitted)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_dropping_as_docker_does() {
        let of = |add: &[&str], drop: &[&str]| {
            let strings = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
            let container = ContainerSpec {
                cap_add: strings(add),
                cap_drop: strings(drop),
                ..ContainerSpec::default()
            };
            wanted(&container)
        };
        assert_eq!(of(&[], &[]).unwrap(), default_capabilities());
        assert_eq!(of(&["net_admin"], &["ALL"]).unwrap(), HashSet::from([Capability::NetAdmin]));
        assert_eq!(of(&["all"], &["CAP_SYS_ADMIN"]).unwrap().len(), 40);
        assert!(!of(&[], &["MKNOD"]).unwrap().contains(&Capability::Mknod));
        assert!(
            matches!(of(&["FLY"], &[]), Err(SpecError::UnknownCapability(name)) if name == "FLY")
        );
    }

    #[test]
    fn what_this_process_lacks_is_not_asked_for() {
        let container = ContainerSpec { privileged: true, ..ContainerSpec::default() };
        let facts = Facts { capabilities: !(1 << 24), ..Facts::default() };
        let sets = build(&container, &facts, 0, false).unwrap();
        let bounding = sets.bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 40);
        assert!(!bounding.contains(&Capability::SysResource));
        let user = build(&container, &facts, 1000, false).unwrap();
        assert!(user.effective().as_ref().unwrap().is_empty());
    }
}
