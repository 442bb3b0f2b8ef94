//! The event loop: one `poll` over everything, then what is ready is done.

mod client;
mod ending;
mod requests;
mod session;

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use minke_engine_shim::cgroup;
use minke_engine_shim::config::ShimConfig;
use minke_engine_shim::protocol::{CHUNK, Exit, Failure, Response, Status};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::logfile::LogFile;
use crate::process::Helper;
use crate::resolver::{Place, Resolver};
use crate::signals;
use client::Client;
use session::{Output, Session};

/// How long a shim without a container waits for somebody to connect.
const LONELY: Duration = Duration::from_secs(10);
/// How long output may still come after its process has gone.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How long clients may take to read the rest when the container has ended.
const FAREWELL: Duration = Duration::from_secs(5);
/// Most clients at once.
const MAX_CLIENTS: usize = 256;
/// With this many, the places that are left are for those who stop the container or look at it.
const CROWDED: usize = 240;

/// Where the shim is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
    /// The container has ended and that is recorded.
    Ending,
}

/// Where the shim listens.
const SOCKET: &str = "shim.sock";

/// Which file a name is.
#[derive(PartialEq, Eq)]
struct Socket {
    device: u64,
    inode: u64,
}

impl Socket {
    /// What has the socket's name now.
    fn now() -> Option<Socket> {
        let found = fs::symlink_metadata(SOCKET).ok()?;
        Some(Socket { device: found.dev(), inode: found.ino() })
    }
}

/// What a polled descriptor belongs to.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Client(usize),
    Report(usize),
    Input(usize),
    Output(usize, usize),
    Resolver(Place),
}

/// The shim.
pub(crate) struct Server {
    helper: Helper,
    config: ShimConfig,
    listener: UnixListener,
    /// The file that the listener is bound to.
    socket: Option<Socket>,
    signals: OwnedFd,
    resolver: Option<Resolver>,
    log: Option<LogFile>,
    clients: Vec<Client>,
    /// The first is the main process.
    sessions: Vec<Session>,
    phase: Phase,
    ended_at: Instant,
    alone_since: Instant,
    next_client: u64,
    consoles: u64,
    buffer: Vec<u8>,
}

impl Server {
    pub(crate) fn new(
        config: ShimConfig,
        listener: UnixListener,
        signals: OwnedFd,
        resolver: Option<Resolver>,
    ) -> Self {
        let main = Session::new(String::new(), config.tty);
        Self {
            helper: Helper::new(config.runtime.clone()),
            config,
            listener,
            socket: Socket::now(),
            signals,
            resolver,
            log: None,
            clients: Vec::new(),
            sessions: vec![main],
            phase: Phase::Created,
            ended_at: Instant::now(),
            alone_since: Instant::now(),
            next_client: 0,
            consoles: 0,
            buffer: vec![0; CHUNK],
        }
    }

