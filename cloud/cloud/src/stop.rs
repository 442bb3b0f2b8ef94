//! When a server is to stop.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// The signals that end a server; heard from the moment this is made.
pub struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    pub fn listen() -> Result<Stop> {
        let on = |kind| signal(kind).context("listening for signals");
        Ok(Stop {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn wait(mut self) {
        // Both arms are cancel-safe.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("stopping");
    }
}
