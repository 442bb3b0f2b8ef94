//! What is at a container's /dev/shm. One that can be shared is memory that the daemon has mounted in
//! the container's directory; who joins the container's IPC namespace gets the same memory.

use std::io;
use std::path::{Path, PathBuf};

use minke_engine_client::wire::HostConfig;
use minke_engine_runtime::spec::Shm;
use rustix::mount::MountFlags;

use super::container::Container;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::{rootfs, users};

/// Docker's size of it, bytes.
const SIZE: i64 = 64 << 20;
/// The host's.
const OF_HOST: &str = "/dev/shm";

/// Where memory that can be shared is mounted.
fn place(container: &Container) -> PathBuf {
    container.dir.join("shm")
}

/// Mounts what others may share, for a container that is about to start.
pub(super) fn mount(daemon: &Daemon, container: &Container) -> Result<()> {
    let host = container.lock().config.host_config.clone();
    if host.ipc_mode != "shareable" {
        return Ok(());
    }
    let place = place(container);
    unmount(container)?;
    mount_at(&place, &host, users::of(daemon, &host).map_or(0, |range| range.first))
        .map_err(Error::file("mounting", place))
}

fn mount_at(place: &Path, host: &HostConfig, owner: u32) -> io::Result<()> {
    std::fs::create_dir_all(place)?;
    let size = if host.shm_size > 0 { host.shm_size } else { SIZE };
    let options = format!("mode=1777,size={size},uid={owner},gid={owner}");
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("shm", place, "tmpfs", flags, Some(options.as_c_str()))?)
}

/// Takes it down; containers that have it keep it.
pub(super) fn unmount(container: &Container) -> Result<()> {
    rootfs::unmount_all(&place(container))
}

/// What a container gets.
pub(super) fn of(daemon: &Daemon, container: &Container, host: &HostConfig) -> Result<Shm> {
    Ok(match host.ipc_mode.as_str() {
        "host" => Shm::Shared(PathBuf::from(OF_HOST)),
        "none" => Shm::None,
        "shareable" => Shm::Shared(place(container)),
        mode => match mode.strip_prefix("container:") {
            Some(name) => shared_by(daemon, name)?,
            None => Shm::Private,
        },
    })
}

/// What a container shares; only one that was made for it does.
fn shared_by(daemon: &Daemon, name: &str) -> Result<Shm> {
    let donor = daemon.containers.find(name)?;
    let mode = donor.lock().config.host_config.ipc_mode.clone();
    match mode.as_str() {
        "host" => Ok(Shm::Shared(PathBuf::from(OF_HOST))),
        "shareable" => Ok(Shm::Shared(place(&donor))),
        _ => Err(Error::Invalid(format!(
            "cannot join the IPC namespace of container {}: it is not shareable (hint: start that \
             container with IpcMode \"shareable\")",
            donor.name()
        ))),
    }
}
