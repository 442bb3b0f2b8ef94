//! The container's name service at 127.0.0.11: names of containers from files, the rest from the
//! servers of the host.
//!
//! The listening sockets are made inside the container's network namespace, those that ask upstream in
//! the host's. Bounded: questions in flight, TCP connections, and the time of each.

mod relay;
mod sources;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use minke_engine_shim::config::DnsConfig;
use minke_engine_shim::dns::{self, Code, MAX_MESSAGE};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use relay::{Relay, Step};
use sources::SourceFiles;

/// Where containers ask.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Most questions that wait for an upstream server.
const MAX_RELAYS: usize = 64;
/// Most TCP connections of the container.
const MAX_CONNECTIONS: usize = 16;
/// Most datagrams that are answered in one turn: the shim has the terminal, the log and the daemon to
/// serve too, however fast the container asks.
const MAX_DATAGRAMS: usize = 64;
/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);

/// A TCP connection from the container: length-prefixed questions in, answers out.
struct Connection {
    id: u64,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    end: Instant,
    closed: bool,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Udp(SocketAddr),
    Tcp(u64),
}

/// What a descriptor belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Udp,
    Tcp,
    /// By id.
    Connection(u64),
    /// By place in the list.
    Relay(usize),
}

/// The name service.
pub(crate) struct Resolver {
    udp: UdpSocket,
    tcp: TcpListener,
    connections: Vec<Connection>,
    relays: Vec<Relay>,
    sources: SourceFiles,
    next_connection: u64,
}

impl Resolver {
    /// Bind inside the container's namespace.
    pub(crate) fn open(config: &DnsConfig) -> io::Result<Self> {
        let open = |path: &std::path::Path| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        let own = open(std::path::Path::new("/proc/self/ns/net"))?;
        let theirs = open(&config.netns)?;
        move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network))?;
        let bound = bind(config.port);
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?;
        let (udp, tcp) = bound?;
        Ok(Self {
            udp,
            tcp,
            connections: Vec::new(),
            relays: Vec::new(),
            sources: SourceFiles::new(config.sources.clone()),
            next_connection: 0,
        })
    }

    /// Name every descriptor to wait for.
    pub(crate) fn poll<'a>(&'a self, add: &mut impl FnMut(Place, BorrowedFd<'a>, PollFlags)) {
        add(Place::Udp, self.udp.as_fd(), PollFlags::IN);
        if self.connections.len() < MAX_CONNECTIONS {
            add(Place::Tcp, self.tcp.as_fd(), PollFlags::IN);
        }
        for connection in &self.connections {
            let flags = if connection.output.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            add(Place::Connection(connection.id), connection.stream.as_fd(), flags);
        }
        for (place, relay) in self.relays.iter().enumerate() {
            let (fd, flags) = relay.interest();
            add(Place::Relay(place), fd, flags);
        }
    }

    /// When something must be given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let relays = self.relays.iter().map(|relay| relay.deadline);
        relays.chain(self.connections.iter().map(|connection| connection.end)).min()
    }

    /// A descriptor is ready. Nothing is removed before [`expire`](Self::expire), so that the places of
    /// one turn stay what they are.
    pub(crate) fn serve(&mut self, place: Place) {
        match place {
            Place::Udp => self.serve_udp(),
            Place::Tcp => self.accept(),
            Place::Connection(id) => {
                if let Some(place) = self.connections.iter().position(|c| c.id == id) {
                    self.serve_connection(place);
                }
            }
            Place::Relay(place) => {
                let step = self.relays[place].step();
                self.take_step(place, step);
            }
        }
    }

    fn serve_udp(&mut self) {
        let mut buffer = [0_u8; MAX_MESSAGE];
        for _ in 0..MAX_DATAGRAMS {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer) else { return };
            self.answer(&buffer[..length], Asker::Udp(from));
        }
    }

    fn accept(&mut self) {
        if let Ok((stream, _)) = self.tcp.accept()
            && stream.set_nonblocking(true).is_ok()
        {
            self.next_connection += 1;
            self.connections.push(Connection {
                id: self.next_connection,
                stream,
                input: Vec::new(),
                output: Vec::new(),
                end: Instant::now() + IDLE,
                closed: false,
            });
        }
    }

    fn serve_connection(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        connection.exchange();
        let id = connection.id;
        while let Some(query) = self.connections[place].next_query() {
            self.connections[place].end = Instant::now() + IDLE;
            self.answer(&query, Asker::Tcp(id));
        }
    }

    /// Answer a question from the files, or pass it on.
    fn answer(&mut self, query: &[u8], asker: Asker) {
        let Some(question) = dns::question(query) else { return };
        if let Some(answer) = self.sources.answer(&question, query) {
            self.reply(asker, &answer);
            return;
        }
        let servers = self.sources.upstreams();
        let relay =
            if self.relays.len() < MAX_RELAYS { Relay::begin(query, asker, servers) } else { None };
        match relay {
            Some(relay) => self.relays.push(relay),
            // Also where there is nobody to ask: the name may well be one elsewhere.
            None => self.reply(asker, &question.fail(query, Code::ServerFailure)),
        }
    }

    fn take_step(&mut self, place: usize, step: Step) {
        match step {
            Step::Wait => {}
            Step::Answer(answer) => {
                let asker = self.relays[place].asker;
                self.relays[place].done = true;
                self.reply(asker, &answer);
            }
            Step::Failed => self.try_next(place),
        }
    }

    fn try_next(&mut self, place: usize) {
        let servers = self.sources.upstreams();
        if self.relays[place].next(servers) {
            return;
        }
        let relay = &mut self.relays[place];
        relay.done = true;
        let (query, asker) = (std::mem::take(&mut relay.query), relay.asker);
        if let Some(question) = dns::question(&query) {
            self.reply(asker, &question.fail(&query, Code::ServerFailure));
        }
    }

    fn reply(&mut self, asker: Asker, answer: &[u8]) {
        match asker {
            Asker::Udp(to) => {
                let _ = self.udp.send_to(answer, to);
            }
            Asker::Tcp(id) => {
                if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
                    connection.output.extend_from_slice(&(answer.len() as u16).to_be_bytes());
                    connection.output.extend_from_slice(answer);
                    // What has come meanwhile is for the next turn: one who asks without a pause would
                    // keep this one from ending.
                    connection.write();
                }
            }
        }
    }

    /// End of a turn: give up what has taken too long, and forget what is done.
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        for place in 0..self.relays.len() {
            if !self.relays[place].done && self.relays[place].deadline <= now {
                self.try_next(place);
            }
        }
        self.relays.retain(|relay| !relay.done);
        self.connections.retain(|connection| !connection.closed && connection.end > now);
    }
}

