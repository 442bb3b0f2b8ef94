//! `/containers/{id}/attach/ws`: a container's streams over a WebSocket, without frames.

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::Response;
use futures_util::stream::SplitStream;
use futures_util::{Sink, SinkExt, StreamExt};
use minke_engine_shim::protocol::{CHUNK, Request, Response as ShimResponse, Streams};

use super::params::Params;
use crate::containers::document::Status;
use crate::containers::start::attach_early;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::logs::{Follower, Query};
use crate::serve::hijack::DetachKeys;
use crate::shim::{Connection, Reader, Writer};

/// Longest message of a client, bytes.
const LONGEST: usize = 1 << 20;

pub(super) async fn attach(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
    upgrade: WebSocketUpgrade,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let keys = DetachKeys::parse(params.text("detachKeys").unwrap_or_default())?;
    let (tty, open_stdin) = {
        let cell = container.lock();
        (cell.config.config.tty, cell.config.config.open_stdin)
    };
    let stdin = params.flag("stdin") && open_stdin;
    let streams = Streams { stdin, stdout: params.flag("stdout"), stderr: params.flag("stderr") };
    if container.status() == Status::Paused {
        return Err(Error::Conflict(format!(
            "container {} is paused, unpause the container before attach",
            container.id
        )));
    }
    let (logs, stream) = (params.flag("logs"), params.flag("stream"));
    let running = container.status().has_process();
    let early = (stream && !running).then(|| attach_early(&container, streams));
    let connected = if stream && running {
        let mut connection = container.connect().await?;
        let bound = connection.attach("", streams).await;
        bound.map_err(Error::system("attaching to the container"))?;
        Some(connection)
    } else {
        None
    };
    let log = logs.then(|| {
        let query = Query { stdout: streams.stdout, stderr: streams.stderr, ..Query::default() };
        Follower::open(&container.log_path(), query, None)
    });
    daemon.events.publish("container", "attach", &container.id, container.attributes());
    Ok(upgrade.max_message_size(LONGEST).on_upgrade(move |mut socket| async move {
        if let Some(Ok(log)) = log
            && replay(&mut socket, log).await.is_none()
        {
            return;
        }
        let connection = match (connected, early) {
            (Some(connection), _) => Some(connection),
            (None, Some(bound)) => wait_for_start(&mut socket, bound).await,
            (None, None) => None,
        };
        match connection {
            Some(connection) => {
                let keys = tty.then_some(keys);
                if pump(socket, connection, stdin, keys).await {
                    let attributes = container.attributes();
                    daemon.events.publish("container", "detach", &container.id, attributes);
                }
            }
            // The client has gone, or has all it asked for.
            None => {
                let _ = socket.send(Message::Close(None)).await;
            }
        }
    }))
}

/// Sends what was logged; `None` if the client goes away.
async fn replay(socket: &mut WebSocket, mut log: Follower) -> Option<()> {
    while let Ok(Some(lines)) = log.next().await {
        for line in lines {
            let bytes = line.text.into_bytes();
            socket.send(Message::Binary(bytes.into())).await.ok()?;
        }
    }
    Some(())
}

/// Waits for the container's start; `None` if it fails or the client goes away first.
async fn wait_for_start(
    socket: &mut WebSocket,
    mut bound: tokio::sync::oneshot::Receiver<Connection>,
) -> Option<Connection> {
    loop {
        // Both arms are cancel-safe.
        tokio::select! {
            connection = &mut bound => return connection.ok(),
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                // There is nobody yet who could read it.
                Some(Ok(_)) => {}
            },
        }
    }
}

/// Moves bytes until the end; whether the client typed the keys that detach.
async fn pump(
    socket: WebSocket,
    connection: Connection,
    stdin: bool,
    mut keys: Option<DetachKeys>,
) -> bool {
    let Connection { mut reader, mut writer } = connection;
    let (mut to_client, mut from_client) = socket.split();
    // Neither waits for the other: a client may read only when all that it has sent is taken.
    let detached = tokio::select! {
        () = output(&mut reader, &mut to_client) => false,
        detached = input(&mut from_client, &mut writer, stdin, &mut keys) => detached,
    };
    let _ = to_client.send(Message::Close(None)).await;
    detached
}

/// Hands output on until it ends or the client is gone.
async fn output(reader: &mut Reader, client: &mut (impl Sink<Message> + Unpin)) {
    loop {
        match reader.next().await {
            Ok(Some(ShimResponse::Stdout(bytes) | ShimResponse::Stderr(bytes))) => {
                if client.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
            }
            Ok(Some(ShimResponse::Exited(_)) | None) | Err(_) => return,
            Ok(Some(_)) => {}
        }
    }
}

/// Passes messages on until the client is gone (false) or types the keys (true).
async fn input(
    client: &mut SplitStream<WebSocket>,
    session: &mut Writer,
    stdin: bool,
    keys: &mut Option<DetachKeys>,
) -> bool {
    loop {
        let mut bytes = match client.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
            Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(_)) => continue,
        };
        if !stdin {
            continue;
        }
        let mut detached = false;
        if let Some(keys) = keys {
            (bytes, detached) = keys.feed(&bytes);
        }
        for piece in bytes.chunks(CHUNK) {
            if session.send(&Request::Stdin(piece.to_vec())).await.is_err() {
                // The session is at its end: its last output is still on the way.
                return std::future::pending().await;
            }
        }
        if detached {
            return true;
        }
    }
}
