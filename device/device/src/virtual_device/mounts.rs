//! What a virtual device sees mounted.
//!
//! Its root is the machine's. Own are `/proc` (its processes), `/sys` (its network; with the machine's
//! cgroup hierarchies, which containers are limited by) and `/etc/resolv.conf`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};

use crate::arguments::Virtual;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts it. The caller is in a mount namespace of its own.
pub fn enter(options: &Virtual) -> anyhow::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("cannot keep mounts to this device")?;
    let none = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", none, None).context("cannot mount /proc")?;
    let aside = options.data.join("cgroups");
    fs::create_dir_all(&aside).context("cannot make a mount point")?;
    mount_bind_recursive(CGROUPS, &aside).context("cannot keep the cgroup hierarchies")?;
    mount("sysfs", "/sys", "sysfs", none, None).context("cannot mount /sys")?;
    mount_bind_recursive(&aside, CGROUPS).context("cannot mount the cgroup hierarchies")?;
    unmount(&aside, UnmountFlags::DETACH).context("cannot put the cgroup hierarchies in place")?;
    // Gone again at once, so that the data directory shows no trace of it.
    let _ = fs::remove_dir(&aside);
    resolver(options)
}

/// Name servers on the machine's own loopback cannot be reached from here; they are left out.
fn resolver(options: &Virtual) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string("/etc/resolv.conf") else { return Ok(()) };
    let reachable = |line: &&str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address = words.next().and_then(|it| it.parse::<IpAddr>().ok());
        !(is_server && address.is_some_and(|it| it.is_loopback()))
    };
    let kept: Vec<&str> = text.lines().filter(reachable).collect();
    let own = options.data.join("resolv.conf");
    fs::write(&own, kept.join("\n") + "\n").context("cannot write resolv.conf")?;
    let target =
        fs::canonicalize(Path::new("/etc/resolv.conf")).context("cannot find /etc/resolv.conf")?;
    mount_bind(&own, &target).context("cannot mount /etc/resolv.conf")
}
