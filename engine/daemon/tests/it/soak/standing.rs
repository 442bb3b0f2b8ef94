//! What an engine holds at a moment: its process, and what it has made in the kernel and on disk.

use std::process::Command;

use crate::support::Site;

/// What must not grow. Everything but the memory must be the same again after each cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Resident memory of the daemon, KiB.
    pub rss: u64,
    pub counts: Counts,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Descriptors of the daemon.
    pub descriptors: usize,
    /// Mounts below the engine's data.
    pub mounts: usize,
    /// Cgroups of containers.
    pub cgroups: usize,
    /// Names of network namespaces.
    pub namespaces: usize,
    /// Network links of the host's namespace.
    pub links: usize,
    /// Lines of the whole packet filter.
    pub rules: usize,
    /// Containers' directories.
    pub containers: usize,
    /// Volumes.
    pub volumes: usize,
    /// Processes that the daemon has as children.
    pub children: usize,
}

impl Standing {
    pub fn of(site: &Site) -> Standing {
        let pid = site.engine_pid();
        let data = site.data();
        let entries = |path: &str| std::fs::read_dir(data.join(path)).map_or(0, Iterator::count);
        let process = |path: &str| std::fs::read_dir(format!("/proc/{pid}/{path}"));
        let traces = site.traces();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|text| text.split_whitespace().next()).unwrap().parse().unwrap();
        let below = data.to_string_lossy().into_owned();
        Standing {
            rss,
            counts: Counts {
                descriptors: process("fd").unwrap().count(),
                mounts: traces.iter().filter(|trace| trace.starts_with(&below)).count(),
                cgroups: traces.iter().filter(|trace| !trace.starts_with(&below)).count(),
                namespaces: entries("run/netns"),
                links: lines("ip", &["-o", "link"]),
                rules: lines("nft", &["list", "ruleset"]),
                containers: entries("containers"),
                volumes: entries("volumes"),
                children: children(pid),
            },
        }
    }
}

fn lines(program: &str, arguments: &[&str]) -> usize {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn children(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().count()
    };
    tasks.flatten().map(of_task).sum()
}
