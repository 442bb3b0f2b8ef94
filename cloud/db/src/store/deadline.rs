//! How long a statement may run. PostgreSQL keeps the time itself; SQLite asks a [`Deadline`] now and
//! then, also for a statement whose asker is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::SqliteConnection;

/// Longest time of one statement; migrations have no limit.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Steps of SQLite's machine between two looks at the clock: some hundred microseconds.
const STEPS: i32 = 10_000;

/// When the statement that runs on a SQLite connection has to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    /// A deadline that the connection obeys until [`release`].
    pub async fn watch(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        let deadline = Self::default();
        let asked = deadline.clone();
        connection.lock_handle().await?.set_progress_handler(STEPS, move || !asked.strikes());
        Ok(deadline)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement begins that may run for `limit`.
    pub fn begin(&self, limit: Duration) {
        *self.lock() = Instant::now().checked_add(limit);
    }

    /// The statement has ended.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Whether the statement has to end now. Says so once: what undoes it must not be stopped too.
    fn strikes(&self) -> bool {
        let mut ends = self.lock();
        let is_over = ends.is_some_and(|ends| Instant::now() >= ends);
        if is_over {
            *ends = None;
        }
        is_over
    }
}

/// Frees a connection of its deadline, for the next session.
pub(super) async fn release(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    connection.lock_handle().await?.remove_progress_handler();
    Ok(())
}
