//! What happened, in one order.
//!
//! Everything that publishes goes through one [`Events`], so there is one sequence of events with
//! rising times; whoever listens gets it without gaps, replayed from a given time if wanted. Callers
//! publish after the change is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use minke_engine_client::wire::{Actor, Event};
use tokio::sync::broadcast;

use crate::stamp;

/// How many events are kept for replay.
const KEPT: usize = 512;
/// How far a listener may fall behind before it is cut off.
const BEHIND: usize = 1024;

/// The sequencer.
pub(crate) struct Events {
    state: Mutex<State>,
    sender: broadcast::Sender<Event>,
}

#[derive(Default)]
struct State {
    recent: VecDeque<Event>,
    last_time: i64,
}

/// Attributes of an event's subject.
pub(crate) type Attributes = BTreeMap<String, String>;

impl Events {
    pub(crate) fn new() -> Events {
        Events { state: Mutex::default(), sender: broadcast::channel(BEHIND).0 }
    }

    /// Publishes that `action` happened to the thing of this kind and id.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: Attributes) {
        let mut state = self.lock();
        // Times rise strictly, so that a replay "since the last one I saw" misses nothing.
        let time_nano = stamp::now().max(state.last_time + 1);
        state.last_time = time_nano;
        let old_style = matches!(kind, "container" | "image");
        let event = Event {
            status: if old_style { action.to_owned() } else { String::new() },
            id: if old_style { id.to_owned() } else { String::new() },
            from: match kind {
                "container" => attributes.get("image").cloned().unwrap_or_default(),
                _ => String::new(),
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: time_nano / 1_000_000_000,
            time_nano,
        };
        if state.recent.len() == KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(event.clone());
        // Sent under the lock: the order in the channel is the order of times. No listener is fine.
        let _ = self.sender.send(event);
    }

    /// The kept events, and everything after them.
    pub(crate) fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let state = self.lock();
        (state.recent.iter().cloned().collect(), self.sender.subscribe())
    }

    /// How many listen now.
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_gets_the_kept_ones_and_what_follows_without_a_gap() {
        let events = Events::new();
        events.publish("volume", "create", "one", Attributes::new());
        let (kept, mut receiver) = events.listen();
        events.publish("container", "start", "two", Attributes::new());
        assert_eq!(kept.len(), 1);
        let next = receiver.recv().await.unwrap();
        assert!(next.time_nano > kept[0].time_nano);
        assert_eq!((next.status.as_str(), next.id.as_str()), ("start", "two"));
    }
}