impl Connection {
    /// Write what is to be written.
    fn write(&mut self) {
        use std::io::Write as _;
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) if count > 0 => {
                    self.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Write what is to be written; then read what has come, at most one buffer of it.
    fn exchange(&mut self) {
        use std::io::Read as _;
        self.write();
        if !self.output.is_empty() || self.closed {
            return;
        }
        let mut buffer = [0_u8; MAX_MESSAGE];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.closed = true,
        }
    }

    fn next_query(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes([*self.input.first()?, *self.input.get(1)?]));
        if length > MAX_MESSAGE {
            self.closed = true;
            return None;
        }
        let query = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(query)
    }
}

fn bind(port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let named = |what: &str, error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("binding the container's name service ({what}): {error}"),
        )
    };
    let udp = UdpSocket::bind((ADDRESS, port)).map_err(|error| named("udp", error))?;
    let tcp = TcpListener::bind((ADDRESS, port)).map_err(|error| named("tcp", error))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A question for `a`.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    /// A name service outside any namespace, which knows nothing.
    fn resolver() -> Resolver {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        udp.set_nonblocking(true).unwrap();
        Resolver {
            udp,
            tcp,
            connections: Vec::new(),
            relays: Vec::new(),
            sources: SourceFiles::new("/nonexistent/sources".into()),
            next_connection: 0,
        }
    }

    #[test]
    fn a_flood_of_datagrams_does_not_keep_a_turn_from_ending() {
        let mut resolver = resolver();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..MAX_DATAGRAMS + 10 {
            client.send_to(QUERY, resolver.udp.local_addr().unwrap()).unwrap();
        }
        resolver.serve(Place::Udp);
        let mut buffer = [0; 64];
        let left = std::iter::from_fn(|| resolver.udp.recv_from(&mut buffer).ok()).count();
        assert_eq!(left, 10);
        client.set_nonblocking(true).unwrap();
        let answers = std::iter::from_fn(|| client.recv(&mut buffer).ok()).count();
        assert_eq!(answers, MAX_DATAGRAMS);
        assert_eq!(buffer[3] & 15, Code::ServerFailure as u8, "nobody can be asked");
    }

    #[test]
    fn a_connection_that_asks_without_a_pause_does_not_keep_a_turn_from_ending() {
        let mut resolver = resolver();
        let mut client = TcpStream::connect(resolver.tcp.local_addr().unwrap()).unwrap();
        resolver.serve(Place::Tcp);
        let one = [&(QUERY.len() as u16).to_be_bytes()[..], QUERY].concat();
        client.write_all(&one.repeat(4 * MAX_MESSAGE / one.len())).unwrap();
        let id = resolver.connections[0].id;
        resolver.serve(Place::Connection(id));
        let mut buffer = [0; 1];
        let more = resolver.connections[0].stream.peek(&mut buffer).unwrap();
        assert_eq!(more, 1, "what is over one buffer waits for the next turn");
    }
}
