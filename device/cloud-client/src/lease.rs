//! Whether the device's tunnel is up: while it is, the server says when there is something new, and
//! sees that the device lives. What is asked and reported now and then is then asked and reported
//! seldom, which is most of an idle device's traffic.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// No lease is longer, so a tunnel that died without a word counts for an hour at most.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Devices that lose a server together come to it spread over this time.
const SPREAD: Duration = Duration::from_secs(60);

/// Until when the tunnel is known to be up. The tunnel renews it; all clones are the same lease.
#[derive(Debug, Clone)]
pub struct TunnelLease(Arc<watch::Sender<Option<Instant>>>);

impl Default for TunnelLease {
    fn default() -> TunnelLease {
        TunnelLease(Arc::new(watch::Sender::new(None)))
    }
}

impl TunnelLease {
    /// The tunnel is up, and will be known to be for so long; zero says that it is down.
    pub fn renew(&self, time: Duration) {
        let until = Instant::now() + time.min(LONGEST);
        self.0.send_replace((!time.is_zero()).then_some(until));
    }

    /// When the lease ends, if it has not ended yet.
    pub fn until(&self) -> Option<Instant> {
        (*self.0.borrow()).filter(|until| *until > Instant::now())
    }

    /// Waits until the tunnel says something new of itself.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Instant>> {
        self.0.subscribe()
    }
}

/// How often something is done: without a tunnel, and with one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    pub alone: Duration,
    pub connected: Duration,
}

/// When something is due, and when to think about it again: the tunnel may be down by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub due: Instant,
    pub think: Instant,
}

impl Intervals {
    pub(crate) fn next(self, last: Instant, up_until: Option<Instant>) -> Next {
        match up_until {
            None => {
                let due = last + self.alone;
                Next { due, think: due }
            }
            Some(until) => {
                let due = last + self.connected.max(self.alone);
                Next { due, think: due.min(until) }
            }
        }
    }

    /// Waits from now until it is due, or `wanted`. `expect` hears each moment at which it will be.
    pub(crate) async fn rest(
        self,
        lease: &TunnelLease,
        wanted: &Notify,
        fraction: f64,
        mut expect: impl FnMut(Instant),
    ) {
        let last = Instant::now();
        let mut changes = lease.changes();
        let (mut was_up, mut not_before) = (lease.until().is_some(), last);
        loop {
            let up_until = lease.until();
            if was_up && up_until.is_none() {
                not_before = Instant::now() + SPREAD.mul_f64(fraction);
            }
            was_up = up_until.is_some();
            let next = self.next(last, up_until);
            let due = next.due.max(not_before);
            expect(due);
            if due <= Instant::now() {
                return;
            }
            // Every arm is cancel-safe: a notification that comes during a look is kept.
            tokio::select! {
                () = tokio::time::sleep_until(next.think.max(not_before)) => {}
                () = wanted.notified() => return,
                // The lease is held here too, so its sender is there.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const LOOKS: Intervals = Intervals { alone: Duration::from_secs(15 * 60), connected: HOUR };

    /// How long a rest took, and what it said of itself.
    async fn rested(lease: &TunnelLease, wanted: &Notify) -> (Duration, Vec<Duration>) {
        let begun = Instant::now();
        let mut said = Vec::new();
        LOOKS.rest(lease, wanted, 0.5, |due| said.push(due - begun)).await;
        (begun.elapsed(), said)
    }

    fn about(found: Duration, wanted: Duration) {
        // The clock of timers has milliseconds.
        assert!(found.abs_diff(wanted) < Duration::from_millis(5), "{found:?} is not {wanted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_without_a_tunnel_looks_each_interval() {
        let (took, said) = rested(&TunnelLease::default(), &Notify::new()).await;
        about(took, 15 * MINUTE);
        about(said[0], 15 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_is_renewed_makes_looks_rare() {
        let lease = TunnelLease::default();
        lease.renew(10 * MINUTE);
        let renewing = lease.clone();
        let renewals = tokio::spawn(async move {
            loop {
                tokio::time::sleep(5 * MINUTE).await;
                renewing.renew(10 * MINUTE);
            }
        });
        let (took, _) = rested(&lease, &Notify::new()).await;
        about(took, HOUR);
        renewals.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_says_it_is_down_and_one_that_says_nothing_bring_looks_back() {
        let lease = TunnelLease::default();
        lease.renew(LONGEST);
        let ending = lease.clone();
        tokio::spawn(async move {
            tokio::time::sleep(40 * MINUTE).await;
            ending.renew(Duration::ZERO);
        });
        let (took, said) = rested(&lease, &Notify::new()).await;
        // Overdue, so it comes at once but for the spread.
        about(took, 40 * MINUTE + SPREAD / 2);
        assert!(said.windows(2).all(|pair| pair[1] <= pair[0]), "{said:?}");

        lease.renew(20 * MINUTE);
        let (took, _) = rested(&lease, &Notify::new()).await;
        about(took, 20 * MINUTE + SPREAD / 2);
        // One that dies early in an interval changes nothing about it.
        lease.renew(MINUTE);
        let (took, _) = rested(&lease, &Notify::new()).await;
        about(took, 15 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_does_not_wait() {
        let (lease, wanted) = (TunnelLease::default(), Notify::new());
        lease.renew(HOUR);
        wanted.notify_one();
        about(rested(&lease, &wanted).await.0, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_lease_is_endless() {
        let lease = TunnelLease::default();
        lease.renew(Duration::from_secs(u64::MAX / 4));
        tokio::time::advance(LONGEST + MINUTE).await;
        assert_eq!(lease.until(), None);
    }
}
