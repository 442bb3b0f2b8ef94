//! What copies see of a container: its root file system, with its volumes, its binds and the engine's own
//! files where the container has them, in a mount namespace of one thread.
//!
//! Nothing else is in there, and no way out: no device can be opened, there is no `/sys`, and above all no
//! `/proc`, whose links lead past every root directory to the files of any process. So whatever a container
//! puts into its own files, and at whatever moment, leads to nothing that it has not got. What it has
//! mounted itself, and its memory, are not seen.
//!
//! Invariant: no proc file system is in a view, also where a bind of the host's has one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;

use minke_engine_runtime::idmap;
use minke_engine_runtime::privileges::as_owner;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount,
    unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use tokio::sync::oneshot;

use crate::rootfs;

/// How often what others change meanwhile is tried again.
const ATTEMPTS: usize = 32;

/// What a view is made of.
pub(super) struct Plan {
    /// Where the root file system is mounted.
    pub(super) root: PathBuf,
    pub(super) read_only: bool,
    /// Outer ones first.
    pub(super) parts: Vec<Part>,
    pub(super) users: Option<Users>,
}

/// Whose files a container in a user namespace sees.
pub(super) struct Users {
    /// Host id of its root.
    pub(super) first: u32,
    /// A file that names its user namespace.
    pub(super) namespace: PathBuf,
}

/// What is mounted in a container.
pub(super) struct Part {
    pub(super) source: PathBuf,
    /// What of the source is meant, where others may put links into it.
    pub(super) below: PathBuf,
    pub(super) target: PathBuf,
    /// With what is mounted below it.
    pub(super) recursive: bool,
    pub(super) read_only: bool,
    /// Its owners are in-container ids.
    pub(super) own_ids: bool,
    /// A start makes the source, a directory, if it is not there.
    pub(super) is_made: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that sees a container's files and nothing else.
pub(super) struct View {
    jobs: mpsc::Sender<Job>,
    /// Where something would be mounted whose source is not there.
    pub(super) absent: Vec<PathBuf>,
}

impl View {
    /// Makes one. The receiver hears of its end: when it is dropped and nothing of it is mounted any more.
    pub(super) async fn make(plan: Plan) -> io::Result<(View, oneshot::Receiver<()>)> {
        let (jobs, queue) = mpsc::channel();
        let (ready, made) = oneshot::channel();
        let (last, end) = oneshot::channel();
        std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
            live(&plan, ready, queue);
            // Nobody waits any more: fine.
            let _ = last.send(());
        })?;
        let absent = made.await.map_err(io::Error::other)??;
        Ok((View { jobs, absent }, end))
    }

    /// Does something with the container's root as the root.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = sender.send(work());
        });
        self.jobs.send(job).map_err(|_| io::Error::other("the thread for copies has ended"))?;
        receiver.await.map_err(io::Error::other)?
    }
}

/// Whether a view could not be made because the container has just ended.
pub(super) fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected
}

fn live(plan: &Plan, ready: oneshot::Sender<io::Result<Vec<PathBuf>>>, queue: mpsc::Receiver<Job>) {
    let home = match File::open("/proc/thread-self/ns/mnt") {
        Ok(home) => home,
        Err(error) => return drop(ready.send(Err(error))),
    };
    match enter(plan) {
        Ok(absent) => {
            if ready.send(Ok(absent)).is_ok() {
                queue.into_iter().for_each(|job| job());
            }
            go_home(&home);
        }
        Err(error) => {
            go_home(&home);
            let _ = ready.send(Err(error));
        }
    }
}

/// Leaves the namespace, whose mounts go at once. At the thread's end they would go a moment after it.
fn go_home(home: &File) {
    let kind = Some(LinkNameSpaceType::Mount);
    if let Err(error) = rustix::thread::move_into_link_name_space(home.as_fd(), kind) {
        tracing::warn!(%error, "a thread for copies cannot leave its mount namespace");
    }
}

/// Puts this thread into a view. Answers what is absent.
fn enter(plan: &Plan) -> io::Result<Vec<PathBuf>> {
    // SAFETY: only this thread, which is new and does nothing else, stops sharing mounts, root directory,
    // working directory and umask with the rest of the process.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    rustix::process::umask(Mode::empty());
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let place = plan.root.canonicalize()?;
    let root = idmap::copy(&place, false)?;
    let around = rustix::fs::stat(place.parent().unwrap_or(Path::new("/")))?;
    if rustix::fs::fstat(&root)?.st_dev == around.st_dev {
        let why = "the container's root file system is not mounted";
        return Err(io::Error::new(io::ErrorKind::NotConnected, why));
    }
    move_mount(&root, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mut absent = Vec::new();
    for part in &plan.parts {
        let added = add(root.as_fd(), part, plan.users.as_ref());
        let added = added.and_then(|added| without_proc(&place).map(|()| added));
        let named = |error: io::Error| {
            let target = part.target.display();
            io::Error::new(error.kind(), format!("mounting what is at {target}: {error}"))
        };
        if !added.map_err(named)? {
            absent.push(part.target.clone());
        }
    }
    restrict(root.as_fd(), plan.read_only)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    // The host's root is mounted on the new one for now.
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(absent)
}

/// Mounts a part. Answers whether its source is there.
fn add(root: BorrowedFd<'_>, part: &Part, users: Option<&Users>) -> io::Result<bool> {
    let tree = match part.copy() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return hide(root, part, users).map(|()| false);
        }
        tree => tree?,
    };
    if let (Some(users), true) = (users, part.own_ids) {
        idmap::map(tree.as_fd(), File::open(&users.namespace)?.as_fd())?;
    }
    let point = point(root, &part.target, is_directory(tree.as_fd())?, users)?;
    attach(&tree, &point, part.read_only).map(|()| true)
}

