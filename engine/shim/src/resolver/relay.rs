//! One question on its way to an upstream server and back, over the transport that it came by.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use minke_engine_shim::dns::MAX_MESSAGE;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Asker;

/// How long one server may take.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How often all servers are tried.
const ROUNDS: usize = 2;

enum Transport {
    Udp(UdpSocket),
    /// The stream, what is still to be sent, and what has come.
    Tcp(TcpStream, Vec<u8>, Vec<u8>),
}

/// What reading from the server brought.
pub(super) enum Step {
    Wait,
    Answer(Vec<u8>),
    Failed,
}

/// A question in flight.
pub(super) struct Relay {
    pub(super) query: Vec<u8>,
    pub(super) asker: Asker,
    pub(super) deadline: Instant,
    pub(super) done: bool,
    transport: Transport,
    tries: usize,
}

impl Relay {
    /// Ask the first server that can be asked.
    pub(super) fn begin(query: &[u8], asker: Asker, servers: &[SocketAddr]) -> Option<Self> {
        for (place, server) in servers.iter().enumerate() {
            if let Ok(transport) = open(query, asker, *server) {
                let deadline = Instant::now() + PATIENCE;
                let query = query.to_vec();
                let tries = place + 1;
                return Some(Self { query, asker, deadline, done: false, transport, tries });
            }
        }
        None
    }

    /// Ask the next server; false if all have been asked often enough.
    pub(super) fn next(&mut self, servers: &[SocketAddr]) -> bool {
        while self.tries < servers.len() * ROUNDS {
            let server = servers[self.tries % servers.len()];
            self.tries += 1;
            if let Ok(transport) = open(&self.query, self.asker, server) {
                self.transport = transport;
                self.deadline = Instant::now() + PATIENCE;
                return true;
            }
        }
        false
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.transport {
            Transport::Udp(socket) => (socket.as_fd(), PollFlags::IN),
            Transport::Tcp(stream, output, _) if output.is_empty() => {
                (stream.as_fd(), PollFlags::IN)
            }
            Transport::Tcp(stream, _, _) => (stream.as_fd(), PollFlags::OUT),
        }
    }

    /// Go on as far as possible.
    pub(super) fn step(&mut self) -> Step {
        let answer = match &mut self.transport {
            Transport::Udp(socket) => receive(socket),
            Transport::Tcp(stream, output, input) => exchange(stream, output, input),
        };
        match answer {
            Ok(Some(answer)) if answer.get(..2) == self.query.get(..2) => Step::Answer(answer),
            // Somebody else's answer; the right one may follow.
            Ok(_) => Step::Wait,
            Err(_) => Step::Failed,
        }
    }
}

fn open(query: &[u8], asker: Asker, server: SocketAddr) -> io::Result<Transport> {
    match asker {
        Asker::Udp(_) => {
            let any: SocketAddr = match server {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            // A new port for every question makes answers hard to forge.
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            socket.send(query)?;
            Ok(Transport::Udp(socket))
        }
        Asker::Tcp(_) => {
            let family = match server {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&socket, &server) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            let mut output = (query.len() as u16).to_be_bytes().to_vec();
            output.extend_from_slice(query);
            Ok(Transport::Tcp(TcpStream::from(socket), output, Vec::new()))
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0_u8; MAX_MESSAGE];
    match socket.recv(&mut buffer) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn exchange(
    stream: &mut TcpStream,
    output: &mut Vec<u8>,
    input: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    while !output.is_empty() {
        match stream.write(output) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => drop(output.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut buffer = [0_u8; MAX_MESSAGE];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some(header) = input.get(..2) {
            let length = usize::from(u16::from_be_bytes([header[0], header[1]]));
            if let Some(answer) = input.get(2..2 + length) {
                return Ok(Some(answer.to_vec()));
            }
        }
    }
}
