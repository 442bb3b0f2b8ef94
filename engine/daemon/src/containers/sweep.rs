//! Leaves nothing of an engine in the kernel: for engines that only build, at their start and end.

use super::remove::{self, Removal};
use crate::daemon::Daemon;
use crate::rootfs;

/// Ends what runs, and removes mounts, networks and cgroups. Goes on after failures.
pub(crate) async fn leave_nothing(daemon: &Daemon) {
    for container in daemon.containers.all() {
        let how = Removal { force: true, volumes: true };
        if let Err(error) = remove::remove(daemon, &container, how).await {
            tracing::warn!(container = container.id, error = error.message(), "is left over");
        }
    }
    daemon.removals.settled().await;
    daemon.volumes.settled().await;
    super::adopt::remove_strays(daemon, |_| false);
    for mount in rootfs::mounts_below(&daemon.options.data) {
        if let Err(error) = rootfs::unmount_all(&mount) {
            tracing::warn!(mount = %mount.display(), error = error.message(), "is left over");
        }
    }
    if let Err(error) = daemon.networks.destroy_all().await {
        let error: crate::error::Error = error.into();
        tracing::warn!(error = error.message(), "networks are left over");
    }
    super::adopt::remove_cgroup_parents(daemon);
}
