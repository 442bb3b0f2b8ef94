//! One HTTP request per connection over a unix socket.
//!
//! Connecting costs some 20 µs there, and a connection of its own means that a call which is
//! dropped is seen by the engine at once.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::BoxStream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::Error;
use crate::wire::ErrorBody;

/// No answer that is read whole may be larger.
const LARGEST_ANSWER: usize = 64 << 20;

pub(crate) type RequestBody = BoxBody<Bytes, io::Error>;

/// A call that is not sent yet.
pub(crate) struct Call {
    socket: Arc<Path>,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: RequestBody,
    content_type: Option<&'static str>,
}

impl Call {
    pub(crate) fn new(socket: &Arc<Path>, method: Method, path: String) -> Call {
        Call {
            socket: socket.clone(),
            method,
            path: format!("/v{}{path}", crate::API_VERSION),
            query: String::new(),
            headers: Vec::new(),
            body: empty(),
            content_type: None,
        }
    }

    /// Adds `name=value` to the query.
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Call {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        escape_into(&mut self.query, value.as_ref(), b"-_.~");
        self
    }

    /// Adds `name=true` to the query when `value`.
    pub(crate) fn flag(self, name: &str, value: bool) -> Call {
        if value { self.query(name, "true") } else { self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Call {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Call {
        // The wire types have string keys and finite numbers only, so this cannot fail.
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        self.body = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed();
        self.content_type = Some("application/json");
        self
    }

    pub(crate) fn stream(mut self, body: BoxStream<'static, io::Result<Bytes>>) -> Call {
        use futures_util::StreamExt;
        let frames =
            SyncStream(std::sync::Mutex::new(body.map(|part| part.map(Frame::data)).boxed()));
        self.body = BodyExt::boxed(StreamBody::new(frames));
        self.content_type = Some("application/x-tar");
        self
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Sends it and answers the response when it is a success.
    pub(crate) async fn send(self) -> Result<Answer, Error> {
        let name = self.name();
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::Broken {
            call: name.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            Error::Unreachable { socket: PathBuf::from(&*self.socket), source }
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, RequestBody>(TokioIo::new(stream))
                .await
                .map_err(|error| broken(error.into()))?;
        let driver = Driver(tokio::spawn(async move {
            // Why a connection ended is said by the call that was on it.
            let _ = connection.with_upgrades().await;
        }));
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("{}{}", self.path, self.query))
            .header(HOST, "engine");
        if let Some(content_type) = self.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (header, value) in self.headers {
            request = request.header(header, value);
        }
        let request = request.body(self.body).map_err(|error| broken(error.into()))?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        let answer = Answer { name, response, _driver: driver };
        if answer.response.status().as_u16() >= 400 {
            return Err(answer.into_refusal().await);
        }
        Ok(answer)
    }
}

/// Ends the connection's task when its user is gone.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A successful answer whose body is not read yet.
pub(crate) struct Answer {
    name: String,
    response: Response<Incoming>,
    _driver: Driver,
}

impl Answer {
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let (name, bytes) = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Unreadable { call: name, source })
    }

    /// Reads the body and drops it.
    pub(crate) async fn done(self) -> Result<(), Error> {
        self.bytes().await.map(drop)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    async fn bytes(mut self) -> Result<(String, Bytes), Error> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Error::TooLarge { call: self.name, limit: LARGEST_ANSWER });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((self.name, bytes.freeze()))
    }

    async fn into_refusal(self) -> Error {
        let status = self.response.status().as_u16();
        match self.bytes().await {
            Ok((call, bytes)) => {
                let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
                    Ok(body) => body.message,
                    Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
                };
                Error::Refused { call, status, message }
            }
            Err(error) => error,
        }
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame
                .map_err(|error| Error::Broken { call: self.name.clone(), source: error.into() })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The error for a body that does not hold what it should.
    pub(crate) fn broken(
        &self,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Broken { call: self.name.clone(), source: reason.into() }
    }

    /// The body as JSON values, one a line.
    pub(crate) fn lines<T: DeserializeOwned>(self) -> JsonLines<T> {
        JsonLines { answer: self, buffer: BytesMut::new(), _item: std::marker::PhantomData }
    }
}

/// A body of JSON values, one a line.
pub(crate) struct JsonLines<T> {
    answer: Answer,
    buffer: BytesMut,
    _item: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return self.parse(&line).map(Some);
            }
            if self.buffer.len() > LARGEST_ANSWER {
                return Err(Error::TooLarge {
                    call: self.answer.name.clone(),
                    limit: LARGEST_ANSWER,
                });
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => {
                    let line = std::mem::take(&mut self.buffer);
                    return self.parse(&line).map(Some);
                }
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.answer.name
    }

    fn parse(&self, line: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(line)
            .map_err(|source| Error::Unreadable { call: self.answer.name.clone(), source })
    }
}

/// A stream that is only ever polled by its owner, so that a lock makes it `Sync`.
struct SyncStream(std::sync::Mutex<BoxStream<'static, io::Result<Frame<Bytes>>>>);

impl Stream for SyncStream {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut stream = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        stream.as_mut().poll_next(context)
    }
}

fn empty() -> RequestBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed()
}

/// Percent-encodes everything but letters, digits and `plain`.
fn escape_into(out: &mut String, text: &str, plain: &[u8]) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A name as part of a path; slashes stay (image names have them).
pub(crate) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    escape_into(&mut out, name, b"-_.~/:@");
    out
}
