//! Starting the runtime helper, and the few things a daemon does with its own descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

/// The descriptor on which the helper reports.
const STATUS_FD: i32 = 3;

/// A helper that has been started, and our ends of what it was given.
pub(crate) struct Started {
    pub(crate) helper: i32,
    pub(crate) status: OwnedFd,
    /// Without a terminal: write end of stdin, read ends of stdout and stderr.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) outputs: [Option<OwnedFd>; 2],
}

/// The runtime helper's program, behind a mount that cannot be written through. Who is inside a container
/// can reopen the file of a process there by `/proc/<pid>/exe`, and is often the host's root.
pub(crate) struct Helper {
    path: PathBuf,
    guarded: Option<OwnedFd>,
}

impl Helper {
    /// The program at a path. Kernels before 5.12 cannot guard it.
    pub(crate) fn new(path: PathBuf) -> Self {
        let guarded = read_only(&path).ok();
        Self { path, guarded }
    }

    fn command(&self) -> Command {
        match &self.guarded {
            None => Command::new(&self.path),
            Some(file) => {
                let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
                command.arg0(&self.path);
                command
            }
        }
    }
}

/// A copy of the mount of one file, attached nowhere, read-only.
fn read_only(path: &Path) -> io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    // `struct mount_attr`: what is set, cleared, the propagation, a user namespace.
    let attributes = [1_u64, 0, 0, 0];
    // SAFETY: the path is an empty string with its NUL; the structure has the size that is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// Start `<runtime> runtime <args>`.
pub(crate) fn start(
    runtime: &Helper,
    args: &[&std::ffi::OsStr],
    tty: bool,
    with_stdin: bool,
) -> io::Result<Started> {
    let (status, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // The process that becomes the program waits on its end.
    rustix::io::ioctl_fionbio(&theirs, false)?;
    let mut command = runtime.command();
    command.arg("runtime").args(args).env_clear();
    let mut started = Started { helper: 0, status, stdin: None, outputs: [None, None] };
    if tty {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    } else {
        if with_stdin {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            command.stdin(Stdio::from(read));
            started.stdin = Some(write);
        } else {
            command.stdin(Stdio::null());
        }
        let (read, write) = output_pipe()?;
        command.stdout(Stdio::from(write));
        started.outputs[0] = Some(read);
        let (read, write) = output_pipe()?;
        command.stderr(Stdio::from(write));
        started.outputs[1] = Some(read);
    }
    let raw = theirs.as_raw_fd();
    // SAFETY: only async-signal-safe calls are made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let result = if raw == STATUS_FD {
                libc::fcntl(raw, libc::F_SETFD, 0)
            } else {
                libc::dup2(raw, STATUS_FD)
            };
            if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    // Ended children are collected by the server, all at one place.
    started.helper = command.spawn()?.id() as i32;
    Ok(started)
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// Close whatever the daemon forgot to mark.
pub(crate) fn close_inherited() {
    // SAFETY: nothing of this process has opened a descriptor yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// In a forked child: close all descriptors from 3 on but these two.
pub(crate) fn close_all_but(one: i32, other: i32) {
    let (first, last) = (one.min(other) as u32, one.max(other) as u32);
    for (begin, end) in [(3, first - 1), (first + 1, last - 1), (last + 1, u32::MAX)] {
        if begin <= end {
            // SAFETY: the descriptors that are closed are not used by this process any more.
            unsafe { libc::syscall(libc::SYS_close_range, begin, end, 0) };
        }
    }
}

/// Let go of the daemon's pipes.
pub(crate) fn detach_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Take the descriptor that the container's process sent over the console socket.
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0_u8; 256];
    let mut parts = [io::IoSliceMut::new(&mut text)];
    rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::other("no terminal came over the console socket"))
}
