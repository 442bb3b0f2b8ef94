//! How long to wait before the next try. Pure: randomness is an argument.

use std::time::Duration;

/// Doubles from `base` to `ceiling`; a server's `Retry-After` is obeyed when it is longer.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with no failure.
    pub const fn new(base: Duration, ceiling: Duration) -> Backoff {
        Backoff { base, ceiling, failures: 0 }
    }

    /// Forgets the failures.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure, between one half and the whole of the doubled time, by
    /// `fraction` of `0.0..1.0`: a fleet that lost its server does not come back all at once.
    pub fn failed(&mut self, retry_after: Option<Duration>, fraction: f64) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.failures.min(20)).min(self.ceiling);
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.mul_f64(0.5 + 0.5 * fraction.clamp(0.0, 1.0));
        // A day: a server's typing error must not silence a device for a year.
        retry_after.unwrap_or_default().min(Duration::from_secs(86_400)).max(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_the_ceiling_and_starts_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<_> = (0..6).map(|_| backoff.failed(None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        backoff.succeeded();
        assert_eq!(backoff.failed(None, 0.0), Duration::from_millis(500));
    }

    #[test]
    fn retry_after_is_in_seconds_and_bounded() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(backoff.failed(Some(Duration::from_secs(90)), 1.0).as_secs(), 90);
        assert_eq!(backoff.failed(Some(Duration::from_secs(1 << 40)), 1.0).as_secs(), 86_400);
    }
}
