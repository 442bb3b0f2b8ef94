//! Logs from devices.
//!
//! A stream is answered only when it has ended: a device takes any earlier answer for a failure. So what
//! a device may send is judged by its headers, before the first byte of the body is read.

use std::io::Write;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use flate2::write::GzDecoder;
use futures_util::StreamExt;
use minke_cloud_logs::{DeviceKey, Entry};
use serde::Deserialize;

use crate::api::{Api, now_ms};
use crate::body;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::report::own_device;
use crate::target_state::Device;

/// Longest line of a stream, in bytes.
const MAX_LINE: usize = 256 * 1024;
/// Entries of one `POST …/logs`.
const MAX_BATCH: usize = 10;
/// Bytes of a body that are unpacked at once: gzip grows them a thousand times at most, so this bounds
/// what a bomb can grow to.
const STEP: usize = 256;
/// Entries that are written at once.
const APPEND: usize = 1000;
/// Entries of one stream that are taken in within a second; a device that sends more waits.
const PACE: usize = 10_000;

/// One entry as a device sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    message: String,
    timestamp: Option<f64>,
    #[serde(default)]
    is_system: bool,
    #[serde(default)]
    is_std_err: bool,
    service_id: Option<i64>,
}

impl Line {
    fn into_entry(self, now: i64) -> Entry {
        Entry {
            message: self.message,
            created_at: now,
            timestamp: self.timestamp.map_or(now, |time| time as i64),
            is_system: self.is_system,
            is_std_err: self.is_std_err,
            service_id: self.service_id,
        }
    }
}

impl Device {
    /// The name of its log.
    pub(crate) fn log_key(&self) -> DeviceKey {
        DeviceKey { id: self.id, uuid: self.uuid.clone() }
    }
}

/// `POST /device/v2/:uuid/log-stream`: lines of JSON, perhaps gzipped, for as long as the device likes.
pub(crate) async fn stream(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let device = own_device(&api, &identity, &uuid).await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/x-ndjson")) {
        let text = "logs are sent as application/x-ndjson";
        return Err(ApiError::UnsupportedMedia(text.to_owned()));
    }
    let mut lines = Lines::new(&headers)?;
    let mut pace = Pace::default();
    let mut chunks = body.into_data_stream();
    let mut outcome = Ok(StatusCode::CREATED);
    while let Some(chunk) = chunks.next().await {
        // A device that goes away ends its stream so; what it sent before is kept.
        let Ok(chunk) = chunk else { break };
        if let Some(error) = keep(&api, &device, &mut lines, &mut pace, &chunk).await? {
            outcome = Err(error);
            break;
        }
    }
    sync(&api, &device).await?;
    outcome
}

/// Keeps the entries that came with a chunk, a step at a time; gives what was wrong after them.
async fn keep(
    api: &Api,
    device: &Device,
    lines: &mut Lines,
    pace: &mut Pace,
    chunk: &Bytes,
) -> Result<Option<ApiError>, ApiError> {
    let mut entries = Vec::new();
    for step in chunk.chunks(STEP) {
        let (more, error) = lines.feed(step);
        entries.extend(more);
        if error.is_some() || is_much(&entries) {
            write(api, device, pace, std::mem::take(&mut entries)).await?;
        }
        if error.is_some() {
            return Ok(error);
        }
        // A step may unpack to much that holds no entry: others get their turn.
        tokio::task::yield_now().await;
    }
    write(api, device, pace, entries).await?;
    Ok(None)
}

/// Whether the entries should be written before more are read.
fn is_much(entries: &[Entry]) -> bool {
    let bytes: usize = entries.iter().map(|entry| entry.message.len()).sum();
    entries.len() >= APPEND || bytes >= MAX_LINE
}

