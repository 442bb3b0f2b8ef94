//! How a further process comes into its container's cgroups of version 1.
//!
//! Writing a process id to `cgroup.procs` makes the kernel stop all forks and wait out an RCU grace
//! period: 10 to 20 ms, more than all the rest of an exec. A thread that moves itself, by writing `0` to
//! `tasks`, waits for nobody. So the process does that itself, as the last step before it reports to the
//! shim, with files that the helper opened for it; and libcontainer, which writes process ids, is shown a
//! machine without hierarchies.
//!
//! Version 2 moves whole processes only: there libcontainer does it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::{idmap, stage};

const HIERARCHIES: &str = "/sys/fs/cgroup";

/// The files through which a process comes into the cgroups of a container.
pub(crate) struct TaskFiles(Vec<File>);

impl TaskFiles {
    /// Opens them; nothing where the cgroups are of version 2.
    pub(crate) fn open(cgroups: &[PathBuf]) -> io::Result<Option<Self>> {
        let tasks = || cgroups.iter().map(|directory| directory.join("tasks"));
        if !tasks().all(|path| path.exists()) {
            return Ok(None);
        }
        tasks()
            .map(|path| File::options().write(true).open(path))
            .collect::<io::Result<_>>()
            .map(|f| Some(Self(f)))
    }

    /// The numbers under which the cloned process knows them.
    pub(crate) fn numbers(&self) -> Vec<RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// Takes the hierarchies out of this process's view, and of nobody else's. Where they cannot be taken as a
/// whole they stay: libcontainer then moves the process a second time.
pub(crate) fn hide_hierarchies() -> io::Result<()> {
    stage::separate()?;
    let whole = idmap::copy(Path::new(HIERARCHIES), true)?;
    // There may be several, one over the other.
    while rustix::mount::unmount(HIERARCHIES, UnmountFlags::DETACH).is_ok() {}
    if shows_hierarchies(&fs::read_to_string("/proc/self/mountinfo")?) {
        return idmap::attach(whole, Path::new(HIERARCHIES));
    }
    // Where libcontainer looks for what kind of cgroups there are, it finds version 1, and none.
    let options = c"size=4k";
    Ok(rustix::mount::mount("tmpfs", HIERARCHIES, "tmpfs", MountFlags::RDONLY, options)?)
}

fn shows_hierarchies(mountinfo: &str) -> bool {
    let kinds = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    kinds.into_iter().any(|(_, after)| after.starts_with("cgroup "))
}

/// Moves this process, which has one thread.
pub(crate) fn enter(task_files: &[RawFd]) -> io::Result<()> {
    for file in task_files {
        // SAFETY: the helper opened it before this process was cloned, and keeps it open.
        let file = unsafe { BorrowedFd::borrow_raw(*file) };
        rustix::io::write(file, b"0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_version_1_are_seen_wherever_they_are_mounted() {
        let tmpfs = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
        let unified = "38 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let old = "32 31 0:29 / /elsewhere/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n";
        assert!(!shows_hierarchies(&[tmpfs, unified].concat()));
        assert!(shows_hierarchies(&[tmpfs, old].concat()));
    }
}
