//! One device's connection: a task that owns the multiplexer and does what it is asked.

use std::future::poll_fn;
use std::time::Duration;

use minke_common_tunnel::{Event, Mux, MuxError, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;

/// Silent heartbeats after which a device is gone.
const MISSED: u32 = 2;

/// Asks for a stream.
pub(crate) type Open = oneshot::Sender<Result<Stream, MuxError>>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the device closed the tunnel")]
    Closed,
    #[error("a newer tunnel of the same device, or the server's end, closed this one")]
    Replaced,
    #[error("the device said nothing for {MISSED} heartbeats")]
    Silent,
    #[error("the tunnel broke")]
    Broken(#[source] MuxError),
}

/// Runs the connection until it ends. It ends in order when every sender of `opens` is gone.
pub(crate) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    mut mux: Mux<WebSocketStream<T>>,
    mut opens: mpsc::Receiver<Open>,
    heartbeat: Duration,
) -> End {
    let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut silent) = (0, 0);
    loop {
        // Every arm is cancel-safe: a poll of the multiplexer leaves nothing half done.
        tokio::select! {
            event = poll_fn(|cx| mux.poll(cx)) => match event {
                // A device opens nothing; dropping the stream refuses it.
                Event::Stream(stream) => drop(stream),
                Event::Ended(Ok(())) => return End::Closed,
                Event::Ended(Err(error)) => return End::Broken(error),
            },
            open = opens.recv() => match open {
                // When the asker is gone meanwhile the stream is dropped, which resets it.
                Some(open) => drop(open.send(mux.open())),
                None => {
                    let goodbye = poll_fn(|cx| mux.poll_close(cx));
                    // The peer may be gone too: then nobody waits for its goodbye.
                    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
                    return End::Replaced;
                }
            },
            _ = beat.tick() => {
                silent = if mux.heard() == heard { silent + 1 } else { 0 };
                heard = mux.heard();
                if silent >= MISSED {
                    return End::Silent;
                }
            }
        }
    }
}
