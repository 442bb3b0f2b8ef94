//! The lines a client reads while its image is built, in Docker's words.
//!
//! Stages are built side by side, but read one after the other: each writes to a lane of its own. The
//! lane whose turn it is goes straight to the client; what the others say waits in files, so that no
//! stage is ever held up by the reading of another.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Most bytes that wait in one lane; what is said beyond is left out, and that is said.
const MAX_WAITING: u64 = 64 << 20;
/// Bytes of a waiting lane that are sent at once.
const CHUNK: usize = 32 << 10;

/// Where the lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    sender: mpsc::Sender<Bytes>,
    quiet: bool,
    lane: Option<Lane>,
}

/// A stage's way to the client.
#[derive(Debug, Clone)]
struct Lane {
    waiting: Arc<Mutex<Waiting>>,
    /// Dropped with the last clone: then the stage says nothing more.
    _open: mpsc::Sender<()>,
}

/// What a lane holds until its turn.
#[derive(Debug)]
struct Waiting {
    turn: bool,
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

/// The other end of a lane.
pub(crate) struct LaneEnd {
    waiting: Arc<Mutex<Waiting>>,
    open: mpsc::Receiver<()>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Keeps a line, unless it is the lane's turn.
    fn keep(&mut self, line: &[u8]) -> bool {
        if self.turn {
            return false;
        }
        let left_out = || format!("{}\r\n", json!({ "stream": "[output left out]\n" }));
        let line = match self.written {
            full if full > MAX_WAITING => return true,
            nearly if nearly + line.len() as u64 > MAX_WAITING => {
                self.written = MAX_WAITING + 1;
                return self.append(left_out().as_bytes());
            }
            _ => line,
        };
        self.written += line.len() as u64;
        self.append(line)
    }

    fn append(&mut self, line: &[u8]) -> bool {
        if self.file.is_none() {
            let made = OpenOptions::new().create_new(true).read(true).append(true).open(&self.path);
            self.file = made.inspect_err(|error| tracing::warn!(%error, "output is lost")).ok();
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line)
        {
            tracing::warn!(%error, "a build's output is lost");
        }
        true
    }

    /// What was kept from `at` on; its turn comes when nothing is left.
    fn take(&mut self, at: u64) -> Option<Bytes> {
        let mut chunk = vec![0u8; CHUNK];
        let got = self.file.as_ref().and_then(|file| file.read_at(&mut chunk, at).ok());
        match got.unwrap_or(0) {
            0 => {
                self.turn = true;
                None
            }
            got => Some(Bytes::from(chunk).slice(..got)),
        }
    }
}

impl Output {
    /// An output and what reads it. A quiet one says only the image's id and errors.
    pub(crate) fn new(quiet: bool) -> (Output, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(256);
        (Output { sender, quiet, lane: None }, receiver)
    }

    /// A lane of this output, which waits in a new file at `path`.
    pub(crate) fn lane(&self, path: PathBuf) -> (Output, LaneEnd) {
        let waiting = Waiting { turn: false, path, file: None, written: 0 };
        let waiting = Arc::new(Mutex::new(waiting));
        let (sender, open) = mpsc::channel(1);
        let lane = Lane { waiting: waiting.clone(), _open: sender };
        let own = Output { lane: Some(lane), ..self.clone() };
        (own, LaneEnd { waiting, open })
    }

    /// Sends what a lane holds and then what it says, until its stage is done.
    pub(crate) async fn follow(&self, mut lane: LaneEnd) {
        let mut at = 0;
        loop {
            let Some(chunk) = lock(&lane.waiting).take(at) else { break };
            at += chunk.len() as u64;
            // A client that is gone is noticed by `closed`.
            let _ = self.sender.send(chunk).await;
        }
        while lane.open.recv().await.is_some() {}
    }

    async fn send(&self, line: &Value) {
        let line = Bytes::from(format!("{line}\r\n"));
        if let Some(lane) = &self.lane
            && lock(&lane.waiting).keep(&line)
        {
            return;
        }
        let _ = self.sender.send(line).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lanes_are_read_one_after_the_other_and_hold_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let (output, mut receiver) = Output::new(false);
        let (first, first_end) = output.lane(dir.path().join("1"));
        let (second, second_end) = output.lane(dir.path().join("2"));
        for line in 0..10_000 {
            second.text(&format!("second {line}\n")).await;
        }
        let read = tokio::spawn(async move {
            let mut all = String::new();
            while let Some(piece) = receiver.recv().await {
                all.push_str(std::str::from_utf8(&piece).unwrap());
            }
            all
        });
        let speak = async {
            first.text("first\n").await;
            drop(first);
            second.text("second, at last\n").await;
            drop(second);
        };
        let follow = async {
            output.follow(first_end).await;
            output.follow(second_end).await;
        };
        tokio::join!(speak, follow);
        drop(output);
        let all = read.await.unwrap();
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 10_002);
        assert!(lines[0].contains("first") && lines[1].contains("second 0"));
        assert!(lines[10_000].contains("second 9999") && lines[10_001].contains("at last"));
    }
}
