//! What is mounted in a container: Docker's defaults, then the container's own, outer ones first.

use std::collections::BTreeMap;

use oci_spec::runtime::{Mount as OciMount, MountBuilder};

use super::{
    ContainerSpec, Facts, Mount, MountKind, NetNamespace, Shm, SpecError, defaults, devices,
};
use crate::stage::MAPPED;

/// The mounts in the order in which they are to be made.
pub(super) fn build(container: &ContainerSpec, facts: &Facts) -> Result<Vec<OciMount>, SpecError> {
    // Keyed by depth and target: what is mounted on a target replaces the default there, and a mount
    // below another comes after it.
    let mut mounts: BTreeMap<(usize, String), OciMount> = BTreeMap::new();
    for mount in standard(container, facts)? {
        let target = mount.destination().to_string_lossy().into_owned();
        mounts.insert((depth(&target), target), mount);
    }
    for mount in devices::mounted(container, facts) {
        let target = target_of(&mount.target)?;
        mounts.insert((depth(&target), target.clone()), custom(&mount, target, false)?);
    }
    for mount in &container.mounts {
        let target = target_of(&mount.target)?;
        mounts.insert(
            (depth(&target), target.clone()),
            custom(mount, target, container.user_namespace.is_some())?,
        );
    }
    Ok(mounts.into_values().collect())
}

fn depth(target: &str) -> usize {
    target.bytes().filter(|b| *b == b'/').count()
}

fn target_of(text: &str) -> Result<String, SpecError> {
    match clean(text).as_str() {
        "/" => Err(SpecError::MountTarget(text.to_owned())),
        _ if !text.starts_with('/') => Err(SpecError::MountTarget(text.to_owned())),
        target => Ok(target.to_owned()),
    }
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(super) fn clean(target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<OciMount, SpecError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| o.to_string()).collect::<Vec<_>>())
        .build()?)
}

fn standard(container: &ContainerSpec, facts: &Facts) -> Result<Vec<OciMount>, SpecError> {
    let shm = match container.shm_size {
        0 => defaults::SHM_SIZE,
        size => size,
    };
    let shm_size = format!("size={shm}");
    let access = if container.privileged { "rw" } else { "ro" };
    let safe = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &safe)?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", &safe)?,
    ];
    match &container.shm {
        Shm::Private => {
            let options = ["nosuid", "noexec", "nodev", "mode=1777", &shm_size];
            mounts.push(mount("/dev/shm", "tmpfs", "shm", &options)?);
        }
        Shm::Shared(path) => {
            let path = path.to_string_lossy();
            mounts.push(mount("/dev/shm", "bind", &path, &["rbind", "rprivate"])?);
        }
        Shm::None => {}
    }
    let shows_hosts_sys =
        container.network == NetNamespace::Host && container.user_namespace.is_some();
    if shows_hosts_sys {
        // A sysfs can only be mounted by the owner of the network namespace. What the host has mounted
        // below its own comes along, and is as little to be written.
        let options = [
            "rbind", "rprivate", "nosuid", "noexec", "nodev", "ro", "rnosuid", "rnoexec", "rnodev",
            "rro",
        ];
        mounts.push(mount("/sys", "bind", "/sys", &options)?);
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?);
    }
    // With the host's cgroup namespace on version 2 that would show every cgroup of the host.
    if !shows_hosts_sys || facts.cgroup_v2 {
        mounts.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", access],
        )?);
    }
    Ok(mounts)
}

