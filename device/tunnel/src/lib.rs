//! The device's end of the tunnel: how a server reaches a device that it cannot connect to.
//!
//! ```text
//!            ┌── not provisioned: look at config.json now and then
//!   [serve] ─┼── [dial] ──> [session] ──> [streams]: a TCP port of this device, or "look now"
//!            └── lost, refused, key changed: back off with jitter, dial again
//! ```
//!
//! Invariants:
//!
//! * It runs apart from the supervisor and needs nothing of it but its API, so a device whose
//!   supervisor is broken can still be reached.
//! * A session ends when the server said nothing for two heartbeats, and when `config.json`
//!   names another server or key.
//! * Only ports of this device are reachable, at most 24 at once; a stalled one holds up
//!   nothing else.
//! * The supervisor knows whether the tunnel is up, and asks the server seldom while it is.
//! * After each dial the supervisor looks for a new target: what the server said while the
//!   tunnel was down is not missed.

mod dial;
mod endpoint;
mod look;
mod options;
mod proxy;
mod random;
mod serve;
mod session;
mod streams;
mod tls;

pub use options::TunnelOptions;
pub use serve::serve;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs the tunnel until SIGTERM or SIGINT, on a runtime of its own with one thread.
pub fn run(options: TunnelOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only name resolution blocks.
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build()
        .context("cannot start the tunnel's runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let serving = serve(options, stop.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            () = &mut serving => return Ok(()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        serving.await;
        Ok(())
    })
}
