//! What is mounted in a container: the four ways of asking for it, made one list. Pure but for the
//! look at bind sources.

use std::collections::BTreeSet;
use std::path::Path;

use minke_engine_client::wire::{ContainerConfig, HostConfig, Mount};

use super::document::{MountDocument, MountKind};
use crate::error::{Error, Result};

/// What a mount of memory may be told beside what has a value.
const TMPFS_FLAGS: [&str; 24] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rw",
    "strictatime",
    "suid",
    "sync",
];

/// How mounts below a bind come from or go to the host's.
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The mounts of a new container. `inherited` are those of `VolumesFrom`, which come first and give
/// way. A volume without a name is anonymous: its name is made later.
pub(crate) fn resolve(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: Vec<MountDocument>,
) -> Result<Vec<MountDocument>> {
    let mut asked = Vec::new();
    for bind in &host.binds {
        asked.push(parse_bind(bind)?);
    }
    for mount in &host.mounts {
        asked.push(long_form(mount)?);
    }
    for (target, options) in &host.tmpfs {
        let options: Vec<String> =
            options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        if let Some(bad) = options.iter().find(|option| !is_tmpfs_option(option)) {
            return Err(Error::Invalid(format!("invalid tmpfs option {bad:?}")));
        }
        asked.push(MountDocument {
            kind: MountKind::Tmpfs,
            target: clean_target(target)?,
            options,
            ..MountDocument::default()
        });
    }
    let mut targets = BTreeSet::new();
    for mount in &asked {
        if !targets.insert(mount.target.clone()) {
            return Err(Error::Invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    let inherited = inherited.into_iter().filter(|mount| !targets.contains(&mount.target));
    let mut all: Vec<_> = inherited.collect();
    all.extend(asked);
    for target in config.volumes.keys() {
        // `"src:dst"` here is an old client's way of writing a bind; Docker ignores the value too.
        let target = clean_target(target)?;
        if !all.iter().any(|mount| mount.target == target) {
            all.push(MountDocument { kind: MountKind::Volume, target, ..MountDocument::default() });
        }
    }
    Ok(all)
}

/// Reads `[source:]target[:options]`.
fn parse_bind(text: &str) -> Result<MountDocument> {
    let invalid =
        |why: &str| Error::Invalid(format!("invalid volume specification: '{text}': {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] if target.starts_with('/') => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(invalid("want [source:]target[:options]")),
    };
    if !target.starts_with('/') {
        return Err(invalid("mount path must be absolute"));
    }
    let mut mount = MountDocument {
        kind: if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume },
        target: clean_target(target)?,
        mode: options.to_owned(),
        make_source: true,
        ..MountDocument::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "nocopy" if mount.kind == MountKind::Volume => mount.no_copy = true,
            // Labels of SELinux, which this engine does not set; and hints of other systems.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "copy" => {}
            known if PROPAGATIONS.contains(&known) => {
                known.clone_into(&mut mount.propagation);
            }
            other => return Err(invalid(&format!("invalid mode: {other}"))),
        }
    }
    match mount.kind {
        MountKind::Bind => source.clone_into(&mut mount.source),
        _ if source.is_empty() => {}
        _ => {
            crate::names::check_volume(source).map_err(|_| {
                Error::Invalid(format!(
                    "\"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
                ))
            })?;
            source.clone_into(&mut mount.volume);
        }
    }
    Ok(mount)
}

fn long_form(mount: &Mount) -> Result<MountDocument> {
    let invalid = |why: String| {
        Err(Error::Invalid(format!("invalid mount config for type \"{}\": {why}", mount.kind)))
    };
    let mut document = MountDocument {
        target: clean_target(&mount.target)?,
        read_only: mount.read_only,
        ..MountDocument::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            let options = mount.bind_options.clone().unwrap_or_default();
            if !mount.source.starts_with('/') {
                return invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                ));
            }
            if !options.create_mountpoint && !Path::new(&mount.source).exists() {
                return invalid(format!("bind source path does not exist: {}", mount.source));
            }
            if options.read_only_non_recursive {
                return invalid(
                    "ReadOnlyNonRecursive is not supported by this engine: what is read-only is so with all that is mounted below it".to_owned(),
                );
            }
            if options.read_only_force_recursive && (!mount.read_only || options.non_recursive) {
                return invalid("ReadOnlyForceRecursive goes with a mount that is ReadOnly and not NonRecursive".to_owned());
            }
            let propagation = options.propagation.as_str();
            if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
                return invalid(format!("invalid propagation mode: {}", options.propagation));
            }
            document.source = mount.source.clone();
            document.propagation = options.propagation;
            document.non_recursive = options.non_recursive;
            document.make_source = options.create_mountpoint;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if !mount.source.is_empty() {
                crate::names::check_volume(&mount.source)?;
            }
            if options.subpath.starts_with('/') || options.subpath.split('/').any(|p| p == "..") {
                return invalid("subpath must be a relative path within the volume".to_owned());
            }
            let driver = options.driver_config.unwrap_or_default();
            document.driver = driver.name;
            document.driver_options = driver.options;
            document.kind = MountKind::Volume;
            document.volume = mount.source.clone();
            document.no_copy = options.no_copy;
            document.labels = options.labels;
            document.subpath = options.subpath;
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return invalid("field Source must not be specified".to_owned());
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            document.kind = MountKind::Tmpfs;
            if options.size_bytes > 0 {
                document.options.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                document.options.push(format!("mode={:o}", options.mode));
            }
            for option in options.options {
                match option.as_slice() {
                    [name] => document.options.push(name.clone()),
                    [name, value] => document.options.push(format!("{name}={value}")),
                    _ => return invalid("an option is a name, or a name and a value".to_owned()),
                }
            }
            if let Some(bad) = document.options.iter().find(|option| !is_tmpfs_option(option)) {
                return invalid(format!("invalid tmpfs option {bad:?}"));
            }
        }
        other => return invalid(format!("Type {other:?} is not supported by this engine")),
    }
    Ok(document)
}

