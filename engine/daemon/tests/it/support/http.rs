//! Plain HTTP against the daemon's socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::Site;

/// An answer.
pub struct Answer {
    pub status: u16,
    pub text: String,
    body: Vec<u8>,
}

impl Answer {
    /// What is in its frames of output, both streams as one.
    pub fn frames(&self) -> String {
        let mut out = Vec::new();
        let mut rest = &self.body[..];
        while let Some((frame, tail)) = rest.split_first_chunk::<8>() {
            let size = u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
            out.extend_from_slice(tail.get(..size).unwrap_or_default());
            rest = tail.get(size..).unwrap_or_default();
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Its body as JSON; a body in chunks is put together.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.text))
    }
}

/// Asks the daemon, with a JSON body if there is one.
pub fn ask(site: &Site, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let body = body.map(Value::to_string).unwrap_or_default();
    ask_with(site, method, path, &["Content-Type: application/json"], body.as_bytes())
}

/// Asks the daemon with further lines in the head.
pub fn ask_with(site: &Site, method: &str, path: &str, head: &[&str], body: &[u8]) -> Answer {
    begin(site, method, path, head, body).finish()
}

/// An answer of which the head is there.
pub struct Begun {
    pub head: String,
    /// What follows.
    pub stream: UnixStream,
}

/// Asks the daemon, and waits for the answer's head alone.
pub fn begin(site: &Site, method: &str, path: &str, head: &[&str], body: &[u8]) -> Begun {
    let mut lines = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for line in head {
        lines.push_str(line);
        lines.push_str("\r\n");
    }
    lines.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(&[lines.as_bytes(), body].concat()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
    // Byte by byte: what is behind it is read by whoever knows what it is.
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    Begun { head: String::from_utf8_lossy(&head).into_owned(), stream }
}

impl Begun {
    /// Whether nothing of what follows has come.
    pub fn is_pending(&self) -> bool {
        let mut ready = [rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ready, Some(&rustix::event::Timespec::default())).unwrap() == 0
    }

    /// The whole answer, when it has ended.
    pub fn finish(mut self) -> Answer {
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body).unwrap();
        read(&self.head, &body)
    }
}

fn read(head: &str, body: &[u8]) -> Answer {
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_vec() };
    Answer { status, text: String::from_utf8_lossy(&body).into_owned(), body }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        out.extend_from_slice(body.get(end + 2..end + 2 + size).unwrap_or_default());
        body = body.get(end + 4 + size..).unwrap_or_default();
    }
    out
}