/// Appends the entries, in parts, no faster than a stream may be.
async fn write(
    api: &Api,
    device: &Device,
    pace: &mut Pace,
    entries: Vec<Entry>,
) -> Result<(), ApiError> {
    let mut entries = entries.into_iter();
    loop {
        let some: Vec<Entry> = entries.by_ref().take(APPEND).collect();
        if some.is_empty() {
            return Ok(());
        }
        let pause = pace.take(some.len(), Instant::now());
        append(api, device, some).await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How many entries of a stream came in the second that runs.
#[derive(Default)]
struct Pace {
    second: Option<Instant>,
    entries: usize,
}

impl Pace {
    /// Counts entries; gives how long to wait before more are taken in.
    fn take(&mut self, entries: usize, now: Instant) -> Duration {
        const SECOND: Duration = Duration::from_secs(1);
        let second = *self.second.get_or_insert(now);
        let passed = now.duration_since(second);
        if passed >= SECOND {
            *self = Pace { second: Some(now), entries };
            return Duration::ZERO;
        }
        self.entries += entries;
        if self.entries < PACE { Duration::ZERO } else { SECOND - passed }
    }
}

/// `POST /device/v2/:uuid/logs`: a few entries at once.
pub(crate) async fn batch(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let device = own_device(&api, &identity, &uuid).await?;
    api.log_limit.count(&device.uuid, Instant::now())?;
    let lines: Vec<Line> = body::json(body, body::REPORT).await?;
    if lines.len() > MAX_BATCH {
        return Err(ApiError::bad(format!("at most {MAX_BATCH} entries can be sent at once")));
    }
    let now = now_ms();
    append(&api, &device, lines.into_iter().map(|line| line.into_entry(now)).collect()).await?;
    sync(&api, &device).await?;
    Ok(StatusCode::CREATED)
}

async fn append(api: &Api, device: &Device, entries: Vec<Entry>) -> Result<(), ApiError> {
    if entries.is_empty() {
        return Ok(());
    }
    let (logs, key) = (api.logs.clone(), device.log_key());
    blocking(move || logs.append(&key, entries)).await
}

async fn sync(api: &Api, device: &Device) -> Result<(), ApiError> {
    let (logs, key) = (api.logs.clone(), device.log_key());
    blocking(move || logs.sync(&key)).await
}

/// Runs file work beside the async threads. A log that cannot be written is said as 503: the device
/// keeps its lines and comes again.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, minke_cloud_logs::LogError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal("keeping logs", error))?.map_err(|error| {
        tracing::error!("{}", crate::error::chain(&error));
        ApiError::Unavailable("the server cannot keep logs now".to_owned())
    })
}

/// Cuts chunks of a stream into entries.
struct Lines {
    unpack: Option<GzDecoder<Vec<u8>>>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Lines {
    fn new(headers: &HeaderMap) -> Result<Lines, ApiError> {
        let coding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str());
        let unpack = match coding {
            None | Some(Ok("identity" | "")) => None,
            Some(Ok("gzip")) => Some(GzDecoder::new(Vec::new())),
            Some(_) => {
                let text = "the only Content-Encoding read here is gzip";
                return Err(ApiError::UnsupportedMedia(text.to_owned()));
            }
        };
        Ok(Lines { unpack, rest: Vec::new() })
    }

    /// The whole entries that came with `step`, and what was wrong after them.
    fn feed(&mut self, step: &[u8]) -> (Vec<Entry>, Option<ApiError>) {
        let mut entries = Vec::new();
        let text = self.unpacked(step);
        let cut = text.and_then(|text| self.cut(&text, &mut entries));
        (entries, cut.err())
    }

    fn unpacked(&mut self, step: &[u8]) -> Result<Vec<u8>, ApiError> {
        let Some(unpack) = &mut self.unpack else { return Ok(step.to_vec()) };
        let bad = |error| ApiError::bad(format!("the stream is not gzip: {error}"));
        unpack.write_all(step).map_err(bad)?;
        unpack.flush().map_err(bad)?;
        Ok(std::mem::take(unpack.get_mut()))
    }

