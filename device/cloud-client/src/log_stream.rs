//! Logs to the server: from any task, into the spool, in gzip NDJSON requests.
//!
//! The server answers a request only when it ends, so a request is ended after a short silence or a
//! few seconds: its answer is what lets the spool forget. While the server cannot be reached, lines
//! wait on disk.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use minke_common_model::ids::{DeviceUuid, ServiceId};
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::backoff::Backoff;
use crate::http::{CloudHttp, HttpError, causes, check};
use crate::random;
use crate::spool::{Limits, Spool};

#[cfg(test)]
mod tests;

/// Longest message, in characters; the rest is cut and said.
const MAX_MESSAGE: usize = 10_000;
/// A request with nothing more to say is ended after this.
const IDLE: Duration = Duration::from_secs(2);
/// A request is ended after this in any case, so that the spool can forget.
const LONGEST: Duration = Duration::from_secs(10);
/// A server that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);
/// A server that has not answered this long after the end of a request is given up.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of lines that go into one flush.
const BATCH: u64 = 64 * 1024;

/// One line of log, as the server takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The text, without its line break.
    pub message: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// Said by the supervisor itself.
    #[serde(skip_serializing_if = "is_no")]
    pub is_system: bool,
    /// Written to standard error.
    #[serde(skip_serializing_if = "is_no")]
    pub is_std_err: bool,
    /// The service that said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
}

fn is_no(truth: &bool) -> bool {
    !*truth
}

/// Where lines go in; clones share the spool.
#[derive(Debug, Clone)]
pub struct LogSink {
    spool: Arc<Mutex<Spool>>,
    /// Told when there is something new; gone when every sink is.
    news: mpsc::Sender<()>,
}

impl LogSink {
    /// Takes lines: they are in the spool when this returns.
    pub fn push(&self, lines: impl IntoIterator<Item = LogLine>) {
        let mut spool = self.spool.lock().expect("no panic while it is held");
        for line in lines {
            if let Err(error) = spool.append(&encode(line)) {
                warn!(%error, "a log line could not be kept");
            }
        }
        drop(spool);
        // A queue that is full has news in it already.
        let _ = self.news.try_send(());
    }
}

/// The task that owns the spool and the request.
pub struct LogStream {
    http: CloudHttp,
    uuid: DeviceUuid,
    news: mpsc::Receiver<()>,
    spool: Arc<Mutex<Spool>>,
}