/// Whether memory can be mounted with an option.
fn is_tmpfs_option(option: &str) -> bool {
    let Some((name, value)) = option.split_once('=') else { return TMPFS_FLAGS.contains(&option) };
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    match name {
        "size" => {
            is_number(value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%']).unwrap_or(value))
        }
        "nr_blocks" | "nr_inodes" => {
            is_number(value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value))
        }
        "mode" => u32::from_str_radix(value, 8).is_ok(),
        "uid" | "gid" => value.parse::<u32>().is_ok(),
        "mpol" => true,
        _ => false,
    }
}

/// A target without `.`, `..` and double slashes.
pub(crate) fn clean_target(target: &str) -> Result<String> {
    let invalid =
        |why: &str| Err(Error::Invalid(format!("invalid mount target '{target}': {why}")));
    if !target.starts_with('/') {
        return invalid("mount path must be absolute");
    }
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
    if parts.is_empty() {
        return invalid("destination can't be '/'");
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_engine_client::wire::set_of;

    #[test]
    fn short_forms_are_binds_volumes_and_anonymous_volumes() {
        let bind = parse_bind("/a:/b/../c:ro,rshared").unwrap();
        assert_eq!(
            (bind.kind, bind.source.as_str(), bind.target.as_str()),
            (MountKind::Bind, "/a", "/c")
        );
        assert!(bind.read_only && bind.propagation == "rshared");
        let volume = parse_bind("data:/var/data").unwrap();
        assert_eq!((volume.kind, volume.volume.as_str()), (MountKind::Volume, "data"));
        assert_eq!(parse_bind("/only").unwrap().volume, "");
        for bad in ["a:b", "a:/b:what", "/a:/", "a/b:/c", "::/x", "a:b:c:d"] {
            parse_bind(bad).unwrap_err();
        }
    }

    #[test]
    fn memory_is_mounted_with_options_that_it_has() {
        for good in ["size=64m", "size=50%", "mode=1777", "uid=0", "noexec", "ro", "nr_inodes=1k"] {
            assert!(is_tmpfs_option(good), "{good}");
        }
        for bad in ["size=", "size=lots", "mode=9", "uid=me", "bind", "colour=red", "huge"] {
            assert!(!is_tmpfs_option(bad), "{bad}");
        }
    }

    #[test]
    fn an_images_volume_gives_way_and_a_target_is_taken_once() {
        let config = ContainerConfig {
            volumes: set_of(["/data".to_owned(), "/other".to_owned()]),
            ..ContainerConfig::default()
        };
        let host = HostConfig { binds: vec!["v1:/data/".to_owned()], ..HostConfig::default() };
        let mounts = resolve(&config, &host, Vec::new()).unwrap();
        let shown: Vec<_> = mounts.iter().map(|m| (m.volume.as_str(), m.target.as_str())).collect();
        assert_eq!(shown, [("v1", "/data"), ("", "/other")]);
        let twice = HostConfig {
            binds: vec!["v1:/data".to_owned(), "v2:/data".to_owned()],
            ..HostConfig::default()
        };
        assert!(resolve(&config, &twice, Vec::new()).is_err());
    }
}
