//! Logs for people: the history at once, or a stream of lines that goes on.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use minke_cloud_logs::{Entry, Follow, Followed};

use crate::api::{Api, now_ms};
use crate::error::ApiError;
use crate::identity::Identity;
use crate::logs_in::blocking;
use crate::query;

/// How often a stream without news says that it is alive. Proxies and clients give up after a minute.
const HEARTBEAT: Duration = Duration::from_secs(58);
/// How far back a history goes where the client does not say, in milliseconds.
const DEFAULT_AGE: i64 = 30 * 24 * 60 * 60 * 1000;

/// What of a log is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    count: usize,
    start: i64,
    is_stream: bool,
}

impl Wanted {
    fn read(raw: Option<&str>, limit: usize, now: i64) -> Result<Wanted, ApiError> {
        let is_stream = query::value(raw, "stream")
            .is_some_and(|value| !["", "0", "false"].contains(&value.as_str()));
        let count = match query::value(raw, "count").as_deref() {
            None | Some("") => {
                if is_stream {
                    0
                } else {
                    limit
                }
            }
            Some("all") => limit,
            Some(text) => text.parse().map_err(|_| {
                ApiError::bad("count must be a whole number of zero or more, or all")
            })?,
        };
        let start = match query::value(raw, "start").as_deref() {
            None | Some("") => now - DEFAULT_AGE,
            Some(text) => {
                let time = text.parse().ok();
                let date = || text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond());
                time.or_else(date).ok_or_else(|| {
                    ApiError::bad("start must be a date or milliseconds since the epoch")
                })?
            }
        };
        Ok(Wanted { count: count.min(limit), start, is_stream })
    }
}

/// `GET /device/v2/:uuid/logs`.
pub(crate) async fn logs(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    RawQuery(raw): RawQuery,
    identity: Identity,
) -> Result<Response, ApiError> {
    let device = api.device(&identity.caller, &uuid).await?;
    let wanted = Wanted::read(raw.as_deref(), api.logs.history_limit(), now_ms())?;
    let (logs, key) = (api.logs.clone(), device.log_key());
    let (count, start) = (wanted.count, Some(wanted.start));
    if !wanted.is_stream {
        let entries = blocking(move || logs.history(&key, count, start)).await?;
        return Ok(Json(entries).into_response());
    }
    let (history, follow) = blocking(move || logs.follow(&key, count, start)).await?;
    let body = Body::from_stream(lines(history, follow));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn lines(
    history: Vec<Entry>,
    follow: Follow,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let first: Vec<u8> = history.iter().flat_map(line).collect();
    futures_util::stream::unfold((Some(first), follow), |(first, mut follow)| async move {
        if let Some(first) = first {
            // Also when empty: the client sees the headers and knows that it is connected.
            return Some((Ok(Bytes::from(first)), (None, follow)));
        }
        let text = match tokio::time::timeout(HEARTBEAT, follow.next()).await {
            Err(_) => b"\n".to_vec(),
            Ok(None) => return None,
            Ok(Some(Followed::Entry(entry))) => line(&entry),
            Ok(Some(Followed::Missed(count))) => line(&missed(count)),
        };
        Some((Ok(Bytes::from(text)), (None, follow)))
    })
}

fn line(entry: &Entry) -> Vec<u8> {
    let mut line = serde_json::to_vec(entry).expect("texts, numbers and Booleans");
    line.push(b'\n');
    line
}

fn missed(count: u64) -> Entry {
    let now = now_ms();
    Entry {
        message: format!("{count} lines were left out: this reader is too slow"),
        created_at: now,
        timestamp: now,
        is_system: true,
        is_std_err: false,
        service_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_has_defaults_and_limits() {
        let read = |raw| Wanted::read(raw, 1000, DEFAULT_AGE + 5).unwrap();
        assert_eq!(read(None), Wanted { count: 1000, start: 5, is_stream: false });
        assert_eq!(read(Some("stream=1")).count, 0);
        assert_eq!(read(Some("stream=true&count=all")).count, 1000);
        assert_eq!(
            read(Some("count=5000&start=77")),
            Wanted { count: 1000, start: 77, is_stream: false }
        );
        assert_eq!(read(Some("start=1970-01-01T00:00:01Z")).start, 1000);
        for bad in ["count=-1", "count=x", "start=soon"] {
            assert!(Wanted::read(Some(bad), 1000, 0).is_err(), "{bad}");
        }
    }
}
