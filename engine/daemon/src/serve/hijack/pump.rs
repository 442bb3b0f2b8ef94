//! Moves bytes between a client and a session of a container's shim.

use std::time::Duration;

use minke_engine_shim::protocol::{CHUNK, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::DetachKeys;
use crate::serve::socket::{Probe, Socket};
use crate::shim::{Connection, Reader, Writer};

/// How often it is looked whether a client that has ended its input is still there.
const LOOK: Duration = Duration::from_secs(2);

/// How the bytes are to be treated.
pub(crate) struct Terminal {
    /// Output has no frames.
    pub(crate) raw: bool,
    /// The client's bytes are the session's input.
    pub(crate) stdin: bool,
    /// Keys that detach.
    pub(crate) keys: Option<DetachKeys>,
}

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The session's process ended with this code and all its output is through.
    Exited(i64),
    /// The client typed the keys.
    Detached,
    /// The client or the shim is gone.
    Gone,
}

/// A chunk of output in Docker's frame.
pub(crate) fn frame(stderr: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + bytes.len());
    out.extend_from_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Moves bytes until the end.
pub(crate) async fn pump(
    client: &mut Socket,
    early: Vec<u8>,
    connection: &mut Connection,
    mut terminal: Terminal,
) -> Outcome {
    let Connection { reader, writer } = connection;
    let Ok(probe) = client.probe() else { return Outcome::Gone };
    let (from_client, mut to_client) = tokio::io::split(client);
    let raw = terminal.raw;
    // Input is dropped when output ends and the other way round: neither holds anything that the
    // other side would miss then.
    tokio::select! {
        outcome = output(reader, &mut to_client, raw) => outcome,
        outcome = input(from_client, probe, early, writer, &mut terminal) => outcome,
    }
}

async fn output(reader: &mut Reader, client: &mut (impl AsyncWrite + Unpin), raw: bool) -> Outcome {
    loop {
        let (stderr, bytes) = match reader.next().await {
            Ok(Some(Response::Stdout(bytes))) => (false, bytes),
            Ok(Some(Response::Stderr(bytes))) => (true, bytes),
            Ok(Some(Response::Exited(exit))) => return Outcome::Exited(i64::from(exit.code)),
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => return Outcome::Gone,
        };
        let bytes = if raw { bytes } else { frame(stderr, &bytes) };
        if client.write_all(&bytes).await.is_err() {
            return Outcome::Gone;
        }
    }
}

/// Passes the client's bytes on. Ends only when the client detaches or is gone for good.
async fn input(
    mut client: impl AsyncRead + Unpin,
    probe: Probe,
    mut bytes: Vec<u8>,
    session: &mut Writer,
    terminal: &mut Terminal,
) -> Outcome {
    loop {
        if terminal.stdin && !bytes.is_empty() {
            let detached = match &mut terminal.keys {
                Some(keys) => {
                    let (onward, detached) = keys.feed(&bytes);
                    bytes = onward;
                    detached
                }
                None => false,
            };
            for piece in bytes.chunks(CHUNK) {
                if session.send(&Request::Stdin(piece.to_vec())).await.is_err() {
                    // The session is at its end: its last output is still on the way.
                    return std::future::pending().await;
                }
            }
            if detached {
                return Outcome::Detached;
            }
        }
        bytes.clear();
        match client.read_buf(&mut bytes).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return Outcome::Gone,
        }
    }
    if terminal.stdin {
        // A session that is at its end needs no end of input.
        let _ = session.send(&Request::StdinEnd).await;
    }
    hung_up(probe).await;
    Outcome::Gone
}

/// Resolves when the other side has closed the connection, not only its own direction.
pub(super) async fn hung_up(client: Probe) {
    while !client.is_gone() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads a session to its end; its exit code.
pub(super) async fn drain(mut connection: Connection) -> i64 {
    loop {
        match connection.reader.next().await {
            Ok(Some(Response::Exited(exit))) => return i64::from(exit.code),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return 137,
        }
    }
}