    fn cut(&mut self, text: &[u8], entries: &mut Vec<Entry>) -> Result<(), ApiError> {
        let now = now_ms();
        // What is left of before has no end of a line in it: it is not searched again.
        let mut searched = self.rest.len();
        self.rest.extend_from_slice(text);
        let mut start = 0;
        while let Some(found) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
            let end = searched + found;
            let line = self.rest[start..end].trim_ascii();
            if line.len() > MAX_LINE {
                return Err(too_long());
            }
            if !line.is_empty() {
                let line: Line = serde_json::from_slice(line)
                    .map_err(|error| ApiError::bad(format!("a line is no log entry: {error}")))?;
                entries.push(line.into_entry(now));
            }
            start = end + 1;
            searched = start;
        }
        self.rest.drain(..start);
        if self.rest.len() > MAX_LINE { Err(too_long()) } else { Ok(()) }
    }
}

fn too_long() -> ApiError {
    ApiError::TooLarge(format!("a line is longer than {MAX_LINE} bytes, the limit here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))])
    }

    /// Feeds a whole body as the stream does.
    fn feed_all(lines: &mut Lines, body: &[u8]) -> (Vec<Entry>, Option<ApiError>) {
        let mut all = Vec::new();
        for step in body.chunks(STEP) {
            let (entries, error) = lines.feed(step);
            all.extend(entries);
            if error.is_some() {
                return (all, error);
            }
        }
        (all, None)
    }

    #[test]
    fn lines_come_out_whole_however_the_chunks_are_cut() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        for number in 0..50 {
            writeln!(packer, r#"{{"message":"line {number} ä","timestamp":{number}}}"#).unwrap();
            packer.flush().unwrap();
        }
        let packed = packer.finish().unwrap();
        for size in [1, 7, 1000, packed.len()] {
            let mut lines = Lines::new(&gzip()).unwrap();
            let mut entries = Vec::new();
            for chunk in packed.chunks(size) {
                let (some, error) = feed_all(&mut lines, chunk);
                assert!(error.is_none());
                entries.extend(some);
            }
            assert_eq!(entries.len(), 50, "chunks of {size}");
            assert_eq!(entries[49].message, "line 49 ä");
        }
    }

    #[test]
    fn a_flushed_line_is_there_before_the_stream_ends() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        writeln!(packer, r#"{{"message":"hi"}}"#).unwrap();
        packer.flush().unwrap();
        let mut lines = Lines::new(&gzip()).unwrap();
        let (entries, _) = lines.feed(packer.get_ref());
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn a_bomb_a_long_line_and_nonsense_are_refused_with_what_came_before_kept() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        writeln!(packer, r#"{{"message":"first"}}"#).unwrap();
        packer.flush().unwrap();
        packer.write_all(&vec![b' '; 64 << 20]).unwrap();
        let packed = packer.finish().unwrap();
        let (entries, error) = feed_all(&mut Lines::new(&gzip()).unwrap(), &packed);
        assert_eq!(entries.len(), 1);
        assert!(matches!(error, Some(ApiError::TooLarge(_))));

        let plain = HeaderMap::new();
        let text = b"{\"message\":\"a\"}\nnonsense\n";
        let (entries, error) = Lines::new(&plain).unwrap().feed(text);
        assert_eq!(entries.len(), 1);
        assert!(matches!(error, Some(ApiError::BadRequest(_))));
        let (_, error) = Lines::new(&gzip()).unwrap().feed(text);
        assert!(matches!(error, Some(ApiError::BadRequest(_))));
    }

    #[test]
    fn a_bomb_of_short_lines_comes_out_a_little_at_a_time() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all("{\"message\":\"\"}\n".repeat(500_000).as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        let mut lines = Lines::new(&gzip()).unwrap();
        let mut all = 0;
        for step in packed.chunks(STEP) {
            let (entries, error) = lines.feed(step);
            assert!(error.is_none());
            assert!(entries.len() < 25_000, "{} entries at once", entries.len());
            all += entries.len();
        }
        assert_eq!(all, 500_000);
    }

    #[test]
    fn a_stream_waits_for_the_next_second_when_it_sent_too_much() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!(pace.take(PACE - 1, at(0)), Duration::ZERO);
        assert_eq!(pace.take(1, at(400)), Duration::from_millis(600));
        assert_eq!(pace.take(PACE - 1, at(1000)), Duration::ZERO);
        assert_eq!(pace.take(1, at(2100)), Duration::ZERO);
    }
}
