//! The few lines of HTTP that looking at a page takes.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const MAX_BODY: u64 = 16 << 20;

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    /// The status, as 200.
    pub status: u16,
    /// The body, whole.
    pub body: String,
}

/// Fetches `url` (plain http); `timeout` holds for connecting and for every read.
pub fn get(url: &str, timeout: Duration) -> Result<Response> {
    request("GET", url, &[], "", timeout)
}

/// Sends a request with more headers and a body.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
    timeout: Duration,
) -> Result<Response> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not plain http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let said = || format!("cannot fetch {url}");
    let address = with_port.to_socket_addrs().with_context(said)?.next().with_context(said)?;
    let mut stream = TcpStream::connect_timeout(&address, timeout).with_context(said)?;
    stream.set_read_timeout(Some(timeout)).with_context(said)?;
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).with_context(said)?;
    let mut answer = String::new();
    stream.take(MAX_BODY).read_to_string(&mut answer).with_context(said)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{url}: the answer has no end of its head");
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("{url}: the answer has no status"))?;
    Ok(Response { status, body: body.to_owned() })
}
