//! Network namespaces of containers: a bind mount that keeps each alive under a file name.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::NetworkError;

/// File system type of namespace files (`NSFS_MAGIC`).
const NSFS_MAGIC: i128 = 0x6e73_6673;

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Namespace { action, path: path.into(), source }
}

/// Make a namespace of this process's users and keep it at `path`; its loopback is not up yet.
pub(crate) fn create(path: &Path) -> Result<(), NetworkError> {
    prepare(path)?;
    fs::File::create(path).map_err(failed("making the file of", path))?;
    let made = in_new_thread(|| {
        // SAFETY: only the network namespace of this short-lived thread is replaced.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        set_defaults();
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(())
    });
    made.map_err(failed("making", path))
}

/// Have somebody else make a namespace and keep it at `path`.
pub(crate) fn create_by(
    path: &Path,
    make: impl FnOnce() -> io::Result<()>,
) -> Result<(), NetworkError> {
    prepare(path)?;
    make().map_err(failed("making", path))?;
    enter(path, || {
        set_defaults();
        Ok(())
    })
}

/// Make room for a namespace at `path`.
pub(crate) fn prepare(path: &Path) -> Result<(), NetworkError> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).map_err(failed("making the directory of", path))?;
    make_private(directory).map_err(failed("preparing the directory of", path))?;
    remove(path)
}

/// A mount in a shared tree would be copied into every mount namespace, and live on there after its
/// removal here; so the directory becomes a private mount point of its own, once.
fn make_private(directory: &Path) -> io::Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let real = fs::canonicalize(directory)?;
    let is_mounted = text
        .lines()
        .any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == real));
    if !is_mounted {
        rustix::mount::mount_bind(&real, &real)?;
        rustix::mount::mount_change(&real, MountPropagationFlags::PRIVATE)?;
    }
    Ok(())
}

/// What Docker sets in every container's namespace: ping and low ports for everybody, and no IPv6 on
/// interfaces that get no IPv6 address.
fn set_defaults() {
    for (path, value) in [
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let _ = fs::write(Path::new("/proc/sys/net").join(path), value);
    }
}

/// Whether `path` still names a live namespace; after a reboot only an empty file is there.
pub(crate) fn is_alive(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| i128::from(stat.f_type) == NSFS_MAGIC)
}

/// Give the name up. The kernel removes the namespace and its links when the last process has left.
pub(crate) fn remove(path: &Path) -> Result<(), NetworkError> {
    while is_alive(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH)
            .map_err(|error| failed("unmounting", path)(error.into()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing the file of", path)(error))
        }
        _ => Ok(()),
    }
}

/// Remove the private mount point that [`create`] made of the directory, and the directory.
pub(crate) fn remove_directory(directory: &Path) -> Result<(), NetworkError> {
    let Ok(real) = fs::canonicalize(directory) else { return Ok(()) };
    let mounted = |text: &str| {
        text.lines().any(|l| l.split(' ').nth(4).is_some_and(|point| Path::new(point) == real))
    };
    while fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| mounted(&text)) {
        rustix::mount::unmount(&real, UnmountFlags::DETACH)
            .map_err(|error| failed("unmounting", &real)(error.into()))?;
    }
    let _ = fs::remove_dir(&real);
    Ok(())
}

/// Names of the files in the directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Open the namespace for handing to the kernel.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, NetworkError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("opening", path)(error.into()))
}

/// Run something on a thread that has entered the namespace.
pub(crate) fn enter<T: Send>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, NetworkError> {
    let namespace = open(path)?;
    in_new_thread(|| {
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?;
        work()
    })
    .map_err(failed("working", path))
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