    /// Serve until the container has ended and everybody knows.
    pub(crate) fn run(&mut self) {
        while !self.is_over() {
            let ready = self.next_events();
            for (token, flags) in ready {
                self.serve(token, flags);
            }
            self.tidy();
        }
        // The next start of the container may not have waited for this end: then the name is that of its
        // shim already. The listener is still open, so no other file has got the number of its own.
        if self.socket.is_some() && Socket::now() == self.socket {
            let _ = fs::remove_file(SOCKET);
        }
    }

    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Created => self.clients.is_empty() && self.alone_since.elapsed() >= LONELY,
            Phase::Running => false,
            Phase::Ending => {
                self.clients.iter().all(|client| client.queued() == 0)
                    || self.ended_at.elapsed() >= FAREWELL
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.name == name && !session.forgotten)
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.name == name && !session.forgotten)
    }

    /// Wait until something is ready or due.
    fn next_events(&self) -> Vec<(Token, PollFlags)> {
        let mut polled: Vec<(Token, PollFd<'_>)> = Vec::with_capacity(8);
        let mut add = |token, fd, flags| polled.push((token, PollFd::from_borrowed_fd(fd, flags)));
        add(Token::Signals, self.signals.as_fd(), PollFlags::IN);
        add(Token::Listener, self.listener.as_fd(), PollFlags::IN);
        for (place, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.wants_input());
            flags.set(PollFlags::OUT, client.queued() > 0);
            // A blocked client is left alone: that it hung up is only news behind what it has sent.
            if !flags.is_empty() || !(client.ended || client.blocked) {
                add(Token::Client(place), client.stream.as_fd(), flags);
            }
        }
        for (place, session) in self.sessions.iter().enumerate() {
            if let Some(report) = &session.report {
                add(Token::Report(place), report.as_fd(), PollFlags::IN);
            }
            if let (Some(input), false) = (&session.input, session.pending.is_empty()) {
                add(Token::Input(place), input.as_fd(), PollFlags::OUT);
            }
            // Nobody may hear of output before the start.
            if session.status == Status::Starting || self.is_held_up(session) {
                continue;
            }
            for (which, output) in session.outputs.iter().enumerate() {
                if let Some(output) = output {
                    add(Token::Output(place, which), output.as_fd(), PollFlags::IN);
                }
            }
        }
        if let Some(resolver) = &self.resolver {
            resolver.poll(&mut |place, fd, flags| add(Token::Resolver(place), fd, flags));
        }
        let timeout = self.timeout().map(|duration| Timespec {
            tv_sec: duration.as_secs() as i64,
            tv_nsec: duration.subsec_nanos().into(),
        });
        let (tokens, mut fds): (Vec<Token>, Vec<PollFd<'_>>) = polled.into_iter().unzip();
        if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = tokens.into_iter().zip(fds.iter().map(PollFd::revents));
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }

    /// A client of this session has a full queue.
    fn is_held_up(&self, session: &Session) -> bool {
        self.clients.iter().any(|client| {
            !client.dead
                && client.is_full()
                && client.bound.as_ref().is_some_and(|(name, _)| *name == session.name)
        })
    }

    /// How long nothing needs to be done if nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let mut ends: Vec<Instant> = Vec::new();
        if self.phase == Phase::Created && self.clients.is_empty() {
            ends.push(self.alone_since + LONELY);
        }
        if self.phase == Phase::Ending {
            ends.push(self.ended_at + FAREWELL);
        }
        let draining = self.sessions.iter().filter(|session| session.exit.is_none());
        let late = draining.filter_map(|session| session.gone).map(|(_, _, at)| at + DRAIN_LIMIT);
        ends.extend(late.filter(|end| *end > Instant::now()));
        ends.extend(self.resolver.as_ref().and_then(Resolver::deadline));
        // One millisecond more: waking just before the time would only mean to wait again.
        let soonest = ends.into_iter().min()?;
        Some(soonest.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn serve(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => {
                signals::drain(&self.signals);
                self.reap();
            }
            Token::Listener => self.accept(),
            Token::Client(place) => self.serve_client(place, flags),
            Token::Report(place) => {
                if self.sessions[place].read_report() {
                    self.settle_start(place);
                }
            }
            Token::Input(place) => self.sessions[place].flush_input(),
            Token::Output(place, which) => {
                self.forward_output(place, which);
            }
            Token::Resolver(place) => {
                if let Some(resolver) = &mut self.resolver {
                    resolver.serve(place);
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.next_client += 1;
                self.clients.push(Client::new(self.next_client, stream));
            }
        }
    }

    /// Why nobody may come to stay, if so.
    fn full(&self) -> Option<Response> {
        (self.clients.len() > CROWDED).then(|| Response::Failed {
            failure: Failure::BadState,
            message: format!("{CROWDED} clients and processes of execs are connected already, the most that may be at once"),
        })
    }

    fn serve_client(&mut self, place: usize, flags: PollFlags) {
        let client = &mut self.clients[place];
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.contains(PollFlags::IN) {
            client.fill(&mut self.buffer);
        } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            client.dead = true;
        }
        self.take_requests(place);
    }

    /// Read once from an output; false if there was nothing.
    fn forward_output(&mut self, place: usize, which: usize) -> bool {
        let session = &mut self.sessions[place];
        let (name, main) = (session.name.clone(), session.is_main());
        match session.read_output(which, &mut self.buffer) {
            Output::Bytes(count) => {
                let bytes = &self.buffer[..count];
                if let (true, Some(log)) = (main, &mut self.log) {
                    log.write(which, bytes, session::now());
                }
                for client in &mut self.clients {
                    let wants = client.bound.as_ref().is_some_and(|(bound, streams)| {
                        *bound == name && if which == 0 { streams.stdout } else { streams.stderr }
                    });
                    if wants && !client.dead {
                        client.send_output(which == 1, bytes);
                    }
                }
                true
            }
            Output::NothingNow => false,
            Output::End => {
                if let (true, Some(log)) = (main, &mut self.log) {
                    log.finish(which, session::now());
                }
                false
            }
        }
    }

    /// Collect children that have ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.note_end(pid, status);
        }
    }

    fn note_end(&mut self, pid: Pid, status: WaitStatus) {
        let pid = pid.as_raw_nonzero().get();
        // A process can only be collected here after its helper has ended, so its pid was reported.
        for place in 0..self.sessions.len() {
            if self.sessions[place].report.is_some() && self.sessions[place].read_report() {
                self.settle_start(place);
            }
        }
        let mut main_gone = false;
        let code = status.exit_status().map(|code| code as u32);
        let signal = status.terminating_signal().map(|signal| signal as u8);
        for session in &mut self.sessions {
            if session.pid == pid && session.gone.is_none() && session.exit.is_none() {
                let signal = signal.unwrap_or(0);
                let code = code.unwrap_or(128 + u32::from(signal));
                session.gone = Some((code, signal, Instant::now()));
                main_gone |= session.is_main();
            } else if session.helper == pid {
                session.helper = 0;
            }
        }
        if let Some(log) = &mut self.log {
            log.child_ended(pid, code == Some(0));
        }
        if main_gone {
            // What shares the host's pids outlives its first process.
            cgroup::kill_all(&self.cgroups());
        }
    }

    /// The reports of a session that was being started have ended.
    fn settle_start(&mut self, place: usize) {
        let session = &mut self.sessions[place];
        if let Some(name) = session.console_name.take() {
            let _ = fs::remove_file(name);
        }
        session.console = None;
        if !session.is_main() {
            let _ = fs::remove_file(format!("exec-{}.json", session.name));
        }
        if session.pid == 0 && session.failure.is_none() {
            let why = "the runtime helper ended without a report".to_owned();
            session.failure = Some((Failure::Create, why));
        }
        if let (Some((Failure::Create, message)), Some(note)) =
            (&mut session.failure, &session.note)
        {
            message.push_str(": ");
            message.push_str(note);
        }
        let starter = session.starter.take();
        let answer = match session.failure.clone() {
            None => {
                session.status = Status::Running;
                session.started_at = session::now();
                session.flush_input();
                Response::Started { pid: session.pid as u32 }
            }
            Some((failure, message)) => Response::Failed { failure, message },
        };
        let failed = session.failure.is_some();
        if let Some(client) = self.clients.iter_mut().find(|client| Some(client.id) == starter) {
            client.send(&answer);
            if !failed && place > 0 {
                client.waits.push(self.sessions[place].name.clone());
            }
        }
        if failed {
            self.start_failed(place);
        }
    }

    fn start_failed(&mut self, place: usize) {
        let session = &mut self.sessions[place];
        session.status = Status::Exited;
        session.input = None;
        session.outputs = [None, None];
        let (failure, message) = session.failure.clone().unwrap_or((Failure::Other, String::new()));
        let exit =
            Exit { code: failure.exit_code(), finished_at: session::now(), ..Exit::default() };
        session.exit = Some(exit);
        if place == 0 {
            self.end(exit, Some(message));
        } else {
            let name = self.sessions[place].name.clone();
            self.sessions[place].forgotten = true;
            self.release_clients(&name, None);
        }
    }

    /// Everything that is due after the events of one turn.
    fn tidy(&mut self) {
        // The main process last: its end is the end of all others.
        for place in (0..self.sessions.len()).rev() {
            if self.sessions[place].gone.is_some() && self.sessions[place].exit.is_none() {
                self.drain(place);
            }
        }
        if let Some(resolver) = &mut self.resolver {
            resolver.expire();
        }
        let now = Instant::now();
        for place in 0..self.clients.len() {
            // Stdin that was waiting may be taken now, and requests behind it.
            if self.clients[place].blocked {
                self.take_requests(place);
            }
            let client = &self.clients[place];
            if client.dead || (client.ended && !client.blocked) {
                self.end_stdin(place);
                self.clients[place].dead = true;
            }
        }
        if self.clients.iter().any(|client| client.dead) {
            self.clients.retain(|client| !client.dead);
            self.alone_since = now;
        }
        self.sessions.retain(|session| !session.forgotten);
    }
}
