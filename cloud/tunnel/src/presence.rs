//! Tells the rest of the server which devices are connected, without telling it about every
//! flicker: a lost tunnel is reported only when it stayed lost for the grace time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ports::{DeviceAuth, DeviceId};

/// Reports that run at once; each is usually one write to the database.
const AT_ONCE: usize = 64;

/// Devices whose state may differ from what was reported.
#[derive(Default)]
pub(crate) struct Presence {
    queues: Mutex<Queues>,
    changed: Notify,
}

#[derive(Default)]
struct Queues {
    /// Connected just now.
    now: Vec<String>,
    /// Disconnected, with the time at which to look again; in order, since the wait is constant.
    later: VecDeque<(Instant, String)>,
}

impl Presence {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn came(&self, uuid: &str) {
        self.queues().now.push(uuid.to_owned());
        self.changed.notify_one();
    }

    pub(crate) fn left(&self, uuid: &str, grace: Duration) {
        self.queues().later.push_back((Instant::now() + grace, uuid.to_owned()));
        self.changed.notify_one();
    }

    /// What is due, and when to look again.
    fn due(&self) -> (HashSet<String>, Option<Instant>) {
        let mut queues = self.queues();
        let mut due: HashSet<String> = std::mem::take(&mut queues.now).into_iter().collect();
        let now = Instant::now();
        while let Some((_, uuid)) = queues.later.pop_front_if(|(when, _)| *when <= now) {
            due.insert(uuid);
        }
        (due, queues.later.front().map(|(when, _)| *when))
    }

    /// Reports for ever. `device` tells whose tunnel there is at the moment of the report.
    pub(crate) async fn report(
        &self,
        auth: &dyn DeviceAuth,
        device: impl Fn(&str) -> Option<DeviceId>,
    ) -> ! {
        // By row: another one that has the uuid now has not been reported yet.
        let mut reported = HashMap::new();
        loop {
            let (due, next) = self.due();
            let changes: Vec<(String, Option<DeviceId>)> = due
                .into_iter()
                .map(|uuid| (device(&uuid), uuid))
                .filter(|(device, uuid)| *device != reported.get(uuid).copied())
                .map(|(device, uuid)| (uuid, device))
                .collect();
            // A device is in a batch once, and batches follow one another: never out of order.
            futures_util::stream::iter(&changes)
                .for_each_concurrent(AT_ONCE, |(uuid, device)| {
                    auth.connected(uuid, device.is_some())
                })
                .await;
            for (uuid, device) in changes {
                match device {
                    Some(device) => reported.insert(uuid, device),
                    None => reported.remove(&uuid),
                };
            }
            match next {
                Some(when) => {
                    let _ = tokio::time::timeout_at(when, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }
}
