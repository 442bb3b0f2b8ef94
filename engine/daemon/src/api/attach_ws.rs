//! `/containers/{id}/attach/ws`: a running container's streams over a WebSocket, without frames.

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::Response;
use minke_engine_shim::protocol::{CHUNK, Request, Response as ShimResponse, Streams};

use super::params::Params;
use crate::containers::start::attach_early;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::shim::Connection;

pub(super) async fn attach(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
    upgrade: WebSocketUpgrade,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let stdin = params.flag("stdin") && container.lock().config.config.open_stdin;
    let streams = Streams { stdin, stdout: params.flag("stdout"), stderr: params.flag("stderr") };
    let running = container.status().has_process();
    let early = (!running).then(|| attach_early(&container, streams));
    let connected = if running {
        let mut connection = container.connect().await?;
        let bound = connection.attach("", streams).await;
        bound.map_err(Error::system("attaching to the container"))?;
        Some(connection)
    } else {
        None
    };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let connection = match (connected, early) {
            (Some(connection), _) => Some(connection),
            (None, Some(bound)) => bound.await.ok(),
            (None, None) => None,
        };
        if let Some(connection) = connection {
            pump(socket, connection, stdin).await;
        }
    }))
}

async fn pump(mut socket: WebSocket, connection: Connection, stdin: bool) {
    let Connection { mut reader, mut writer } = connection;
    loop {
        // Both arms are cancel-safe: a message or a frame is taken whole or not at all.
        tokio::select! {
            response = reader.next() => match response {
                Ok(Some(ShimResponse::Stdout(bytes) | ShimResponse::Stderr(bytes))) => {
                    if socket.send(Message::Binary(bytes.into())).await.is_err() {
                        return;
                    }
                }
                Ok(Some(ShimResponse::Exited(_)) | None) | Err(_) => {
                    let _ = socket.send(Message::Close(None)).await;
                    return;
                }
                Ok(Some(_)) => {}
            },
            message = socket.recv() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                };
                for piece in bytes.chunks(CHUNK).filter(|_| stdin) {
                    if writer.send(&Request::Stdin(piece.to_vec())).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}
