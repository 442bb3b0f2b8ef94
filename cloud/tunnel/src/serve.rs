//! The server's one listener: HTTP for the router, `CONNECT` for the tunnels.
//!
//! `CONNECT` names an authority instead of a path, so it is taken out before routing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, Response};
use futures_util::StreamExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::ConnectHandler;

/// What may be set about the listener.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// How long a client has to send a request's headers, and may keep a connection idle.
    pub header_timeout: Duration,
    /// How long running requests may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(60), drain: Duration::from_secs(10) }
    }
}

/// An answer of which more than this was sent is a transfer.
const TRANSFER: u64 = 256 * 1024;

/// Serves `listener` until `shutdown` is ready, then lets running requests end; transfers are cut off
/// where they are, to be resumed. The address of the client is in each request's [`ConnectInfo`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connect: ConnectHandler,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // Both arms are cancel-safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (router, connect) = (router.clone(), connect.clone());
                let (stopping, header_timeout) = (stopping.clone(), options.header_timeout);
                tasks.spawn(async move {
                    connection(socket, peer, router, connect, header_timeout, stopping).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: existing connections have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    tasks.close();
    if tokio::time::timeout(options.drain, tasks.wait()).await.is_err() {
        tracing::info!(requests = tasks.len(), "stopped waiting for requests that do not end");
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    connect: ConnectHandler,
    header_timeout: Duration,
    stopping: CancellationToken,
) {
    // Small answers must not wait for the client's delayed acknowledgement.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let router = TowerToHyperService::new(router);
    let stop_transfers = stopping.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, connect) = (router.clone(), connect.clone());
        let stop_transfers = stop_transfers.clone();
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            let response: Result<Response<Body>, Infallible> = match *request.method() {
                Method::CONNECT => Ok(connect.answer(request).await),
                _ => router.call(request).await,
            };
            response.map(|response| response.map(|body| interruptible(body, stop_transfers)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(256 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

/// A body that breaks off when the server stops, unless it is a short one.
fn interruptible(body: Body, stopping: CancellationToken) -> Body {
    if body.size_hint().upper().is_some_and(|most| most <= TRANSFER) {
        return body;
    }
    let mut sent = 0;
    let pieces = body.into_data_stream().map(move |piece| {
        if sent > TRANSFER && stopping.is_cancelled() {
            return Err(axum::Error::new(io::Error::other("the server stops")));
        }
        sent += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        piece
    });
    Body::from_stream(pieces)
}