/// Hides what is beneath a part whose source is not there: it would be hidden too when that comes back.
fn hide(root: BorrowedFd<'_>, part: &Part, users: Option<&Users>) -> io::Result<()> {
    let point = match find(root, &part.target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match part.is_made {
            true => point(root, &part.target, true, users)?,
            false => return Ok(()),
        },
        found => found?,
    };
    match is_directory(point.as_fd())? {
        true => attach(&nothing()?, &point, true),
        false => Ok(()),
    }
}

fn attach(tree: &OwnedFd, point: &OwnedFd, read_only: bool) -> io::Result<()> {
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", point, "", here)?;
    restrict(tree.as_fd(), read_only)
}

impl Part {
    /// A copy of the source's mount, attached nowhere.
    fn copy(&self) -> io::Result<OwnedFd> {
        let source = match self.below.as_os_str().is_empty() {
            true => openat(CWD, &self.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
            false => rootfs::open_inside(&self.source, &self.below)?,
        };
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        if self.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(rustix::mount::open_tree(&source, "", flags)?)
    }
}

/// An empty file system.
fn nothing() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0755")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn is_directory(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mode = rustix::fs::fstat(file)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// What a container has at a path, which is made if it is not there, as it is at a start.
fn point(
    root: BorrowedFd<'_>,
    target: &Path,
    directory: bool,
    users: Option<&Users>,
) -> io::Result<OwnedFd> {
    let make = || make_point(root, target, directory);
    match users {
        // The host's root is nobody in there, and can make nothing.
        Some(users) => as_owner(users.first, make),
        None => make(),
    }
}

fn make_point(root: BorrowedFd<'_>, target: &Path, directory: bool) -> io::Result<OwnedFd> {
    let mut path = PathBuf::from("/");
    let mut at = find(root, &path)?;
    for part in target.components().filter(|part| matches!(part, Component::Normal(_))) {
        path.push(part);
        at = match find(root, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if directory || path != target {
                    mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    openat(&at, part.as_os_str(), flags, Mode::from_raw_mode(0o644))?;
                }
                find(root, &path)?
            }
            found => found?,
        };
    }
    Ok(at)
}

/// Finds a path with `root` as the root, whatever links the container has on the way.
fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let find = || rustix::fs::openat2(root, path, flags, Mode::empty(), inside);
    // The kernel says `again` where something is moved while it goes up from it.
    let found = (1..ATTEMPTS).map(|_| find()).find(|found| !matches!(found, Err(Errno::AGAIN)));
    Ok(found.unwrap_or_else(find)?)
}

/// Gives a mount flags of its own. One that could not be written stays so.
fn restrict(tree: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let mut flags = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    if read_only || rustix::fs::fstatvfs(tree)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        flags |= MountFlags::RDONLY;
    }
    let itself = format!("/proc/thread-self/fd/{}", tree.as_raw_fd());
    Ok(rustix::mount::mount_remount(itself, flags, c"")?)
}

/// Takes out what has come with a part and has links that lead anywhere.
fn without_proc(place: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        let found = proc_below(&fs::read("/proc/thread-self/mountinfo")?, place);
        if found.is_empty() {
            return Ok(());
        }
        for path in found {
            // A container may have moved it meanwhile; whether it is gone is looked at again.
            let _ = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
    Err(io::Error::other("a proc file system in there cannot be taken out"))
}

/// Where a table of mounts (`mountinfo`) has a proc file system in a directory.
fn proc_below(table: &[u8], place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let end = fields.iter().position(|field| *field == b"-");
        let kind = end.and_then(|end| fields.get(end + 1));
        if let (Some(b"proc"), Some(path)) = (kind.copied(), fields.get(4)) {
            found.push(PathBuf::from(OsString::from_vec(unescape(path))));
        }
    }
    found.retain(|path| path.starts_with(place));
    found
}

/// Undoes the octal escapes of a field.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let digits = (*byte == b'\\').then(|| tail.get(..3)).flatten();
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_file_systems_are_found_by_kind_and_place() {
        let table = b"1 0 0:1 / /c/top rw - overlay overlay rw\n\
            2 1 0:2 / /c/top/a\\040b/proc rw,nosuid shared:5 master:6 - proc proc rw\n\
            3 1 0:3 / /proc rw - proc proc rw\n\
            4 1 0:4 / /c/top/sys rw - sysfs proc rw\n";
        assert_eq!(proc_below(table, Path::new("/c/top")), [Path::new("/c/top/a b/proc")]);
        assert_eq!(unescape(br"\134x\9"), br"\x\9");
    }
}
