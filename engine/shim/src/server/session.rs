//! A process of the container: its descriptors and its life.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use minke_engine_shim::protocol::{Exit, Failure, SessionState, Size, Status};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::termios::Winsize;

use crate::process;

/// Most bytes of stdin that are kept for a process that does not read them.
const PENDING_LIMIT: usize = 64 * 1024;

/// The main process, named `""`, or an exec.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) tty: bool,
    pub(super) status: Status,
    pub(super) pid: i32,
    pub(super) started_at: u64,
    pub(super) exit: Option<Exit>,
    pub(super) helper: i32,
    pub(super) report: Option<OwnedFd>,
    report_text: Vec<u8>,
    pub(super) console: Option<UnixListener>,
    pub(super) console_name: Option<String>,
    /// Terminal master, or write end of stdin.
    pub(super) input: Option<OwnedFd>,
    pub(super) pending: Vec<u8>,
    /// No more input comes: close after what is pending.
    pub(super) input_ends: bool,
    /// Terminal master (again) or stdout; stderr.
    pub(super) outputs: [Option<OwnedFd>; 2],
    pub(super) size: Option<Size>,
    /// The client that asked for the start.
    pub(super) starter: Option<u64>,
    pub(super) failure: Option<(Failure, String)>,
    /// What went wrong inside the runtime helper.
    pub(super) note: Option<String>,
    /// Code and signal, once it is gone; and when that was.
    pub(super) gone: Option<(u32, u8, Instant)>,
    /// To be removed at the end of this turn.
    pub(super) forgotten: bool,
}

/// What became of reading a session's output.
pub(super) enum Output {
    Bytes(usize),
    NothingNow,
    End,
}

impl Session {
    pub(super) fn new(name: String, tty: bool) -> Self {
        Self {
            name,
            tty,
            status: Status::Created,
            pid: 0,
            started_at: 0,
            exit: None,
            helper: 0,
            report: None,
            report_text: Vec::new(),
            console: None,
            console_name: None,
            input: None,
            pending: Vec::new(),
            input_ends: false,
            outputs: [None, None],
            size: None,
            starter: None,
            failure: None,
            note: None,
            gone: None,
            forgotten: false,
        }
    }

    pub(super) fn is_main(&self) -> bool {
        self.name.is_empty()
    }

    pub(super) fn state(&self) -> SessionState {
        SessionState {
            status: self.status,
            pid: self.pid as u32,
            started_at: self.started_at,
            exit: self.exit,
        }
    }

    pub(super) fn input_is_full(&self) -> bool {
        self.pending.len() >= PENDING_LIMIT
    }

    /// Read the helper's and the process's reports. True when nothing more will come: the program
    /// runs, or it failed.
    pub(super) fn read_report(&mut self) -> bool {
        loop {
            let Some(report) = &self.report else { return false };
            let mut buffer = [0_u8; 512];
            match rustix::io::read(report, &mut buffer) {
                Ok(0) => {
                    self.report = None;
                    return true;
                }
                Ok(count) => {
                    self.report_text.extend_from_slice(&buffer[..count]);
                    self.take_lines();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => {
                    self.report = None;
                    return true;
                }
            }
        }
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.report_text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.report_text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            if let Some(pid) = line.strip_prefix("pid ") {
                self.pid = pid.parse().unwrap_or(0);
            } else if let Some(rest) = line.strip_prefix("failed ") {
                let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let number = number.parse().ok().and_then(Failure::from_number);
                let failure = (number.unwrap_or(Failure::Other), text.to_owned());
                // The first reason is the cause of those that follow.
                self.failure.get_or_insert(failure);
            } else if let Some(note) = line.strip_prefix("note ") {
                // The innermost comes first, and is the reason.
                self.note.get_or_insert_with(|| note.to_owned());
            } else if line == "ready" {
                self.let_go();
            }
        }
    }

    /// The process is about to become the program: take its terminal, set its size, let it go.
    fn let_go(&mut self) {
        if let Some(console) = self.console.take()
            && let Err(error) = self.take_terminal(&console)
        {
            self.failure.get_or_insert((Failure::Create, error.to_string()));
        }
        if let Some(report) = &self.report {
            let _ = rustix::net::send(report, b"g", SendFlags::NOSIGNAL);
        }
    }

    fn take_terminal(&mut self, console: &UnixListener) -> io::Result<()> {
        let (socket, _) = console.accept()?;
        socket.set_nonblocking(true)?;
        let master = process::receive_descriptor(socket.as_fd())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(size) = self.size {
            set_size(&master, size)?;
        }
        self.outputs[0] = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        self.input = Some(master);
        Ok(())
    }

    pub(super) fn resize(&mut self, size: Size) -> io::Result<()> {
        self.size = Some(size);
        match (&self.input, self.tty) {
            (Some(master), true) => set_size(master, size),
            _ => Ok(()),
        }
    }

    /// Write pending input as far as it is taken.
    pub(super) fn flush_input(&mut self) {
        while let (Some(input), false) = (&self.input, self.pending.is_empty()) {
            match rustix::io::write(input, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // Nobody reads it any more.
                    self.pending.clear();
                    if !self.tty {
                        self.input = None;
                    }
                }
            }
        }
        if self.input.is_none() && self.status != Status::Created && self.status != Status::Starting
        {
            self.pending.clear();
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
            if self.input_ends && !self.tty {
                self.input = None;
            }
        }
    }

    /// Read from stdout (0) or stderr (1).
    pub(super) fn read_output(&mut self, which: usize, buffer: &mut [u8]) -> Output {
        let Some(fd) = &self.outputs[which] else { return Output::End };
        loop {
            return match rustix::io::read(fd, &mut *buffer) {
                Ok(0) => self.close_output(which),
                Ok(count) => Output::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Output::NothingNow,
                // A terminal whose last user is gone says EIO.
                Err(_) => self.close_output(which),
            };
        }
    }

    fn close_output(&mut self, which: usize) -> Output {
        self.outputs[which] = None;
        Output::End
    }

    pub(super) fn has_output(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }
}

fn set_size(master: &OwnedFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
