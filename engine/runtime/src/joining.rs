//! How a further process comes into its container's cgroups of version 1.
//!
//! Writing a process id to `cgroup.procs` makes the kernel stop all forks and wait out an RCU grace
//! period: 10 to 20 ms, more than all the rest of an exec. A thread that moves itself, by writing `0` to
//! `tasks`, waits for nobody. So the process does that itself, as the last step before it reports to the
//! shim, with files that the helper opened for it; and libcontainer, which writes process ids, is shown a
//! machine without hierarchies.
//!
//! Version 2 moves whole processes only: there libcontainer does it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::stage;

const HIERARCHIES: &str = "/sys/fs/cgroup";

/// The files through which a process comes into the cgroups of a container.
pub(crate) struct Doors(Vec<File>);

impl Doors {
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

/// Takes the hierarchies out of this process's view, and of nobody else's.
pub(crate) fn hide_hierarchies() -> io::Result<()> {
    stage::separate()?;
    match rustix::mount::unmount(HIERARCHIES, UnmountFlags::DETACH) {
        // Where libcontainer looks for what kind of cgroups there are, it finds version 1, and none.
        Ok(()) => {
            let options = c"size=4k";
            Ok(rustix::mount::mount("tmpfs", HIERARCHIES, "tmpfs", MountFlags::RDONLY, options)?)
        }
        // Mounted in another way: libcontainer finds them and moves the process a second time.
        Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Moves this process, which has one thread.
pub(crate) fn enter(doors: &[RawFd]) -> io::Result<()> {
    for door in doors {
        // SAFETY: the helper opened it before this process was cloned, and keeps it open.
        let door = unsafe { BorrowedFd::borrow_raw(*door) };
        rustix::io::write(door, b"0")?;
    }
    Ok(())
}
