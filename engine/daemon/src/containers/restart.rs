//! When a container that ended is started again. Pure.

use std::time::Duration;

use minke_engine_client::wire::RestartPolicy;

/// The first wait; it doubles up to [`LONGEST`].
const FIRST: u64 = 100;
const LONGEST: u64 = 60_000;
/// Nanoseconds of running after which a container counts as well again.
const WELL_AFTER: i64 = 10_000_000_000;

/// An end that a policy judges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) exit_code: i64,
    /// How long it ran, nanoseconds.
    pub(crate) ran_for: i64,
    /// Somebody asked for it.
    pub(crate) asked_for: bool,
    /// Restarts so far.
    pub(crate) restarts: i64,
    /// The last wait, milliseconds; 0 is none.
    pub(crate) last_wait: u64,
}

/// How long to wait before the next start; `None` leaves it ended.
pub(crate) fn after_end(policy: &RestartPolicy, end: End) -> Option<Duration> {
    if end.asked_for {
        return None;
    }
    let again = match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let limit = policy.maximum_retry_count;
            end.exit_code != 0 && (limit == 0 || end.restarts < limit)
        }
        _ => false,
    };
    let wait = match end.last_wait {
        _ if end.ran_for >= WELL_AFTER => FIRST,
        0 => FIRST,
        last => (last * 2).min(LONGEST),
    };
    again.then(|| Duration::from_millis(wait))
}

/// Whether a container is started when the engine starts.
pub(crate) fn at_engine_start(policy: &RestartPolicy, manually_stopped: bool, ran: bool) -> bool {
    match policy.name.as_str() {
        "always" => ran,
        "unless-stopped" => ran && !manually_stopped,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, limit: i64) -> RestartPolicy {
        RestartPolicy { name: name.to_owned(), maximum_retry_count: limit }
    }

    const END: End = End { exit_code: 1, ran_for: 0, asked_for: false, restarts: 0, last_wait: 0 };

    #[test]
    fn waits_double_up_to_a_minute_and_start_anew_after_a_good_run() {
        let always = policy("always", 0);
        let mut wait = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            wait = after_end(&always, End { last_wait: wait, ..END }).unwrap().as_millis() as u64;
            waits.push(wait);
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[10..], [60_000, 60_000]);
        let well = End { last_wait: wait, ran_for: WELL_AFTER, ..END };
        assert_eq!(after_end(&always, well), Some(Duration::from_millis(100)));
    }

    #[test]
    fn policies_differ_in_what_they_start_again() {
        assert!(after_end(&policy("no", 0), END).is_none());
        assert!(after_end(&policy("", 0), END).is_none());
        assert!(after_end(&policy("on-failure", 2), END).is_some());
        assert!(after_end(&policy("on-failure", 2), End { restarts: 2, ..END }).is_none());
        assert!(after_end(&policy("on-failure", 0), End { exit_code: 0, ..END }).is_none());
        assert!(after_end(&policy("always", 0), End { asked_for: true, ..END }).is_none());
        assert!(at_engine_start(&policy("always", 0), true, true));
        assert!(!at_engine_start(&policy("unless-stopped", 0), true, true));
        assert!(!at_engine_start(&policy("always", 0), false, false), "it was never started");
    }
}
