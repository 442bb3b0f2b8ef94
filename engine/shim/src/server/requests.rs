//! What clients ask, done.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use minke_engine_shim::protocol::{
    self, Failure, Request, Response, Size, Status, Streams, VERSION,
};
use rustix::process::Pid;

use super::session::Session;
use super::{Phase, Server};
use crate::logfile::LogFile;
use crate::process;

/// Most sessions, running and finished.
const MAX_SESSIONS: usize = 1024;
/// Most finished execs whose exit is kept.
const MAX_FINISHED: usize = 256;

fn failed(failure: Failure, message: &str) -> Response {
    Response::Failed { failure, message: message.to_owned() }
}

impl Server {
    /// Take the whole requests that have come from a client.
    pub(super) fn take_requests(&mut self, place: usize) {
        loop {
            if self.is_blocked(place) {
                return;
            }
            let client = &self.clients[place];
            if client.dead || client.is_full() {
                return;
            }
            let (request, length) = match protocol::next_frame(&client.input) {
                Ok(Some((frame, length))) => (Request::decode(frame), length),
                Ok(None) => return,
                Err(error) => (Err(error), 0),
            };
            let client = &mut self.clients[place];
            client.input.drain(..length);
            if client.input.is_empty() {
                client.input = Vec::new();
            }
            match request {
                Ok(request) => self.take_request(place, request),
                Err(error) => {
                    client.send(&failed(Failure::Unsupported, &error.to_string()));
                    client.dead = true;
                }
            }
        }
    }

    /// Requests behind stdin that is not taken wait; true also remembers it.
    fn is_blocked(&mut self, place: usize) -> bool {
        let bound = self.clients[place].bound.as_ref().map(|(name, _)| name.clone());
        let full = bound.and_then(|name| self.find(&name)).is_some_and(Session::input_is_full);
        self.clients[place].blocked = full;
        full
    }

    fn take_request(&mut self, place: usize, request: Request) {
        if !self.clients[place].greeted && !matches!(request, Request::Hello { .. }) {
            self.clients[place]
                .send(&failed(Failure::Unsupported, "the first frame must be Hello"));
            self.clients[place].dead = true;
            return;
        }
        let answer = match request {
            Request::Hello { version: VERSION } => {
                self.clients[place].greeted = true;
                Some(Response::Hello { version: VERSION, pid: std::process::id() })
            }
            Request::Hello { .. } => Some(failed(Failure::Unsupported, "only version 1 is spoken")),
            Request::Start => self.start_main(place),
            Request::Attach { session, streams } => Some(self.attach(place, session, streams)),
            Request::Exec { session, process, tty, streams, size } => {
                self.exec(place, session, &process, tty, streams, size)
            }
            Request::Stdin(bytes) => {
                self.take_stdin(place, &bytes);
                None
            }
            Request::StdinEnd => {
                self.end_stdin(place);
                None
            }
            Request::Resize { session, size } => Some(self.resize(&session, size)),
            Request::Signal { session, signal } => Some(self.signal(&session, signal)),
            Request::State { session } => Some(match self.find(&session) {
                Some(session) => Response::State(session.state()),
                None => failed(Failure::NoSession, "no such session"),
            }),
            Request::Forget { session } => {
                self.forget(&session);
                Some(Response::Ok)
            }
            Request::Wait { session } => self.wait_for(place, session),
            Request::Stop if self.phase == Phase::Created => {
                self.phase = Phase::Ending;
                self.ended_at = Instant::now();
                Some(Response::Ok)
            }
            Request::Stop => Some(failed(Failure::BadState, "the container was started")),
        };
        if let Some(answer) = answer {
            self.clients[place].send(&answer);
        }
    }

    fn start_main(&mut self, place: usize) -> Option<Response> {
        if self.phase != Phase::Created {
            return Some(failed(Failure::BadState, "the container was started already"));
        }
        let _ = fs::remove_file("exit");
        let _ = fs::remove_dir_all("state");
        self.phase = Phase::Running;
        self.sessions[0].starter = Some(self.clients[place].id);
        if let Some(log) = &self.config.log {
            match LogFile::open(log) {
                Ok(log) => self.log = Some(log),
                Err(error) => {
                    let why = format!("opening the log {}: {error}", log.path.display());
                    self.cannot_start(0, why);
                    return None;
                }
            }
        }
        let bundle = self.config.bundle.clone();
        if let Err(error) = self.launch(0, "run", "--bundle", bundle.as_os_str()) {
            self.launch_failed(0, &error);
        }
        None
    }

    fn exec(
        &mut self,
        place: usize,
        name: String,
        process: &[u8],
        tty: bool,
        streams: Streams,
        size: Option<Size>,
    ) -> Option<Response> {
        if self.sessions[0].status != Status::Running {
            return Some(failed(Failure::BadState, "the container is not running"));
        }
        if self.find(&name).is_some() || self.clients[place].bound.is_some() {
            return Some(failed(Failure::BadState, "that session exists, or this client has one"));
        }
        if let Some(full) = self.full() {
            return Some(full);
        }
        self.forget_oldest();
        if self.sessions.len() >= MAX_SESSIONS {
            return Some(failed(Failure::BadState, "more than 1024 processes at once"));
        }
        let mut session = Session::new(name.clone(), tty);
        session.size = size;
        session.starter = Some(self.clients[place].id);
        self.clients[place].bound = Some((name.clone(), streams));
        self.sessions.push(session);
        let place = self.sessions.len() - 1;
        let file = format!("exec-{name}.json");
        let written = fs::write(&file, process)
            .and_then(|()| self.launch(place, "exec", "--process", OsStr::new(&file)));
        if let Err(error) = written {
            self.launch_failed(place, &error);
        }
        None
    }

