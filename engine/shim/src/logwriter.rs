//! A log that holds the container up for nothing: a child of the shim writes it, from a socket. While the
//! child waits for a disk, lines stay in the socket; those that find it full are dropped, whole.
//!
//! A packet is lines as they are stored, each behind its length. The child ends when the socket does,
//! after the last line: so it does when the shim is killed.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use minke_engine_shim::config::LogConfig;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

use crate::logfile::{BATCH, Files};
use crate::{process, signals};

/// Room that a socket always has, bytes: a batch and the longest line.
const LEAST_BUFFER: u64 = 512 * 1024;
/// How long the last lines may take when the container has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shim's end.
pub(crate) struct LogWriter {
    config: LogConfig,
    socket: OwnedFd,
    child: Pid,
    batch: Vec<u8>,
}

impl LogWriter {
    /// Opens the log and starts the child.
    pub(crate) fn begin(config: &LogConfig) -> io::Result<Self> {
        let mut files = Files::open(config)?;
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        widen(&socket, config.buffer.max(LEAST_BUFFER))?;
        // SAFETY: this process has one thread, so the child may do whatever this process may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                signals::leave();
                process::close_all_but(theirs.as_raw_fd(), files.as_fd().as_raw_fd());
                let code = i32::from(write_all_of(&theirs, &mut files).is_err());
                // SAFETY: nothing of the parent's may run at the child's end.
                unsafe { libc::_exit(code) }
            }
            pid => {
                let child = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                Ok(Self { config: config.clone(), socket, child, batch: Vec::new() })
            }
        }
    }

    /// Takes a stored line.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(&(line.len() as u32).to_ne_bytes());
        self.batch.extend_from_slice(line);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands the lines on, or drops them.
    pub(crate) fn flush(&mut self) {
        if self.send() == Err(Errno::PIPE)
            && let Ok(another) = Self::begin(&self.config)
        {
            // Somebody has ended the child: another takes its place.
            let batch = std::mem::replace(self, another).batch;
            self.batch = batch;
            let _ = self.send();
        }
        self.batch = Vec::new();
    }

    fn send(&self) -> Result<(), Errno> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(&self.socket, &self.batch, flags).map(|_| ())
    }

    /// Waits until the child has written what is in the socket, though not for ever.
    pub(crate) fn finish(self) {
        let Ok(ended) = rustix::process::pidfd_open(self.child, PidfdFlags::empty()) else {
            return;
        };
        drop(self);
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience));
    }
}

/// Gives the socket room for so many bytes, whatever the host's limit for those without power is.
fn widen(socket: &OwnedFd, bytes: u64) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let (force, usual) = (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
    let done = [force, usual].into_iter().any(|option| {
        let (value, size) = ((&raw const bytes).cast(), size_of_val(&bytes) as u32);
        let fd = socket.as_raw_fd();
        // SAFETY: the value is a number of the size that is said.
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, size) == 0 }
    });
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In the child.
fn write_all_of(socket: &OwnedFd, files: &mut Files) -> io::Result<()> {
    files.pack_next();
    let mut packet = Vec::new();
    loop {
        let (_, length) =
            rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::TRUNC)?;
        if length == 0 {
            return Ok(());
        }
        packet.resize(length, 0);
        rustix::net::recv(socket, &mut packet[..], RecvFlags::empty())?;
        let mut rest = &packet[..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (line, after) = after.split_at(u32::from_ne_bytes(*length) as usize);
            files.line(line);
            rest = after;
        }
        files.flush();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            files.child_ended(pid.as_raw_nonzero().get(), status.exit_status() == Some(0));
        }
    }
}