fn custom(mount: &Mount, target: String, can_map: bool) -> Result<OciMount, SpecError> {
    let access = if mount.readonly { "ro" } else { "rw" };
    let built = MountBuilder::default().destination(target);
    Ok(match &mount.kind {
        MountKind::Bind { source, recursive, propagation, own_ids } => {
            const KNOWN: [&str; 6] =
                ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
            let propagation = match propagation.as_str() {
                "" => "rprivate",
                known if KNOWN.contains(&known) => known,
                other => {
                    let value = other.to_owned();
                    return Err(SpecError::Invalid { what: "mount propagation", value });
                }
            };
            let bind = if *recursive { "rbind" } else { "bind" };
            let mut options = [bind, propagation, access].map(str::to_owned).to_vec();
            if mount.readonly && *recursive {
                options.push("rro".to_owned());
            }
            if *own_ids && can_map {
                options.push(MAPPED.to_owned());
            }
            built.typ("bind").source(source.clone()).options(options).build()?
        }
        MountKind::Tmpfs { options } => {
            let mut all: Vec<String> = ["nosuid", "nodev"].map(str::to_owned).to_vec();
            if !options.iter().any(|option| option == "exec") {
                all.push("noexec".to_owned());
            }
            let is_access = |o: &&String| matches!(o.as_str(), "ro" | "rw");
            let plain = |o: &&String| !is_access(o) && !matches!(o.as_str(), "exec" | "");
            all.extend(options.iter().filter(plain).cloned());
            // Of several the last one counts, as in Docker.
            let asked = options.iter().rfind(is_access).map_or("rw", String::as_str);
            all.push(if mount.readonly { access } else { asked }.to_owned());
            built.typ("tmpfs").source("tmpfs").options(all).build()?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(target: &str) -> Mount {
        let kind = MountKind::Bind {
            source: "/src".into(),
            recursive: true,
            propagation: String::new(),
            own_ids: false,
        };
        Mount { kind, target: target.into(), readonly: true }
    }

    fn targets(mounts: Vec<Mount>) -> Vec<String> {
        let container = ContainerSpec { mounts, ..Default::default() };
        let built = build(&container, &Facts::default()).unwrap();
        built.iter().map(|m| m.destination().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let all =
            targets(vec![bind("/data/a/b"), bind("/data"), bind("/etc/hosts"), bind("/data/a")]);
        let place = |target: &str| all.iter().position(|t| t == target).unwrap();
        assert!(place("/data") < place("/data/a"));
        assert!(place("/data/a") < place("/data/a/b"));
        assert!(place("/dev") < place("/dev/pts"));
        assert!(place("/sys") < place("/sys/fs/cgroup"));
    }

    #[test]
    fn a_mount_replaces_the_default_on_its_target() {
        let container = ContainerSpec { mounts: vec![bind("/dev/./shm/")], ..Default::default() };
        let built = build(&container, &Facts::default()).unwrap();
        let shm: Vec<_> = built.iter().filter(|m| m.destination().ends_with("dev/shm")).collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0].typ().as_deref(), Some("bind"));
        assert_eq!(
            shm[0].options().as_ref().unwrap(),
            &["rbind", "rprivate", "ro", "rro"].map(str::to_owned)
        );
    }

    #[test]
    fn memory_is_read_only_by_its_options_or_as_a_mount() {
        let access = |options: &[&str], readonly: bool| {
            let options = options.iter().map(|option| option.to_string()).collect();
            let mount = Mount { kind: MountKind::Tmpfs { options }, target: "/x".into(), readonly };
            let built = custom(&mount, "/x".to_owned(), false).unwrap();
            let options = built.options().clone().unwrap();
            let access = options.into_iter().filter(|option| ["ro", "rw"].contains(&&**option));
            access.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(access(&["size=1m"], false), "rw");
        assert_eq!(access(&["ro", "size=1m"], false), "ro");
        assert_eq!(access(&["ro", "rw"], false), "rw");
        assert_eq!(access(&["rw", "ro"], false), "ro");
        assert_eq!(access(&["rw"], true), "ro");
    }

    #[test]
    fn bad_targets_are_refused() {
        for target in ["", "data", "/", "/..", "//"] {
            let container = ContainerSpec { mounts: vec![bind(target)], ..Default::default() };
            assert!(
                matches!(build(&container, &Facts::default()), Err(SpecError::MountTarget(_))),
                "{target}"
            );
        }
    }
}
