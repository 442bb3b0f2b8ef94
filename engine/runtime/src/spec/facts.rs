//! What must be looked up on the host and in the image before a specification can be built.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Accounts, ContainerSpec, Resources, SpecError};

/// Most nodes taken from one device directory or from the host's /dev.
const MAX_NODES: usize = 4096;

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub block: bool,
    pub major: i64,
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Gathered facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The image's users and groups.
    pub accounts: Accounts,
    /// Bounding set of this process, a bit per capability.
    pub capabilities: u64,
    /// Hard limits of this process by Docker's ulimit name; what is missing is unlimited.
    pub hard_limits: BTreeMap<&'static str, u64>,
    /// The one of this process.
    pub oom_score_adj: i32,
    /// Lowest oom_score_adj that this process may give.
    pub lowest_oom_score_adj: i32,
    /// Only cgroup version 2 is mounted.
    pub cgroup_v2: bool,
    /// Names of the hierarchies of version 1, where containers see them below `/sys/fs/cgroup`.
    pub hierarchies: Vec<String>,
    /// Swap can be limited.
    pub swap_accounting: bool,
    /// Nodes by host path: the requested devices, those in requested directories, and for privileged
    /// containers all of /dev.
    pub nodes: BTreeMap<PathBuf, Node>,
    /// Block devices of limits, by path.
    pub block_devices: BTreeMap<PathBuf, (i64, i64)>,
}

fn hierarchies() -> Vec<String> {
    let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A lookup that failed.
#[allow(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("reading {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Facts {
    /// Look everything up for this container. The root file system must be mounted.
    pub fn gather(container: &ContainerSpec) -> Result<Self, FactsError> {
        let read = |path: &Path| -> Result<String, FactsError> {
            fs::read_to_string(path)
                .map_err(|source| FactsError::Read { path: path.into(), source })
        };
        let accounts = Accounts::read(&container.rootfs).map_err(|source| FactsError::Read {
            path: container.rootfs.join("etc/passwd"),
            source,
        })?;
        let capabilities = bounding_set(&read(Path::new("/proc/self/status"))?);
        let can_lower_oom = capabilities >> 24 & 1 == 1;
        let current = read(Path::new("/proc/self/oom_score_adj"))?.trim().parse().unwrap_or(0);
        let of_limits = Self::of_limits(&container.resources);
        let cgroup_v2 = of_limits.cgroup_v2;
        let mut facts = Self {
            accounts,
            capabilities,
            hard_limits: hard_limits(&read(Path::new("/proc/self/limits"))?),
            oom_score_adj: current,
            lowest_oom_score_adj: if can_lower_oom { -1000 } else { current },
            hierarchies: if cgroup_v2 { Vec::new() } else { hierarchies() },
            ..of_limits
        };
        for request in &container.devices {
            if !facts.add_nodes(&request.host) {
                return Err(SpecError::DeviceMissing(request.host.clone()).into());
            }
        }
        if container.privileged {
            facts.add_nodes(Path::new("/dev"));
        }
        Ok(facts)
    }

    /// What limits need.
    pub fn of_limits(limits: &Resources) -> Self {
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            cgroup_v2,
            swap_accounting: cgroup_v2
                || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
            block_devices: block_devices(limits),
            ..Self::default()
        }
    }

    /// Add a node, or all nodes of a directory; false if there is neither.
    fn add_nodes(&mut self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else { return false };
        if metadata.is_dir() {
            self.add_directory(path, 0);
            return true;
        }
        match node(&metadata) {
            Some(node) => {
                self.nodes.insert(path.to_owned(), node);
                true
            }
            None => false,
        }
    }

    fn add_directory(&mut self, directory: &Path, depth: u32) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                // These are file systems of their own, mounted in every container.
                let own = ["pts", "shm", "mqueue", "fd"].iter().any(|name| path.ends_with(name));
                if !own && depth < 8 {
                    self.add_directory(&path, depth + 1);
                }
            } else if let Some(node) = node(&metadata)
                && self.nodes.len() < MAX_NODES
                && path != Path::new("/dev/console")
            {
                self.nodes.insert(path, node);
            }
        }
    }
}

/// Those of the limits' paths that are block devices.
fn block_devices(limits: &Resources) -> BTreeMap<PathBuf, (i64, i64)> {
    let rates = [
        &limits.blkio_read_bps,
        &limits.blkio_write_bps,
        &limits.blkio_read_iops,
        &limits.blkio_write_iops,
    ];
    let paths = rates.into_iter().flatten().map(|rate| &rate.path);
    paths
        .chain(limits.blkio_weight_device.iter().map(|weight| &weight.path))
        .filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            let disk = metadata.file_type().is_block_device();
            disk.then(|| (path.clone(), numbers(metadata.rdev())))
        })
        .collect()
}

fn numbers(device: u64) -> (i64, i64) {
    (rustix::fs::major(device).into(), rustix::fs::minor(device).into())
}

fn node(metadata: &fs::Metadata) -> Option<Node> {
    let kind = metadata.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    let (major, minor) = numbers(metadata.rdev());
    Some(Node {
        block: kind.is_block_device(),
        major,
        minor,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

fn bounding_set(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0)
}

/// Docker's names of limits, and how `/proc/self/limits` calls them.
const LIMIT_NAMES: [(&str, &str); 16] = [
    ("cpu", "Max cpu time"),
    ("fsize", "Max file size"),
    ("data", "Max data size"),
    ("stack", "Max stack size"),
    ("core", "Max core file size"),
    ("rss", "Max resident set"),
    ("nproc", "Max processes"),
    ("nofile", "Max open files"),
    ("memlock", "Max locked memory"),
    ("as", "Max address space"),
    ("locks", "Max file locks"),
    ("sigpending", "Max pending signals"),
    ("msgqueue", "Max msgqueue size"),
    ("nice", "Max nice priority"),
    ("rtprio", "Max realtime priority"),
    ("rttime", "Max realtime timeout"),
];

fn hard_limits(text: &str) -> BTreeMap<&'static str, u64> {
    let mut limits = BTreeMap::new();
    for line in text.lines() {
        for (name, prefix) in LIMIT_NAMES {
            if let Some(rest) = line.strip_prefix(prefix)
                && let Some(Ok(hard)) = rest.split_whitespace().nth(1).map(str::parse)
            {
                limits.insert(name, hard);
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_proc_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 20000                files     \n\
                    Max stack size            8388608              unlimited            bytes     \n";
        assert_eq!(hard_limits(text), BTreeMap::from([("nofile", 20000)]));
    }

    #[test]
    fn this_process_has_facts() {
        let facts = Facts::gather(&ContainerSpec { rootfs: "/".into(), ..Default::default() });
        let facts = facts.unwrap();
        assert_ne!(facts.capabilities, 0);
        assert!(facts.accounts.passwd.starts_with("root:"));
    }
}
