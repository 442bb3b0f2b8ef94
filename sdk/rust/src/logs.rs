//! What a device's services wrote, and what the device says of itself.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::odata::{Filter, Query};
use crate::{Client, Device, Error};

/// The longest line that a stream may bring, in bytes.
const MAX_LINE: usize = 1 << 20;
/// How the line begins in which a device says that it brings itself to a release.
const TAKEN_UP: &str = "Applying release";

/// One line of a device's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// The text.
    pub message: String,
    /// When the server got it, milliseconds since 1970.
    #[serde(default)]
    pub created_at: i64,
    /// When the device wrote it, milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// Written by the device's agent rather than by a service.
    #[serde(default)]
    pub is_system: bool,
    /// Written to standard error.
    #[serde(default)]
    pub is_std_err: bool,
    /// The id of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_id: Option<i64>,
}

/// How many old lines to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCount {
    /// At most so many, the newest.
    Last(u32),
    /// As many as the server gives.
    All,
}

impl std::fmt::Display for LogCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogCount::Last(count) => write!(f, "{count}"),
            LogCount::All => f.write_str("all"),
        }
    }
}

/// Which lines to get.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// How many old lines; the server's default is 1000, when following none.
    pub count: Option<LogCount>,
    /// Only lines from this time on, milliseconds since 1970.
    pub start: Option<i64>,
}

#[derive(Deserialize)]
struct ServiceRow {
    id: i64,
    service_name: String,
}

impl Client {
    /// The old lines of a device's log, oldest first.
    pub async fn logs(
        &self,
        device: &Device,
        options: &LogOptions,
    ) -> Result<Vec<LogEntry>, Error> {
        let what = "read the device's log";
        let url = self.log_url(device, options, false);
        let response = self.send(what, self.stream(Method::GET, url)).await?;
        self.json(what, response).await
    }

    /// Old lines, then new ones as they come, until the stream is dropped or breaks.
    pub async fn follow_logs(
        &self,
        device: &Device,
        options: &LogOptions,
    ) -> Result<impl Stream<Item = Result<LogEntry, Error>> + Unpin + use<>, Error> {
        let what = "follow the device's log";
        let url = self.log_url(device, options, true);
        let response = self.send(what, self.stream(Method::GET, url)).await?;
        let client = self.clone();
        let chunks = response.bytes_stream().map_err(move |source| client.transport(what, source));
        Ok(Box::pin(lines(chunks).and_then(move |line| async move {
            serde_json::from_slice(&line)
                .map_err(|error| Error::Answer { what: what.to_owned(), reason: error.to_string() })
        })))
    }

    /// What the device itself has failed in since it took up the release that it does not run whole yet,
    /// if anything: the newest line that says so.
    pub async fn last_failure(&self, device: &Device) -> Result<Option<LogEntry>, Error> {
        if device.should_run.is_none() || device.is_running == device.should_run {
            return Ok(None);
        }
        Ok(failure(self.logs(device, &LogOptions::default()).await?))
    }

    fn log_url(&self, device: &Device, options: &LogOptions, stream: bool) -> reqwest::Url {
        let mut url = self.url(&format!("device/v2/{}/logs", device.uuid));
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(count) = options.count {
                pairs.append_pair("count", &count.to_string());
            }
            if let Some(start) = options.start {
                pairs.append_pair("start", &start.to_string());
            }
            if stream {
                pairs.append_pair("stream", "1");
            }
        }
        url
    }

    /// The names of the services whose lines a device's log may hold, by id.
    pub async fn service_names(&self, device: &Device) -> Result<BTreeMap<i64, String>, Error> {
        let installed = Filter::any("service_install", Filter::eq("device", device.id));
        let query = Query::new("service").select(["id", "service_name"]).filter(installed);
        let rows: Vec<ServiceRow> = self.rows("list services", &query).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.service_name)).collect())
    }
}

/// The newest failure after the newest line that says that a release is taken up.
fn failure(entries: Vec<LogEntry>) -> Option<LogEntry> {
    let own = entries.into_iter().rev().filter(|entry| entry.is_system);
    own.take_while(|entry| !entry.message.starts_with(TAKEN_UP)).find(|entry| entry.is_std_err)
}

/// Cuts chunks into lines and leaves out empty ones, which are the server's heartbeat.
fn lines<S, B>(chunks: S) -> impl Stream<Item = Result<Vec<u8>, Error>>
where
    S: Stream<Item = Result<B, Error>> + Unpin,
    B: AsRef<[u8]>,
{
    futures_util::stream::try_unfold((chunks, Vec::new()), |(mut chunks, mut held)| async move {
        loop {
            if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).take(end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some((line, (chunks, held))));
            }
            if held.len() > MAX_LINE {
                return Err(Error::Answer {
                    what: "follow the device's log".to_owned(),
                    reason: format!("a line is longer than {MAX_LINE} bytes"),
                });
            }
            match chunks.next().await {
                Some(chunk) => held.extend_from_slice(chunk?.as_ref()),
                None => return Ok(None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_wherever_chunks_end() {
        let chunks = ["on", "e\n\n \ntw", "o\nthree"].map(Ok::<_, Error>);
        let found: Vec<_> = lines(futures_util::stream::iter(chunks)).try_collect().await.unwrap();
        assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_failure_counts_until_another_release_is_taken_up() {
        let line = |message: &str, is_system, is_std_err| LogEntry {
            message: message.to_owned(),
            created_at: 0,
            timestamp: 0,
            is_system,
            is_std_err,
            service_id: None,
        };
        let mut log = vec![
            line("Failed to pull image a", true, true),
            line("Applying release 12", true, false),
            line("Failed to pull image b", true, true),
            line("Failed to pull image c", true, true),
            line("Downloading image c", true, false),
            line("Failed to read a sensor", false, true),
        ];
        let said = failure(log.clone()).map(|entry| entry.message);
        assert_eq!(said.as_deref(), Some("Failed to pull image c"));
        log.push(line("Applying release 13", true, false));
        assert!(failure(log).is_none());
    }

    #[tokio::test]
    async fn an_endless_line_is_an_error() {
        let chunks = std::iter::repeat_with(|| Ok::<_, Error>(vec![b'x'; 1 << 16]));
        let all: Result<Vec<_>, _> = lines(futures_util::stream::iter(chunks)).try_collect().await;
        assert!(all.unwrap_err().to_string().contains("longer than"));
    }
}
