//! How often one caller may try something that is costly or that can be guessed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ApiError;

/// Callers that are remembered at once; one more makes the oldest forgotten.
const MAX_CALLERS: usize = 250_000;

/// At most `times` in any window of `window` that begins with the first try.
pub(crate) struct RateLimit {
    what: &'static str,
    times: u32,
    window: Duration,
    max_callers: usize,
    /// A caller is remembered by a hash: what they call themselves may be long.
    names: RandomState,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    /// When the window of each began, and the tries in it.
    tries: HashMap<u64, (Instant, u32)>,
    /// All windows in the order in which they began, those that are forgotten among them.
    began: VecDeque<(Instant, u64)>,
}

impl Callers {
    /// Forgets the window that began first, unless its caller has a newer one.
    fn forget_oldest(&mut self) {
        let Some((began, caller)) = self.began.pop_front() else { return };
        if self.tries.get(&caller).is_some_and(|(newest, _)| *newest == began) {
            self.tries.remove(&caller);
        }
    }
}

impl RateLimit {
    pub(crate) fn new(what: &'static str, times: u32, window: Duration) -> RateLimit {
        RateLimit {
            what,
            times,
            window,
            max_callers: MAX_CALLERS,
            names: RandomState::new(),
            callers: Mutex::default(),
        }
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a try of `caller`; an error once there were too many.
    pub(crate) fn count(&self, caller: &str, now: Instant) -> Result<(), ApiError> {
        let caller = self.names.hash_one(caller);
        let mut callers = self.callers();
        let is_over = |began: Instant| now.duration_since(began) >= self.window;
        while callers.began.front().is_some_and(|(began, _)| is_over(*began)) {
            callers.forget_oldest();
        }
        if !callers.tries.contains_key(&caller) {
            if callers.began.len() >= self.max_callers {
                callers.forget_oldest();
            }
            callers.tries.insert(caller, (now, 0));
            callers.began.push_back((now, caller));
        }
        let Some((began, tries)) = callers.tries.get_mut(&caller) else { return Ok(()) };
        if *tries >= self.times {
            let left = self.window.saturating_sub(now.duration_since(*began));
            return Err(ApiError::TooMany { what: self.what, retry_after: left.as_secs() + 1 });
        }
        *tries += 1;
        Ok(())
    }

    /// Forgets the tries of `caller`, who has shown to be who they say.
    pub(crate) fn forget(&self, caller: &str) {
        let caller = self.names.hash_one(caller);
        self.callers().tries.remove(&caller);
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

    #[test]
    fn when_too_many_are_remembered_the_oldest_is_forgotten_and_nobody_new_is_locked_out() {
        let mut limit = RateLimit::new("logging in", 1, Duration::from_secs(60));
        limit.max_callers = 3;
        let start = Instant::now();
        for name in ["ann", "bob", "cid", "dan"] {
            limit.count(name, start).unwrap();
            limit.count(name, start).unwrap_err();
        }
        limit.count("cid", start).unwrap_err();
        limit.count("ann", start).unwrap();
        // A caller who is forgotten and comes again takes up no more than one who does not.
        for _ in 0..100 {
            limit.forget("ann");
            limit.count("ann", start).unwrap();
        }
        let callers = limit.callers();
        assert!(callers.began.len() <= 3 && callers.tries.len() <= 3);
    }
}
