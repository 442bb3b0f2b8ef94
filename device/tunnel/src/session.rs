//! One tunnel that is up: carries its streams until it is lost or no longer right.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use minke_common_tunnel::{Event, Mux, MuxError, Side};
use minke_device_cloud_client::ConfigFile;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::dial::Socket;
use crate::endpoint::Endpoint;
use crate::look::{LookError, look, up_for};
use crate::options::TunnelOptions;
use crate::random;
use crate::streams::Streams;

/// Heartbeats without an answer after which the server is gone.
const MISSED: u32 = 2;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the server closed the tunnel")]
    Closed,
    #[error("the server said nothing for {MISSED} heartbeats")]
    Silent,
    #[error("config.json names another server or key")]
    Changed,
    #[error("the device stops")]
    Stopped,
    #[error("the tunnel broke")]
    Broken(#[source] MuxError),
}

/// Carries streams until the session ends; all of them end with it.
pub(crate) async fn run(
    socket: Socket,
    endpoint: &Endpoint,
    config: &ConfigFile,
    options: &Arc<TunnelOptions>,
    stop: &CancellationToken,
) -> End {
    let mut mux = Mux::new(socket, Side::Device);
    let (streams, mut tasks) = (Streams::new(options.clone()), JoinSet::new());
    let catch_up = options.clone();
    tasks.spawn(async move {
        told(up_for(&catch_up, catch_up.lease).await);
        told(look(&catch_up).await);
    });
    let mut renewal = every(options.lease / 2);
    // A fleet that came back all at once does not beat all at once.
    let mut beat = every(options.heartbeat.mul_f64(0.85 + 0.15 * random::fraction()));
    let mut config_look = every(options.config_poll);
    let (mut heard, mut silent) = (0, 0);
    let end = loop {
        // Every arm is cancel-safe: a poll of the multiplexer leaves nothing half done.
        tokio::select! {
            event = poll_fn(|cx| mux.poll(cx)) => match event {
                Event::Stream(stream) => drop(tasks.spawn(streams.clone().answer(stream))),
                Event::Ended(Ok(())) => break End::Closed,
                Event::Ended(Err(error)) => break End::Broken(error),
            },
            // Finished streams are let go of.
            Some(_) = tasks.join_next() => {}
            _ = beat.tick() => {
                silent = if mux.heard() == heard { silent + 1 } else { 0 };
                heard = mux.heard();
                if silent >= MISSED {
                    break End::Silent;
                }
                mux.ping();
            }
            _ = renewal.tick() => {
                let options = options.clone();
                tasks.spawn(async move { told(up_for(&options, options.lease).await) });
            }
            _ = config_look.tick() => {
                if Endpoint::of(&config.get()).ok().as_ref() != Some(endpoint) {
                    break End::Changed;
                }
            }
            () = stop.cancelled() => break End::Stopped,
        }
    };
    if matches!(end, End::Changed | End::Stopped) {
        let goodbye = poll_fn(|cx| mux.poll_close(cx));
        // The server may be gone too: then nobody waits for the goodbye.
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
    // A supervisor that does not answer at once finds out when the lease ends.
    let goodbye = up_for(options, Duration::ZERO);
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    end
}

fn told(outcome: Result<(), LookError>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "the supervisor was not told");
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
