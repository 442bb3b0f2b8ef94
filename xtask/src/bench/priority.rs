//! A busy machine measures its other guests: so each engine runs in a cpu cgroup that comes first, and
//! what the group has used is the number that neighbours change least.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Far above the 1024 of everybody else.
const SHARES: &str = "262144";

/// The cpu cgroup of an engine; nothing where the machine has no version 1.
pub struct Group {
    folder: Option<PathBuf>,
}

impl Group {
    pub fn make(name: &str) -> Result<Group> {
        let root = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].map(PathBuf::from);
        let Some(root) = root.into_iter().find(|root| root.join("cpu.shares").exists()) else {
            return Ok(Group { folder: None });
        };
        let folder = root.join(format!("minke-bench-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("cpu.shares"), SHARES).context("cannot raise a priority")?;
        Ok(Group { folder: Some(folder) })
    }

    /// The file that takes a thread into the group which writes `0` to it. Through `cgroup.procs` the kernel
    /// would wait for a grace period, and the clock would run.
    pub fn tasks(&self) -> Result<Option<File>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.join("tasks");
        let file = File::options().write(true).open(&path);
        file.map(Some).with_context(|| format!("cannot open {}", path.display()))
    }

    /// CPU time of the group so far.
    pub fn cpu(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(self.folder.as_ref()?.join("cpuacct.usage")).ok()?;
        text.trim().parse().ok().map(Duration::from_nanos)
    }

    /// Removes the group; what is still in it goes back to the root.
    pub fn remove(&self) {
        let Some(folder) = &self.folder else { return };
        let procs = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            if let Some(root) = folder.parent() {
                let _ = std::fs::write(root.join("cgroup.procs"), pid);
            }
        }
        let _ = std::fs::remove_dir(folder);
    }
}
