//! The lines a client reads while its image is built, in Docker's words.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Where the lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    sender: mpsc::Sender<Bytes>,
    quiet: bool,
}

impl Output {
    /// An output and what reads it. A quiet one says only the image's id and errors.
    pub(crate) fn new(quiet: bool) -> (Output, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(256);
        (Output { sender, quiet }, receiver)
    }

    async fn send(&self, line: &Value) {
        // A client that is gone is noticed by `closed`.
        let _ = self.sender.send(Bytes::from(format!("{line}\r\n"))).await;
    }

    /// Output as it is.
    pub(crate) async fn text(&self, text: &str) {
        if !self.quiet {
            self.send(&json!({ "stream": text })).await;
        }
    }

    /// A line of a pull.
    pub(crate) async fn progress(&self, line: &Value) {
        if !self.quiet {
            self.send(line).await;
        }
    }

    /// The finished image.
    pub(crate) async fn finished(&self, id: &str, names: &[String]) {
        if self.quiet {
            self.send(&json!({ "stream": format!("{id}\n") })).await;
            return;
        }
        self.send(&json!({ "aux": { "ID": id } })).await;
        let short = id.trim_start_matches("sha256:").get(..12).unwrap_or(id);
        self.text(&format!("Successfully built {short}\n")).await;
        for name in names {
            self.text(&format!("Successfully tagged {name}\n")).await;
        }
    }

    /// The end of a build that failed.
    pub(crate) async fn failed(&self, message: &str, code: Option<i32>) {
        let mut detail = json!({ "message": message });
        if let Some(code) = code {
            detail["code"] = code.into();
        }
        self.send(&json!({ "errorDetail": detail, "error": message })).await;
    }

    /// Returns when the client went away.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }
}
