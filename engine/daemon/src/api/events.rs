//! `/events`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Response;
use minke_engine_client::wire::Event;
use tokio::sync::mpsc;

use super::filters::{Filters, label_matches};
use super::params::Params;
use super::reply::{Pieces, line};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Listener;
use crate::stamp;

const KNOWN: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub(super) async fn events(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&KNOWN)?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    if until != 0 && since > until {
        return Err(Error::Invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            stamp::rfc3339(since),
            stamp::rfc3339(until)
        )));
    }
    let (kept, listener) = daemon.events.listen();
    let replay: Vec<Arc<Event>> = match (since, until) {
        (0, 0) => Vec::new(),
        _ => kept.into_iter().filter(|event| event.time_nano >= since).collect(),
    };
    let watch = Watch { filters, until };
    Ok(Pieces::of(|sender| watch.run(replay, listener, sender)).answer("application/json"))
}

struct Watch {
    filters: Filters,
    /// 0 is for ever.
    until: i64,
}

impl Watch {
    async fn run(
        self,
        replay: Vec<Arc<Event>>,
        mut listener: Listener,
        sender: mpsc::Sender<Bytes>,
    ) {
        for event in replay {
            if !self.tell(&event, &sender).await {
                return;
            }
        }
        let left = match self.until {
            0 => Duration::from_secs(u64::from(u32::MAX)),
            until => Duration::from_nanos(until.saturating_sub(stamp::now()).max(0).unsigned_abs()),
        };
        let end = tokio::time::sleep(left);
        tokio::pin!(end);
        loop {
            // Both arms are cancel-safe.
            let event = tokio::select! {
                event = listener.next() => event,
                () = &mut end => return,
            };
            match event {
                Some(event) => {
                    if !self.tell(&event, &sender).await {
                        return;
                    }
                }
                // A listener that is this slow is cut off: it asks again with `since`.
                None => return,
            }
        }
    }

    /// Sends an event that passes; false if nobody listens or the end has come.
    async fn tell(&self, event: &Event, sender: &mpsc::Sender<Bytes>) -> bool {
        if self.until != 0 && event.time_nano > self.until {
            return false;
        }
        if !passes(&self.filters, event) {
            return true;
        }
        sender.send(line(event)).await.is_ok()
    }
}

fn passes(filters: &Filters, event: &Event) -> bool {
    filters.iter().all(|(key, values)| {
        if values.is_empty() {
            return true;
        }
        match key {
            "label" => values.iter().all(|v| label_matches(&event.actor.attributes, v)),
            _ => values.iter().any(|value| matches(event, key, value)),
        }
    })
}

fn matches(event: &Event, key: &str, value: &str) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    match key {
        "type" => event.kind == value,
        "scope" => event.scope == value,
        "event" => {
            event.action == value
                || event.action.split(':').next().is_some_and(|action| action == value)
        }
        "image" if event.kind == "container" => {
            attribute("image").is_some_and(|image| image_matches(image, value))
        }
        "image" => {
            event.kind == "image"
                && (event.actor.id == value
                    || attribute("name").is_some_and(|name| image_matches(name, value))
                    || image_matches(&event.actor.id, value))
        }
        // As Docker: the beginning of an id or a name is enough, and the kind of what has it is not looked
        // at. Who wants one kind alone says so with `type`.
        _ => {
            event.actor.id.starts_with(value)
                || attribute("name").is_some_and(|name| name.starts_with(value))
        }
    }
}

/// A name without a tag stands for all its tags.
fn image_matches(image: &str, wanted: &str) -> bool {
    let without_tag = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    image == wanted || without_tag == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_engine_client::wire::Actor;

    #[test]
    fn filters_look_at_kind_action_subject_and_labels() {
        let attributes = [("name", "web"), ("image", "busybox:latest"), ("team", "a")];
        let event = Event {
            kind: "container".to_owned(),
            action: "health_status: healthy".to_owned(),
            actor: Actor {
                id: "0123456789ab".to_owned(),
                attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            },
            ..Event::default()
        };
        let check = |key: &str, value: &str| {
            let mut filters = Filters::default();
            filters.add(key, value);
            passes(&filters, &event)
        };
        assert!(check("type", "container") && !check("type", "image"));
        assert!(check("event", "health_status") && !check("event", "health"));
        for key in ["container", "network", "volume", "daemon", "plugin"] {
            assert!(check(key, "web") && check(key, "w") && check(key, "0123"), "{key}");
            assert!(!check(key, "eb") && !check(key, "web2") && !check(key, "123"), "{key}");
        }
        assert!(check("image", "busybox") && check("image", "busybox:latest"));
        assert!(check("label", "team=a") && check("label", "team") && !check("label", "team=b"));
    }
}
