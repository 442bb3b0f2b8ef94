//! How often one caller may try something that is costly or that can be guessed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ApiError;

/// Callers that are remembered at once.
const MAX_CALLERS: usize = 100_000;

/// At most `times` in any window of `window` that begins with the first try.
pub(crate) struct RateLimit {
    what: &'static str,
    times: u32,
    window: Duration,
    callers: Mutex<HashMap<String, (Instant, u32)>>,
}

impl RateLimit {
    pub(crate) fn new(what: &'static str, times: u32, window: Duration) -> RateLimit {
        RateLimit { what, times, window, callers: Mutex::default() }
    }

    /// Counts a try of `caller`; an error once there were too many.
    pub(crate) fn count(&self, caller: &str, now: Instant) -> Result<(), ApiError> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, (began, _)| now.duration_since(*began) < self.window);
        }
        if callers.len() >= MAX_CALLERS && !callers.contains_key(caller) {
            return Err(ApiError::TooMany { what: self.what, retry_after: 60 });
        }
        let (began, tries) = callers.entry(caller.to_owned()).or_insert((now, 0));
        if now.duration_since(*began) >= self.window {
            (*began, *tries) = (now, 0);
        }
        if *tries >= self.times {
            let left = self.window.saturating_sub(now.duration_since(*began));
            return Err(ApiError::TooMany { what: self.what, retry_after: left.as_secs() + 1 });
        }
        *tries += 1;
        Ok(())
    }

    /// Forgets the tries of `caller`, who has shown to be who they say.
    pub(crate) fn forget(&self, caller: &str) {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_try_waits_for_the_window_to_end() {
        let limit = RateLimit::new("logging in", 10, Duration::from_secs(60));
        let start = Instant::now();
        for _ in 0..10 {
            limit.count("ann", start).unwrap();
        }
        let error = limit.count("ann", start + Duration::from_secs(59)).unwrap_err();
        assert!(matches!(error, ApiError::TooMany { retry_after: 2, .. }), "{error}");
        limit.count("bob", start).unwrap();
        limit.count("ann", start + Duration::from_secs(60)).unwrap();
        limit.forget("ann");
        limit.count("ann", start).unwrap();
    }
}
