//! Holds calls back until the engine's state is read.

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use crate::daemon::Daemon;

type State = Option<(Daemon, Router)>;

/// Holds calls back until it is opened. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<State>>);

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(Arc::new(watch::Sender::new(None)))
    }

    /// Lets calls through.
    pub(crate) fn open(&self, daemon: Daemon, router: Router) {
        self.0.send_replace(Some((daemon, router)));
    }

    /// The daemon, if it is ready.
    pub(crate) fn now(&self) -> Option<Daemon> {
        self.0.borrow().as_ref().map(|(daemon, _)| daemon.clone())
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) -> (Daemon, Router) {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(state) = receiver.borrow_and_update().clone() {
                return state;
            }
            // The sender is held by `self`.
            let _ = receiver.changed().await;
        }
    }
}
