//! What happened, in one order.
//!
//! Everything that publishes goes through one [`Events`], so there is one sequence of events with
//! rising times; whoever listens gets it without gaps, replayed from a given time if wanted. Callers
//! publish after the change is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use minke_engine_client::wire::{Actor, Event};
use tokio::sync::broadcast;

use crate::stamp;

/// How many events are kept, for replay and for listeners that are behind.
const KEPT: usize = 512;
/// How many bytes they may have: every event of a container has all its labels. The newest one is kept
/// whatever its size, which the size of a request limits.
const KEPT_BYTES: usize = 4 << 20;
/// Longest text of an action that is told, bytes: it may have a whole command in it.
const LONGEST_ACTION: usize = 4096;

/// The sequencer.
pub(crate) struct Events {
    state: Mutex<State>,
    /// Only what is kept can be heard: listeners hold nothing in memory.
    sender: broadcast::Sender<Weak<Event>>,
}

#[derive(Default)]
struct State {
    recent: VecDeque<Arc<Event>>,
    /// What all of them take.
    bytes: usize,
    last_time: i64,
}

/// Hears what is published.
pub(crate) struct Listener(broadcast::Receiver<Weak<Event>>);

/// Attributes of an event's subject.
pub(crate) type Attributes = BTreeMap<String, String>;

impl Events {
    pub(crate) fn new() -> Events {
        Events { state: Mutex::default(), sender: broadcast::channel(KEPT).0 }
    }

    /// Publishes that `action` happened to the thing of this kind and id.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: Attributes) {
        let action = cut(action);
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
        let event = Arc::new(event);
        state.keep(event.clone());
        // Sent under the lock: the order in the channel is the order of times. No listener is fine.
        let _ = self.sender.send(Arc::downgrade(&event));
    }

    /// The kept events, and everything after them.
    pub(crate) fn listen(&self) -> (Vec<Arc<Event>>, Listener) {
        let state = self.lock();
        (state.recent.iter().cloned().collect(), Listener(self.sender.subscribe()))
    }

    /// How many listen now.
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn keep(&mut self, event: Arc<Event>) {
        self.bytes += size(&event);
        self.recent.push_back(event);
        while self.recent.len() > KEPT || (self.bytes > KEPT_BYTES && self.recent.len() > 1) {
            let oldest = self.recent.pop_front();
            self.bytes -= oldest.map_or(0, |event| size(&event));
        }
    }
}

impl Listener {
    /// The next event; `None` if this one has fallen too far behind to hear all of them.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        self.0.recv().await.ok()?.upgrade()
    }
}

/// About what an event takes.
fn size(event: &Event) -> usize {
    let texts =
        [&event.status, &event.id, &event.from, &event.kind, &event.action, &event.actor.id];
    let attributes = event.actor.attributes.iter();
    let attributes =
        attributes.map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
    size_of::<Event>()
        + texts.iter().map(|text| text.len()).sum::<usize>()
        + attributes.sum::<usize>()
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_ACTION)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_a_listener_far_behind_is_cut_off() {
        let events = Events::new();
        let (_, mut behind) = events.listen();
        let (_, mut follows) = events.listen();
        let attributes = Attributes::from([("label".to_owned(), "x".repeat(1 << 20))]);
        for _ in 0..20 {
            events.publish("container", &"ä".repeat(9999), "one", attributes.clone());
            let event = follows.next().await.unwrap();
            assert!(event.action.len() <= LONGEST_ACTION && event.action.len() > 4000);
        }
        let (kept, _) = events.listen();
        assert!(kept.len() == 3 && events.lock().bytes <= KEPT_BYTES, "{}", kept.len());
        assert!(behind.next().await.is_none());
        // One that is larger than all may be: it is heard, and alone.
        let attributes = Attributes::from([("label".to_owned(), "x".repeat(KEPT_BYTES))]);
        events.publish("container", "start", "one", attributes);
        assert_eq!(follows.next().await.unwrap().action, "start");
        assert_eq!(events.listen().0.len(), 1);
        for number in 0..2 * KEPT {
            events.publish("volume", "create", &number.to_string(), Attributes::new());
        }
        assert_eq!(events.listen().0.len(), KEPT);
    }

    #[tokio::test]
    async fn a_listener_gets_the_kept_ones_and_what_follows_without_a_gap() {
        let events = Events::new();
        events.publish("volume", "create", "one", Attributes::new());
        let (kept, mut receiver) = events.listen();
        events.publish("container", "start", "two", Attributes::new());
        assert_eq!(kept.len(), 1);
        let next = receiver.next().await.unwrap();
        assert!(next.time_nano > kept[0].time_nano);
        assert_eq!((next.status.as_str(), next.id.as_str()), ("start", "two"));
    }
}
