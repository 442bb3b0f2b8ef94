//! Telling blocking work that nobody waits for it any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the build it belongs to is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Says so.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once it is so; long loops ask each round.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            // No kind that readers take for a reason to try again.
            return Err(io::Error::other("the build was cancelled"));
        }
        Ok(())
    }
}