impl LogStream {
    /// A stream for `uuid` whose spool is the directory `dir`. A directory that cannot be used is no
    /// error: its lines are counted as dropped until it can be.
    pub fn new(http: CloudHttp, uuid: DeviceUuid, dir: &Path) -> (LogStream, LogSink) {
        let spool = Arc::new(Mutex::new(Spool::open(dir, Limits::default())));
        let (sender, news) = mpsc::channel(1);
        let sink = LogSink { spool: spool.clone(), news: sender };
        (LogStream { http, uuid, news, spool }, sink)
    }

    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().expect("no panic while it is held")
    }

    /// Sends for ever; ends when every sink is gone and the last request is answered.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let mut held_until: Option<Instant> = None;
        let mut request: Option<Request> = None;
        let mut is_open = true;
        loop {
            let is_held = held_until.is_some_and(|held| held > Instant::now());
            if self.spool().has_more() && !is_held {
                match self.forward(&mut request).await {
                    Ok(()) => held_until = None,
                    Err(error) => {
                        warn!(%error, "logs wait on disk");
                        let wait = backoff.failed(None, random::fraction());
                        held_until = Some(Instant::now() + wait);
                    }
                }
            }
            let ended = match request.as_ref() {
                Some(open) => !is_open || open.is_broken() || open.ends_at() <= Instant::now(),
                None => false,
            };
            if ended && let Some(open) = request.take() {
                held_until = self.settle(open, &mut backoff).await;
                continue;
            }
            if !is_open && request.is_none() {
                return;
            }
            let next_forward = self
                .spool()
                .has_more()
                .then(|| held_until.unwrap_or_else(Instant::now).max(Instant::now()));
            let wake = [request.as_ref().map(Request::ends_at), next_forward];
            let wake = wake.into_iter().flatten().min();
            // Both arms are cancel-safe.
            tokio::select! {
                news = self.news.recv(), if is_open => is_open = news.is_some(),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn take_batch(&self) -> io::Result<(Vec<Vec<u8>>, u64)> {
        let mut spool = self.spool();
        Ok((spool.next(BATCH)?, spool.take_dropped()))
    }

    /// Opens a request if there is none, and gives it what is there.
    async fn forward(&mut self, request: &mut Option<Request>) -> Result<(), ForwardError> {
        let open = match request {
            Some(open) => open,
            None => request.insert(Request::open(&self.http, &self.uuid)?),
        };
        let (mut lines, dropped) = self.take_batch().map_err(ForwardError::Spool)?;
        if dropped > 0 {
            let message = format!("Warning: Suppressed {dropped} message(s) due to high load");
            let line = LogLine {
                message,
                timestamp: now_ms(),
                is_system: true,
                is_std_err: true,
                service_id: None,
            };
            lines.insert(0, encode(line));
            open.dropped += dropped;
        }
        open.write(&lines).await;
        Ok(())
    }

    /// Ends a request; what it carried is forgotten or sent again.
    async fn settle(&mut self, request: Request, backoff: &mut Backoff) -> Option<Instant> {
        let dropped = request.dropped;
        let settled = match request.finish().await {
            Ok(()) => {
                backoff.succeeded();
                self.spool().acknowledge()
            }
            Err(error) => {
                let wait = backoff.failed(error.retry_after(), random::fraction());
                let cause = causes(&error);
                warn!(%error, cause, "logs wait on disk");
                let mut spool = self.spool();
                spool.rewind();
                // The line that said so is in no spool.
                spool.give_back_dropped(dropped);
                return Some(Instant::now() + wait);
            }
        };
        if let Err(error) = settled {
            warn!(%error, "the spool of logs could not be cleaned");
        }
        None
    }
}

const DOING: &str = "sending logs";

#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("reading the spool of logs")]
    Spool(#[source] io::Error),
}

/// The task that waits for an answer. It ends with this, and its connection with it: a server that
/// never answers would else keep one for each request.
struct Answer(JoinHandle<Result<(), HttpError>>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One request on its way.
struct Request {
    chunks: mpsc::Sender<Result<Bytes, io::Error>>,
    answer: Answer,
    gzip: GzEncoder<Vec<u8>>,
    opened: Instant,
    written: Instant,
    is_stalled: bool,
    /// Lines that this request says went unread.
    dropped: u64,
}

impl Request {
    fn open(http: &CloudHttp, uuid: &DeviceUuid) -> Result<Request, HttpError> {
        let config = http.config_file().get();
        let endpoint = config
            .logs_endpoint
            .as_deref()
            .map(|url| url.trim_end_matches('/'))
            .filter(|url| !url.is_empty())
            .or(config.endpoint())
            .ok_or(HttpError::NoServer)?;
        let path = format!("/device/v2/{uuid}/log-stream");
        let (chunks, mut receiver) = mpsc::channel::<Result<Bytes, io::Error>>(4);
        let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        let request = http
            .request_at(endpoint, &config, Method::POST, &path, config.device_api_key.as_deref())?
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(CONTENT_ENCODING, "gzip")
            .body(reqwest::Body::wrap_stream(body));
        let answer = Answer(tokio::spawn(async move {
            let response = request
                .send()
                .await
                .map_err(|source| HttpError::Transport { doing: DOING, source })?;
            check(DOING, response).await.map(drop)
        }));
        let now = Instant::now();
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let (opened, written) = (now, now);
        Ok(Request { chunks, answer, gzip, opened, written, is_stalled: false, dropped: 0 })
    }

    /// An answer before the end is always bad news.
    fn is_broken(&self) -> bool {
        self.is_stalled || self.answer.0.is_finished()
    }

    fn ends_at(&self) -> Instant {
        (self.written + IDLE).min(self.opened + LONGEST)
    }

    async fn write(&mut self, lines: &[Vec<u8>]) {
        for line in lines {
            self.gzip.write_all(line).expect("a vector takes all");
            self.gzip.write_all(b"\n").expect("a vector takes all");
        }
        self.gzip.flush().expect("a vector takes all");
        let bytes = std::mem::take(self.gzip.get_mut());
        self.written = Instant::now();
        let sent = tokio::time::timeout(STALL, self.chunks.send(Ok(bytes.into()))).await;
        // A receiver that is gone shows in `is_broken`.
        self.is_stalled |= sent.is_err();
    }

    async fn finish(self) -> Result<(), HttpError> {
        let Request { chunks, mut answer, gzip, is_stalled, .. } = self;
        if is_stalled {
            let what = "the server takes nothing more".to_owned();
            return Err(HttpError::Protocol { doing: DOING, what });
        }
        let rest = gzip.finish().expect("a vector takes all");
        let answered = async {
            // A receiver that is gone has answered already.
            let _ = chunks.send(Ok(rest.into())).await;
            drop(chunks);
            (&mut answer.0).await
        };
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                Err(HttpError::Protocol { doing: DOING, what: format!("the task ended: {error}") })
            }
            Err(_) => {
                let what = format!("no answer in {} s", ANSWER.as_secs());
                Err(HttpError::Protocol { doing: DOING, what })
            }
        }
    }
}

fn encode(mut line: LogLine) -> Vec<u8> {
    if let Some((cut, _)) = line.message.char_indices().nth(MAX_MESSAGE) {
        line.message.truncate(cut);
        line.message.push_str("[...]");
    }
    serde_json::to_vec(&line).expect("texts and numbers")
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
