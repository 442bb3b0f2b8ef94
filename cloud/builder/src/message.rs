//! What the caller of a push reads: a JSON array whose elements arrive one by one, as the official
//! CLI expects it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

/// One element of the array.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Message {
    /// A line for people.
    Line {
        message: String,
        /// Overwrites the line before.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replace: bool,
        /// The push has failed.
        #[serde(rename = "isError", skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    /// Something for programs.
    Metadata {
        #[serde(rename = "type")]
        kind: &'static str,
        resource: &'static str,
        value: Value,
    },
}

/// Where messages go. A headless push has a log and no reader.
#[derive(Clone)]
pub(crate) struct Output {
    sender: Option<mpsc::Sender<Bytes>>,
    first: Arc<AtomicBool>,
    log: Arc<std::sync::Mutex<Log>>,
}

/// The end of a text, at most so many bytes of it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    text: String,
    limit: usize,
    cut: bool,
}

impl Log {
    pub fn new(limit: usize) -> Log {
        Log { text: String::new(), limit, cut: false }
    }

    pub fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > self.limit.saturating_mul(2) {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let mut from = self.text.len().saturating_sub(self.limit);
        while !self.text.is_char_boundary(from) {
            from += 1;
        }
        self.cut |= from > 0;
        self.text.drain(..from);
    }

    pub fn text(&mut self) -> String {
        self.shorten();
        match self.cut {
            true => format!("[the beginning was cut]\n{}", self.text),
            false => self.text.clone(),
        }
    }
}

impl Output {
    /// An output that is read, and what reads it.
    pub fn streamed(log_limit: usize) -> (Output, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(256);
        (Output::new(Some(sender), log_limit), receiver)
    }

    /// An output that only keeps its log.
    pub fn silent(log_limit: usize) -> Output {
        Output::new(None, log_limit)
    }

    fn new(sender: Option<mpsc::Sender<Bytes>>, log_limit: usize) -> Output {
        Output {
            sender,
            first: Arc::new(AtomicBool::new(true)),
            log: Arc::new(std::sync::Mutex::new(Log::new(log_limit))),
        }
    }

    async fn send(&self, message: &Message) {
        let Some(sender) = &self.sender else { return };
        let Ok(json) = serde_json::to_string(message) else { return };
        let before = if self.first.swap(false, Ordering::SeqCst) { "[" } else { ",\n" };
        // A reader that is gone is noticed by `closed`, not here.
        let _ = sender.send(Bytes::from(format!("{before}{json}"))).await;
    }

    async fn line(&self, message: String, is_error: bool) {
        if let Ok(mut log) = self.log.lock() {
            log.push(&message);
        }
        self.send(&Message::Line { message, replace: false, is_error }).await;
    }

    /// A line of the server's own.
    pub async fn info(&self, text: impl AsRef<str>) {
        self.line(format!("[Info]     {}", text.as_ref()), false).await;
    }

    /// Something legal that is probably not meant.
    pub async fn warning(&self, text: impl AsRef<str>) {
        self.line(format!("[Warning]  {}", text.as_ref()), false).await;
    }

    /// Good news.
    pub async fn success(&self, text: impl AsRef<str>) {
        self.line(format!("[Success]  {}", text.as_ref()), false).await;
    }

    /// The reason of the failure; the caller's program ends with it.
    pub async fn error(&self, text: impl AsRef<str>) {
        self.line(format!("[Error]    {}", text.as_ref()), true).await;
    }

    /// A line as it is.
    pub async fn plain(&self, text: impl Into<String>) {
        self.line(text.into(), false).await;
    }

    /// A line of one service's build.
    pub async fn service(&self, name: &str, width: usize, text: &str) {
        let tag = format!("[{name}]");
        // As wide as the server's own tags, or wider.
        self.line(format!("{tag:width$} {text}", width = (width + 2).max(10)), false).await;
    }

    /// Something for programs.
    pub async fn metadata(&self, resource: &'static str, value: Value) {
        self.send(&Message::Metadata { kind: "metadata", resource, value }).await;
    }

    /// Everything said so far.
    pub fn log(&self) -> String {
        self.log.lock().map(|mut log| log.text()).unwrap_or_default()
    }

    /// Ends the array.
    pub async fn finish(self) {
        if let Some(sender) = &self.sender {
            let end = if self.first.swap(false, Ordering::SeqCst) { "[]" } else { "]" };
            let _ = sender.send(Bytes::from_static(end.as_bytes())).await;
        }
    }

    /// Returns when the reader went away; never for a headless push.
    pub async fn closed(&self) {
        match &self.sender {
            Some(sender) => sender.closed().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_is_one_json_array() {
        let (output, mut receiver) = Output::streamed(100);
        output.info("hello").await;
        output.metadata("buildLogId", 7.into()).await;
        output.error("no").await;
        output.finish().await;
        let mut text = Vec::new();
        while let Some(piece) = receiver.recv().await {
            text.extend_from_slice(&piece);
        }
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!([
                { "message": "[Info]     hello" },
                { "type": "metadata", "resource": "buildLogId", "value": 7 },
                { "message": "[Error]    no", "isError": true },
            ])
        );
    }

    #[test]
    fn a_log_keeps_its_end() {
        let mut log = Log::new(10);
        for i in 0..100 {
            log.push(&format!("ü{i}"));
        }
        let text = log.text();
        assert!(text.starts_with("[the beginning was cut]") && text.ends_with("ü99\n"), "{text}");
        assert!(text.len() < 40);
    }
}