    fn forget(&mut self, name: &str) {
        if let Some(session) = self.find_mut(name)
            && !session.is_main()
            && session.exit.is_some()
        {
            session.forgotten = true;
        }
    }

    fn forget_oldest(&mut self) {
        let finished = |s: &&mut Session| !s.is_main() && s.exit.is_some() && !s.forgotten;
        if self.sessions.iter_mut().filter(finished).count() > MAX_FINISHED
            && let Some(oldest) = self.sessions.iter_mut().find(finished)
        {
            oldest.forgotten = true;
        }
    }

    /// Start the helper for a session.
    fn launch(&mut self, place: usize, verb: &str, option: &str, value: &OsStr) -> io::Result<()> {
        let tty = self.sessions[place].tty;
        let mut args: Vec<&OsStr> =
            vec![verb.as_ref(), "--id".as_ref(), self.config.id.as_ref(), option.as_ref(), value];
        let socket;
        if tty {
            self.consoles += 1;
            socket = std::env::current_dir()?.join(format!("console-{}.sock", self.consoles));
            // Bound by a short relative path: the whole one may be too long for a socket address.
            let name = format!("console-{}.sock", self.consoles);
            let listener = UnixListener::bind(&name)?;
            listener.set_nonblocking(true)?;
            self.sessions[place].console = Some(listener);
            self.sessions[place].console_name = Some(name);
            args.extend([OsStr::new("--console"), socket.as_os_str()]);
        }
        let main = self.sessions[place].is_main();
        let starter = self.sessions[place].starter;
        let wants_stdin = || {
            let starter = self.clients.iter().find(|client| Some(client.id) == starter);
            starter.and_then(|c| c.bound.as_ref()).is_some_and(|(_, streams)| streams.stdin)
        };
        let with_stdin = if main { self.config.stdin } else { wants_stdin() };
        let started = process::start(&self.helper, &args, tty, with_stdin)?;
        let session = &mut self.sessions[place];
        session.status = Status::Starting;
        session.helper = started.helper;
        session.report = Some(started.status);
        session.input = started.stdin;
        session.outputs = started.outputs;
        Ok(())
    }

    /// The helper could not even be started.
    fn launch_failed(&mut self, place: usize, error: &io::Error) {
        let why = format!("starting {}: {error}", self.config.runtime.display());
        self.cannot_start(place, why);
    }

    /// A session has failed before there was a helper for it.
    fn cannot_start(&mut self, place: usize, why: String) {
        self.sessions[place].failure = Some((Failure::Create, why));
        self.settle_start(place);
    }

    fn attach(&mut self, place: usize, session: String, streams: Streams) -> Response {
        if self.find(&session).is_none() {
            return failed(Failure::NoSession, "no such session");
        }
        if self.clients[place].bound.is_some() {
            return failed(Failure::BadState, "this client is attached already");
        }
        if let Some(full) = self.full() {
            return full;
        }
        self.clients[place].bound = Some((session.clone(), streams));
        self.clients[place].waits.push(session);
        Response::Attached
    }

    fn wait_for(&mut self, place: usize, session: String) -> Option<Response> {
        match self.find(&session).map(|session| session.exit) {
            None => Some(failed(Failure::NoSession, "no such session")),
            Some(Some(exit)) => Some(Response::Exited(exit)),
            Some(None) if self.clients[place].waits.len() >= 64 => {
                Some(failed(Failure::BadState, "this client waits for 64 sessions already"))
            }
            Some(None) => {
                self.clients[place].waits.push(session);
                None
            }
        }
    }

    fn bound_session(&mut self, place: usize) -> Option<&mut Session> {
        let (name, streams) = self.clients[place].bound.clone()?;
        if !streams.stdin {
            return None;
        }
        self.find_mut(&name)
    }

    fn take_stdin(&mut self, place: usize, bytes: &[u8]) {
        let has_stdin = self.config.stdin;
        if let Some(session) = self.bound_session(place)
            && (has_stdin || !session.is_main())
            && !session.input_ends
            && session.gone.is_none()
        {
            session.pending.extend_from_slice(bytes);
            session.flush_input();
        }
    }

    /// A client's stdin has ended, or the client is gone.
    pub(super) fn end_stdin(&mut self, place: usize) {
        let once = self.config.stdin_once;
        if let Some(session) = self.bound_session(place)
            && (once || !session.is_main())
        {
            session.input_ends = true;
            session.flush_input();
        }
    }

    fn resize(&mut self, name: &str, size: Size) -> Response {
        match self.find_mut(name) {
            None => failed(Failure::NoSession, "no such session"),
            Some(session) => match session.resize(size) {
                Ok(()) => Response::Ok,
                Err(error) => failed(Failure::Other, &error.to_string()),
            },
        }
    }

    fn signal(&mut self, name: &str, signal: u8) -> Response {
        let Some(session) = self.find(name) else {
            return failed(Failure::NoSession, "no such session");
        };
        // Its pid is only its own until it is collected.
        if session.status != Status::Running || session.gone.is_some() {
            return failed(Failure::BadState, "the process is not running");
        }
        let pid = Pid::from_raw(session.pid);
        // Any number of the kernel's is passed on, real-time signals too.
        // SAFETY: kill has no memory effects; the number is checked by the kernel.
        let result = pid.map(|pid| unsafe {
            libc::kill(pid.as_raw_nonzero().get(), libc::c_int::from(signal))
        });
        match result {
            Some(0) => Response::Ok,
            _ => failed(Failure::Other, &io::Error::last_os_error().to_string()),
        }
    }
}
