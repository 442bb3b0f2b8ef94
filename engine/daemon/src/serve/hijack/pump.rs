//! Moves bytes between a client and a session of a container's shim.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use minke_engine_shim::protocol::{CHUNK, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::DetachKeys;
use crate::serve::socket::{Probe, Socket};
use crate::shim::{Connection, Reader, Writer};

/// How often it is looked whether a client that has ended its input is still there.
const LOOK: Duration = Duration::from_secs(2);
/// Output that waits here for a slow client, bytes; then the session waits.
const MAX_WAITING: usize = 1 << 20;

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
    put_frame(&mut out, stderr, bytes);
    out
}

fn put_frame(out: &mut impl BufMut, stderr: bool, bytes: &[u8]) {
    out.put_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Moves bytes until the end. `over` resolves when the session's process has ended, if that is known before
/// all output has come.
pub(crate) async fn pump(
    client: &mut Socket,
    early: Vec<u8>,
    connection: &mut Connection,
    mut terminal: Terminal,
    over: impl Future<Output = ()>,
) -> Outcome {
    let Connection { reader, writer } = connection;
    let Ok(probe) = client.probe() else { return Outcome::Gone };
    let (from_client, mut to_client) = tokio::io::split(client);
    let raw = terminal.raw;
    // Input is dropped when output ends and the other way round: neither holds anything that the
    // other side would miss then.
    tokio::select! {
        outcome = output(reader, &mut to_client, raw, over) => outcome,
        outcome = input(from_client, probe, early, writer, &mut terminal) => outcome,
    }
}

/// Hands output on to a client that may be slow. While much waits for it, the session waits too; once
/// that is over, its shim will not wait, so what is left is taken in.
async fn output(
    reader: &mut Reader,
    client: &mut (impl AsyncWrite + Unpin),
    raw: bool,
    over: impl Future<Output = ()>,
) -> Outcome {
    let mut over = std::pin::pin!(over);
    let (mut is_over, mut outcome) = (false, None);
    let mut waiting = BytesMut::new();
    loop {
        if let (Some(outcome), true) = (outcome, waiting.is_empty()) {
            return outcome;
        }
        let takes_in = outcome.is_none() && (is_over || waiting.len() < MAX_WAITING);
        // All arms are cancel-safe: bytes stay in the connection's buffer or in `waiting`.
        tokio::select! {
            response = reader.next(), if takes_in => match response {
                Ok(Some(Response::Stdout(bytes))) => put(&mut waiting, raw, false, &bytes),
                Ok(Some(Response::Stderr(bytes))) => put(&mut waiting, raw, true, &bytes),
                Ok(Some(Response::Exited(exit))) => {
                    outcome = Some(Outcome::Exited(i64::from(exit.code)));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => outcome = Some(Outcome::Gone),
            },
            written = client.write_buf(&mut waiting), if !waiting.is_empty() => {
                if !matches!(written, Ok(1..)) {
                    return Outcome::Gone;
                }
            }
            () = &mut over, if !is_over => is_over = true,
        }
    }
}

fn put(waiting: &mut BytesMut, raw: bool, stderr: bool, bytes: &[u8]) {
    if raw {
        waiting.put_slice(bytes);
    } else {
        put_frame(waiting, stderr, bytes);
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
