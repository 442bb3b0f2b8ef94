//! A client of the keeper, for one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::protocol::{Answer, Line, MAX_LINE, Request, VERSION};

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum ClientError {
    #[error("the keeper at {} cannot be reached", socket.display())]
    Unreachable { socket: PathBuf, source: std::io::Error },
    #[error("the keeper's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

/// Calls the keeper; blocking, for a few milliseconds.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the keeper that listens on `socket`.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Asks, and gives the answer's value.
    pub fn call(&self, request: &Request) -> Result<Option<String>, ClientError> {
        let line = self
            .exchange(request)
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let answer: Answer = serde_json::from_slice(&line).map_err(ClientError::Unreadable)?;
        match answer {
            Answer { ok: true, value, .. } => Ok(value),
            Answer { error, .. } => Err(ClientError::Refused(error.unwrap_or_default())),
        }
    }

    fn exchange(&self, request: &Request) -> std::io::Result<Vec<u8>> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let mut text = serde_json::to_vec(&Line { v: VERSION, request: request.clone() })?;
        text.push(b'\n');
        (&stream).write_all(&text)?;
        let mut line = Vec::new();
        BufReader::new((&stream).take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
        Ok(line)
    }
}
