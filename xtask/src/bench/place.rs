//! Where an engine runs: namespaces and a cgroup that its processes enter by themselves, between fork and exec.
//! A program that does it for them (`nsenter`, a shell) would be part of every time that is measured.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::priority::Group;

/// Namespaces and a cgroup that are open.
pub struct Place(Arc<Open>);

struct Open {
    mount: File,
    network: File,
    tasks: Option<File>,
}

impl Place {
    /// The namespaces of a process, and a group.
    pub fn of(pid: u32, group: &Group) -> Result<Place> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).with_context(|| format!("cannot open {path}"))
        };
        let open = Open { mount: open("mnt")?, network: open("net")?, tasks: group.tasks()? };
        Ok(Place(Arc::new(open)))
    }

    /// A command that runs in the namespaces.
    pub fn command(&self, program: &str) -> Command {
        self.command_in(program, false)
    }

    /// A command that runs in the namespaces and in the group.
    pub fn command_in_group(&self, program: &str) -> Command {
        self.command_in(program, true)
    }

    fn command_in(&self, program: &str, group: bool) -> Command {
        let mut command = Command::new(program);
        let place = self.0.clone();
        // SAFETY: only system calls on files that are open, in a process of one thread.
        unsafe {
            command.pre_exec(move || {
                if let Some(tasks) = place.tasks.as_ref().filter(|_| group) {
                    rustix::io::write(tasks, b"0")?;
                }
                for (file, kind) in [
                    (&place.network, LinkNameSpaceType::Network),
                    (&place.mount, LinkNameSpaceType::Mount),
                ] {
                    move_into_link_name_space(file.as_fd(), Some(kind))?;
                }
                Ok(())
            });
        }
        command
    }
}
