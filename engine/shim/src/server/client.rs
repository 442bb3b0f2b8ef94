//! A connection to the control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use minke_engine_shim::protocol::{Response, Streams, encode_output};

/// While a client has this much to read, nothing more is read from its session, bytes.
const QUEUE_LIMIT: usize = 256 * 1024;

/// One client.
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) stream: UnixStream,
    /// Bytes of requests that are not whole, or that must wait.
    pub(super) input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    pub(super) greeted: bool,
    /// The session it is bound to, and what it wants of it.
    pub(super) bound: Option<(String, Streams)>,
    /// Sessions whose end it waits for.
    pub(super) waits: Vec<String>,
    /// No more requests come.
    pub(super) ended: bool,
    pub(super) dead: bool,
    /// Its requests wait until its session has taken stdin.
    pub(super) blocked: bool,
}

impl Client {
    pub(super) fn new(id: u64, stream: UnixStream) -> Self {
        Self {
            id,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            greeted: false,
            bound: None,
            waits: Vec::new(),
            ended: false,
            dead: false,
            blocked: false,
        }
    }

    /// Bytes that it has not taken yet.
    pub(super) fn queued(&self) -> usize {
        self.output.len() - self.sent
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued() >= QUEUE_LIMIT
    }

    pub(super) fn send(&mut self, response: &Response) {
        response.encode(&mut self.output);
        self.flush();
    }

    pub(super) fn send_output(&mut self, stderr: bool, bytes: &[u8]) {
        encode_output(&mut self.output, stderr, bytes);
        self.flush();
    }

    /// Write what it takes.
    pub(super) fn flush(&mut self) {
        while self.queued() > 0 && !self.dead {
            match (&self.stream).write(&self.output[self.sent..]) {
                Ok(0) => self.dead = true,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.dead = true,
            }
        }
        if self.queued() == 0 {
            self.sent = 0;
            // Memory that one burst needed is not kept by a process that lives as long as a container.
            if self.output.capacity() > 4096 {
                self.output = Vec::new()
            } else {
                self.output.clear()
            }
        } else if self.sent > QUEUE_LIMIT {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Read what has come, at most one buffer full.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        match (&self.stream).read(buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.dead = true,
        }
    }

    /// Whether more requests should be read from it now.
    pub(super) fn wants_input(&self) -> bool {
        !self.ended && !self.dead && !self.blocked && !self.is_full()
    }
}
