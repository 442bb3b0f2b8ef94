//! A small HTTP client that can also misbehave: each request has a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The first error code of the body.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub fn request(method: &str, path: &str) -> Request {
    let (method, path) = (method.to_owned(), path.to_owned());
    Request { method, path, headers: Vec::new(), body: Vec::new() }
}

impl Request {
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn bearer(self, token: Option<&str>) -> Self {
        match token {
            Some(token) => self.header("authorization", format!("Bearer {token}")),
            None => self,
        }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn head(&self, length: usize) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: registry\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + &format!("content-length: {length}\r\nconnection: close\r\n\r\n")
    }

    pub async fn send(self, server: SocketAddr) -> Answer {
        let mut socket = TcpStream::connect(server).await.unwrap();
        let head = self.head(self.body.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early may close before everything was sent: its answer counts.
        let _ = socket.write_all(&self.body).await;
        read_answer(&mut socket, self.method == "HEAD").await
    }

    /// Announces the whole body, sends `count` bytes of it, and goes away.
    pub async fn cut_after(self, server: SocketAddr, count: usize) {
        let mut socket = TcpStream::connect(server).await.unwrap();
        let head = self.head(self.body.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&self.body[..count]).await.unwrap();
        socket.shutdown().await.unwrap();
        // Until the server noticed: then what it got is stored.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
}

async fn read_answer(socket: &mut TcpStream, is_head: bool) -> Answer {
    let mut bytes = Vec::new();
    let patience = Duration::from_secs(60);
    // A reset after the answer was read leaves the answer.
    let read = tokio::time::timeout(patience, socket.read_to_end(&mut bytes)).await;
    let _ = read.expect("the registry answers");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let body = bytes.split_off(end + 4);
    let status = head[9..12].parse().unwrap();
    assert!(!is_head || body.is_empty(), "an answer to HEAD has no body");
    Answer { status, head, body }
}
