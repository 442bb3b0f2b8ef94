//! The sockets: listens, reads each request's head, and hands it to who answers it.
//!
//! A connection carries one request. Its head is read here before hyper sees it, because some calls
//! take the whole connection over (attach, exec), also without asking for an upgrade, which hyper does
//! not give away. The socket answers `/_ping` before the engine's state is read; every other call
//! waits until that is done.

mod gate;
mod head;
pub(crate) mod hijack;
mod listen;
mod rewind;
mod socket;

use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use minke_engine_rest as rest;
use tokio::signal::unix::{SignalKind, signal};

use crate::daemon::{Daemon, lock_data};
use crate::options::EngineOptions;
use crate::{api, containers, damage, users};
pub(crate) use gate::Gate;
use head::Heard;
use listen::{Accepted, Listeners};
use rewind::Rewind;

/// How long a client may take to send a request's head.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Runs an engine until it gets SIGTERM or SIGINT. Containers go on when it ends.
pub fn run(options: EngineOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .context("making the runtime")?;
    let result = runtime.block_on(serve(options));
    // Blocking work that goes on (an unpack, say) is as safe to cut off as a crash.
    runtime.shutdown_background();
    result
}

/// Removes what an engine with this data directory left on the machine: containers and their anonymous
/// volumes, mounts, networks, rules and cgroups. Images and named volumes stay.
pub fn clean_up(options: EngineOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the runtime")?;
    runtime.block_on(async {
        let _lock = lock_data(&options.data)?;
        let daemon = Daemon::open(options)
            .await
            .map_err(|error| anyhow::anyhow!("{}", error.message()))
            .context("opening the engine's data")?;
        containers::sweep::leave_nothing(&daemon).await;
        Ok(())
    })
}

async fn serve(options: EngineOptions) -> anyhow::Result<()> {
    let _lock = lock_data(&options.data)?;
    let listeners = Listeners::open(&options).await?;
    let socket = options.socket.clone();
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let gate = Gate::new();
    let build_worker = options.build_worker;
    let opened = open(options, gate.clone());
    tokio::pin!(opened);
    let mut opening = true;
    let quiet = tokio::time::sleep(rest::QUIET);
    tokio::pin!(quiet);
    let mut resting = false;
    let result = loop {
        // Every arm is cancel-safe but the opening, which is polled to its end.
        tokio::select! {
            accepted = listeners.accept() => match accepted {
                Ok(accepted) => {
                    resting = false;
                    quiet.as_mut().reset(tokio::time::Instant::now() + rest::QUIET);
                    tokio::spawn(connection(accepted, gate.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            done = &mut opened, if opening => {
                opening = false;
                if let Err(error) = done {
                    break Err(error);
                }
            }
            () = &mut quiet, if !resting && !opening => {
                resting = true;
                rest::give_memory_back();
            }
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
        }
    };
    // A socket that nobody listens on tells a client more slowly that there is no engine.
    let _ = std::fs::remove_file(&socket);
    if build_worker {
        if opening {
            // What it is about to make would stay.
            let _ = opened.await;
        }
        if let Some(daemon) = gate.now() {
            containers::sweep::leave_nothing(&daemon).await;
        }
    }
    result
}

/// Reads the engine's state, puts the kernel in line with it, and opens the gate.
async fn open(options: EngineOptions, gate: Gate) -> anyhow::Result<()> {
    let say = |error: crate::error::Error| anyhow::anyhow!("{}", error.message());
    let daemon = Daemon::open(options).await.map_err(say).context("opening the engine's data")?;
    if daemon.options.build_worker {
        containers::sweep::leave_nothing(&daemon).await;
    }
    if let Some(range) = daemon.options.user_range {
        users::check(&daemon, range).map_err(say)?;
    }
    containers::adopt::adopt_all(&daemon).await.map_err(say).context("taking over what runs")?;
    if let Err(error) = daemon.ensure_default_network().await {
        // Containers with other networks can do without.
        tracing::error!(error = error.message(), "there is no default network");
    }
    let router = api::router(&daemon).await.map_err(say)?;
    gate.open(daemon.clone(), router);
    damage::watch(&daemon);
    if let Some(warning) = daemon.networks.detect_forward_drop().await {
        tracing::warn!("{warning}");
    }
    Ok(())
}

async fn connection(accepted: Accepted, gate: Gate) {
    let secured = tokio::time::timeout(HEAD_TIME, accepted.secure()).await;
    let mut stream = match secured {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a client was not let in"),
        Err(_) => return,
    };
    let read = tokio::time::timeout(HEAD_TIME, head::read(&mut stream)).await;
    let (head, bytes) = match read.unwrap_or(Heard::TooSlow(HEAD_TIME)) {
        Heard::Head(head, bytes) => (head, bytes),
        refused => return head::refuse(&mut stream, refused).await,
    };
    if let Some(target) = hijack::target(&head) {
        hijack::serve(stream, head, bytes, target, gate).await;
        return;
    }
    // A client may end its input and still wait for the answer; one that is gone wants none.
    let farewell = stream.farewell().ok().flatten();
    let service = hyper::service::service_fn(move |request| {
        let gate = gate.clone();
        async move {
            let mut answer = api::answer(request, gate).await;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        // Without, hyper would say `close` where an upgrade must say `upgrade`.
        .keep_alive(head.header("upgrade").is_some())
        .half_close(farewell.is_some())
        .serve_connection(TokioIo::new(Rewind::new(bytes, stream)), service)
        .with_upgrades();
    let gone = async {
        match &farewell {
            Some(farewell) => farewell.said().await,
            None => std::future::pending().await,
        }
    };
    // Dropping the connection gives up what was being done for it.
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection broke");
            }
        }
        () = gone => {}
    }
}
