//! The head of a request: read from the connection, and as much understood as is needed to decide who
//! answers. Whoever does answer parses it again by its own rules.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head, bytes.
const LONGEST: usize = 64 * 1024;

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

/// Reads a head and possibly more; `None` if the client says nothing.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        if let Some(end) = end_of_head(&bytes) {
            return Ok(parse(&bytes[..end], end).map(|head| (head, bytes)));
        }
        if bytes.len() > LONGEST {
            return Ok(None);
        }
    }
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
        let (head, bytes) = read(&mut &text[..]).await.unwrap().unwrap();
        assert_eq!(
            (head.method.as_str(), head.target.as_str()),
            ("POST", "/v1.47/exec/x/start?a=1")
        );
        assert_eq!(head.header("upgrade"), Some("tcp"));
        assert_eq!(&bytes[head.end..], b"rest");
        assert!(read(&mut &b"POST / HTTP/1.1\r\n"[..]).await.unwrap().is_none());
    }
}
