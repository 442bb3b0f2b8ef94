//! When a container that ended is started again. Pure.

use std::time::{Duration, Instant};

use minke_engine_client::wire::RestartPolicy;

/// The first wait; it doubles up to [`LONGEST`].
const FIRST: u64 = 100;
const LONGEST: u64 = 60_000;
/// After running for so long a container counts as well again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// An end that a policy judges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) exit_code: i64,
    /// How long it ran.
    pub(crate) ran_for: Duration,
    /// Somebody asked for it.
    pub(crate) asked_for: bool,
    /// Restarts so far.
    pub(crate) restarts: i64,
    /// The last wait, milliseconds; 0 is none.
    pub(crate) last_wait: u64,
}

/// How long a container ran that has ended now. The clock of the day may have been set meanwhile, as by a
/// device that learns the time after its start: so the stamps of start and end count only where nothing
/// else is known, for what has ended while no daemon was there.
pub(crate) fn ran_for(since: Option<Instant>, now: Instant, stamps: (i64, i64)) -> Duration {
    let (started_at, finished_at) = stamps;
    let by_stamps = || finished_at.saturating_sub(started_at).max(0).unsigned_abs();
    match since {
        Some(since) => now.saturating_duration_since(since),
        None => Duration::from_nanos(by_stamps()),
    }
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

    const END: End =
        End { exit_code: 1, ran_for: Duration::ZERO, asked_for: false, restarts: 0, last_wait: 0 };

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
    fn a_clock_that_is_set_while_a_container_runs_changes_nothing_in_its_back_off() {
        let start = Instant::now();
        let always = policy("always", 0);
        let year = 365 * 86_400 * 1_000_000_000;
        for (ran, next) in [(1, 1600), (10, 100)] {
            let (ran, stamps) = (Duration::from_secs(ran), [(0, year), (year, 0), (0, 0)]);
            for stamps in stamps {
                let ran_for = ran_for(Some(start), start + ran, stamps);
                assert_eq!(ran_for, ran, "{stamps:?}");
                let end = End { ran_for, last_wait: 800, ..END };
                assert_eq!(after_end(&always, end), Some(Duration::from_millis(next)));
            }
        }
        // An end that nobody saw has its stamps alone.
        assert_eq!(ran_for(None, start, (5, 9)), Duration::from_nanos(4));
        assert_eq!(ran_for(None, start, (9, 5)), Duration::ZERO);
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
