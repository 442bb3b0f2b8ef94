//! Answers: JSON whole, and JSON lines as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A JSON body.
pub(crate) fn json(value: &impl Serialize) -> Response<Body> {
    // The wire types have string keys and finite numbers only, so this cannot fail.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON value as a line.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    Bytes::from(bytes)
}

/// A body of pieces that a task makes. The task ends when the client goes away.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    task: JoinHandle<()>,
}

impl Pieces {
    /// Runs `make` with where its pieces go.
    pub(crate) fn of<F, T>(make: F) -> Pieces
    where
        F: FnOnce(mpsc::Sender<Bytes>) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(64);
        Pieces { receiver, task: tokio::spawn(make(sender)) }
    }

    /// The pieces as the body of an answer of this content type.
    pub(crate) fn answer(self, content_type: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::from_stream(self));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.task.abort();
    }
}
