//! Device nodes and the device rules of the cgroup.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::facts::Node;
use super::{ContainerSpec, Facts, Mount, MountKind, SpecError};

/// Character devices that every container may use: null, zero, full, random, urandom, tty, console,
/// ptmx, and all terminals.
const COMMON: [(i64, i64); 9] =
    [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1)];

/// Nodes that the runtime makes in every container by itself.
const DEFAULT_NODES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/urandom", "/dev/random"];

/// The nodes to make in the container.
pub(super) fn nodes(
    container: &ContainerSpec,
    facts: &Facts,
) -> Result<Vec<LinuxDevice>, SpecError> {
    let mut made = Vec::new();
    if container.user_namespace.is_some() {
        return Ok(made);
    }
    let skip = |path: &Path| {
        DEFAULT_NODES.iter().any(|known| path == Path::new(known)) || path == Path::new("/dev/ptmx")
    };
    if container.privileged {
        for (path, node) in facts.nodes.iter().filter(|(p, _)| p.starts_with("/dev") && !skip(p)) {
            made.push(device(path.clone(), node)?);
        }
        return Ok(made);
    }
    for request in &container.devices {
        for (host, node) in facts.nodes.range(request.host.clone()..) {
            let Ok(below) = host.strip_prefix(&request.host) else { break };
            let target = if below.as_os_str().is_empty() {
                PathBuf::from(&request.container)
            } else {
                Path::new(&request.container).join(below)
            };
            if !skip(&target) {
                made.push(device(target, node)?);
            }
        }
    }
    Ok(made)
}

/// In a user namespace no node can be made: the host's are mounted.
pub(super) fn mounted(container: &ContainerSpec, facts: &Facts) -> Vec<Mount> {
    let mut mounts = Vec::new();
    if container.user_namespace.is_none() {
        return mounts;
    }
    for request in &container.devices {
        for (host, _) in facts.nodes.range(request.host.clone()..) {
            let Ok(below) = host.strip_prefix(&request.host) else { break };
            let target = match below.as_os_str().is_empty() {
                true => PathBuf::from(&request.container),
                false => Path::new(&request.container).join(below),
            };
            let kind = MountKind::Bind {
                source: host.clone(),
                recursive: false,
                propagation: String::new(),
                own_ids: false,
            };
            let target = target.to_string_lossy().into_owned();
            mounts.push(Mount { kind, target, readonly: false });
        }
    }
    mounts
}

fn device(path: PathBuf, node: &Node) -> Result<LinuxDevice, SpecError> {
    Ok(LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind(node.block))
        .major(node.major)
        .minor(node.minor)
        .file_mode(node.mode)
        .uid(node.uid)
        .gid(node.gid)
        .build()?)
}

fn kind(block: bool) -> LinuxDeviceType {
    if block { LinuxDeviceType::B } else { LinuxDeviceType::C }
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, SpecError> {
    let mut built = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        built = built.major(major);
    }
    if let Some(minor) = minor {
        built = built.minor(minor);
    }
    Ok(built.build()?)
}

/// The rules, in order: everything denied, then what is allowed.
pub(super) fn rules(
    container: &ContainerSpec,
    facts: &Facts,
) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if container.privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")?]);
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm")?,
        rule(true, LinuxDeviceType::C, None, None, "m")?,
        rule(true, LinuxDeviceType::B, None, None, "m")?,
    ];
    for (major, minor) in COMMON {
        let minor = (minor >= 0).then_some(minor);
        rules.push(rule(true, LinuxDeviceType::C, Some(major), minor, "rwm")?);
    }
    for request in &container.devices {
        let access = permissions(&request.permissions)?;
        for (host, node) in facts.nodes.range(request.host.clone()..) {
            if host.strip_prefix(&request.host).is_err() {
                break;
            }
            rules.push(rule(true, kind(node.block), Some(node.major), Some(node.minor), access)?);
        }
    }
    for text in &container.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

fn permissions(text: &str) -> Result<&str, SpecError> {
    match text {
        "" => Ok("rwm"),
        _ if text.len() <= 3 && text.bytes().all(|b| b"rwm".contains(&b)) => Ok(text),
        _ => Err(SpecError::DevicePermissions(text.to_owned())),
    }
}

fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, SpecError> {
    let wrong = || SpecError::DeviceRule(text.to_owned());
    let fields: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = fields[..] else { return Err(wrong()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        _ => text.parse::<u32>().map(|n| Some(n.into())).map_err(|_| wrong()),
    };
    let access = permissions(access).ok().filter(|_| !access.is_empty()).ok_or_else(wrong)?;
    rule(true, kind, number(major)?, number(minor)?, access)
}

#[cfg(test)]
mod tests {
    use super::super::DeviceRequest;
    use super::*;

    fn node(minor: i64) -> Node {
        Node { block: false, major: 188, minor, mode: 0o660, uid: 0, gid: 20 }
    }

    #[test]
    fn a_directory_brings_its_nodes_under_the_new_name() {
        let facts = Facts {
            nodes: [("/dev/snd/a", 1), ("/dev/snd/b", 2), ("/dev/sndx", 3)]
                .map(|(path, minor)| (PathBuf::from(path), node(minor)))
                .into(),
            ..Facts::default()
        };
        let request = DeviceRequest {
            host: "/dev/snd".into(),
            container: "/dev/sound".into(),
            permissions: "rw".into(),
        };
        let container = ContainerSpec { devices: vec![request], ..Default::default() };
        let made = nodes(&container, &facts).unwrap();
        let paths: Vec<_> = made.iter().map(|d| d.path().to_str().unwrap()).collect();
        assert_eq!(paths, ["/dev/sound/a", "/dev/sound/b"]);
        let rules = rules(&container, &facts).unwrap();
        assert_eq!(rules.iter().filter(|r| r.access().as_deref() == Some("rw")).count(), 2);
    }

    #[test]
    fn rules_are_checked() {
        let rule = parse_rule("c 42:* rmw").unwrap();
        assert_eq!((rule.major(), rule.minor()), (Some(42), None));
        for bad in ["", "c 42 rwm", "x 1:1 r", "c 1:1", "c 1:1 q", "c a:1 r", "c 1:1 "] {
            assert!(matches!(parse_rule(bad), Err(SpecError::DeviceRule(_))), "{bad}");
        }
    }
}
