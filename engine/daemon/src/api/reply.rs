//! Answers: JSON whole, and JSON lines as they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    /// Until it has ended.
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Pieces {
    /// Runs `make` with where its pieces go.
    pub(crate) fn of<F, T>(make: F) -> Pieces
    where
        F: FnOnce(mpsc::Sender<Bytes>) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        Pieces::whole(|sender| {
            let work = make(sender);
            async move {
                work.await;
                Ok(())
            }
        })
    }

    /// The same for a body that is of use only as a whole. After an error the connection is broken off, so
    /// that nobody takes a part for all of it.
    pub(crate) fn whole<F, T>(make: F) -> Pieces
    where
        F: FnOnce(mpsc::Sender<Bytes>) -> T,
        T: Future<Output = io::Result<()>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(64);
        Pieces { receiver, task: Some(tokio::spawn(make(sender))) }
    }

    /// The pieces as the body of an answer of this content type.
    pub(crate) fn answer(self, content_type: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::from_stream(self));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = ready!(self.receiver.poll_recv(context)) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(task).poll(context));
        self.task = None;
        Poll::Ready(match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(panicked) => Some(Err(io::Error::other(panicked))),
        })
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn all(pieces: Pieces) -> Vec<Result<Bytes, io::ErrorKind>> {
        pieces.map(|piece| piece.map_err(|error| error.kind())).collect().await
    }

    #[tokio::test]
    async fn a_body_ends_well_only_if_its_task_does() {
        let piece = Bytes::from_static(b"piece");
        let ending = |end: io::Result<()>| {
            let piece = piece.clone();
            Pieces::whole(|sender| async move {
                let _ = sender.send(piece).await;
                drop(sender);
                end
            })
        };
        assert_eq!(all(ending(Ok(()))).await, [Ok(piece.clone())]);
        let kind = io::ErrorKind::PermissionDenied;
        assert_eq!(all(ending(Err(kind.into()))).await, [Ok(piece.clone()), Err(kind)]);
        let panicking = Pieces::of(|_sender| async { panic!("no need to worry: a test panics") });
        assert_eq!(all(panicking).await, [Err(io::ErrorKind::Other)]);
    }
}
