//! The head of a request: read from the connection, and as much understood as is needed to decide who
//! answers. Whoever does answer parses it again by its own rules.

use std::time::Duration;

use minke_engine_client::wire::ErrorBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest head, bytes.
const LONGEST: usize = 64 * 1024;
/// Most headers: what the HTTP library behind takes.
const MOST_HEADERS: usize = 100;
/// How long, and how many pieces, a refused client's further bytes are read, so that it reads the answer.
const PARTING: Duration = Duration::from_secs(1);
const DRAINED: u32 = 256;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Where the body begins in the bytes read.
    pub(crate) end: usize,
}

impl Head {
    /// The first value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What was heard of a request's head.
pub(super) enum Heard {
    /// A head, and all bytes read so far.
    Head(Head, Vec<u8>),
    /// The client has gone without a word.
    Nothing,
    /// It did not come in this time.
    TooSlow(Duration),
    TooLong,
    /// More headers than are read.
    TooMany,
    NoHttp,
}

/// Reads a head and possibly more.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Heard {
    let mut bytes = Vec::with_capacity(4096);
    let mut looked = 0;
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) if bytes.is_empty() => return Heard::Nothing,
            Ok(0) => return Heard::NoHttp,
            Ok(_) => {}
            Err(_) => return Heard::Nothing,
        }
        // The end may lie across two pieces.
        if let Some(end) = end_of_head(&bytes[looked..]) {
            let end = looked + end;
            return match parse(&bytes[..end], end) {
                _ if end > LONGEST => Heard::TooLong,
                Some(head) if head.headers.len() > MOST_HEADERS => Heard::TooMany,
                Some(head) => Heard::Head(head, bytes),
                None => Heard::NoHttp,
            };
        }
        if bytes.len() > LONGEST {
            return Heard::TooLong;
        }
        looked = bytes.len().saturating_sub(3);
    }
}

/// Tells a client why its head is not taken.
pub(super) async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), heard: Heard) {
    let (status, message) = match heard {
        Heard::Head(..) | Heard::Nothing => return,
        Heard::TooSlow(limit) => (
            "408 Request Timeout",
            format!("the request's head did not come within {} s", limit.as_secs()),
        ),
        Heard::TooLong => (
            "431 Request Header Fields Too Large",
            format!("the request's head is longer than {LONGEST} bytes"),
        ),
        Heard::TooMany => (
            "431 Request Header Fields Too Large",
            format!("the request has more than {MOST_HEADERS} headers"),
        ),
        Heard::NoHttp => ("400 Bad Request", "this is no HTTP request in UTF-8".to_owned()),
    };
    let body = serde_json::to_string(&ErrorBody { message }).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that has gone does not hear it.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut rest = [0u8; 4096];
    let drain = async {
        for _ in 0..DRAINED {
            if !matches!(stream.read(&mut rest).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PARTING, drain).await;
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(bytes: &[u8], end: usize) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Head { method, target, headers, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_is_read_whole_and_the_rest_is_kept() {
        let text = b"POST /v1.47/exec/x/start?a=1 HTTP/1.1\r\nUpgrade: tcp\r\nHost: d\r\n\r\nrest";
        let Heard::Head(head, bytes) = read(&mut &text[..]).await else { panic!("a head") };
        assert_eq!(
            (head.method.as_str(), head.target.as_str()),
            ("POST", "/v1.47/exec/x/start?a=1")
        );
        assert_eq!(head.header("upgrade"), Some("tcp"));
        assert_eq!(&bytes[head.end..], b"rest");
        assert!(matches!(read(&mut &b"POST / HTTP/1.1\r\n"[..]).await, Heard::NoHttp));
        assert!(matches!(read(&mut &b""[..]).await, Heard::Nothing));
        assert!(matches!(read(&mut &b"GET /\xff HTTP/1.1\r\n\r\n"[..]).await, Heard::NoHttp));
        let flood = b"X-A: 0123456789abcdef\r\n".repeat(4000);
        assert!(matches!(read(&mut &flood[..]).await, Heard::TooLong));
    }
}
