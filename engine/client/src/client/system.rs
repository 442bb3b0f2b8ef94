//! `/info`, `/version`, `/_ping`, `/events`.

use futures_util::stream::BoxStream;

use super::Client;
use super::containers::filter_text;
use crate::wire::{Event, Info, Version};
use crate::{Error, EventFilter};

impl Client {
    /// Facts about the engine and its host.
    pub async fn system_info(&self) -> Result<Info, Error> {
        self.get("/info".to_owned()).send().await?.json().await
    }

    /// The engine's version.
    pub async fn version(&self) -> Result<Version, Error> {
        self.get("/version".to_owned()).send().await?.json().await
    }

    /// Whether the engine answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.get("/_ping".to_owned()).send().await?.done().await
    }

    /// What happens, as it happens.
    pub async fn watch_events(
        &self,
        filter: &EventFilter,
    ) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        let mut call = self.get("/events".to_owned());
        if !filter.filters.is_empty() {
            call = call.query("filters", filter_text(&filter.filters));
        }
        for (name, value) in [("since", &filter.since), ("until", &filter.until)] {
            if let Some(value) = value {
                call = call.query(name, value);
            }
        }
        let lines = call.send().await?.lines::<Event>();
        Ok(Box::pin(futures_util::stream::try_unfold(lines, async |mut lines| {
            Ok(lines.next().await?.map(|event| (event, lines)))
        })))
    }
}
