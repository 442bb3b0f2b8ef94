//! What a client still sends when it is clear that the answer is a refusal.
//!
//! Clients written in Go take a connection that is closed while they send for a failure of their own, and
//! show "broken pipe" instead of the answer. So what is left of the request's body is read and thrown
//! away beside an error's answer, within limits; the connection lasts as long as that.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Most bytes that are thrown away.
const MOST: usize = 1 << 30;
/// How long that may take.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// How long a client may send nothing meanwhile.
const STALL: Duration = Duration::from_secs(2);

/// A request's body that comes back when it is dropped before its end.
pub(super) struct Lent {
    body: Option<Incoming>,
    owner: Unread,
}

/// Where it comes back to. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Lends a body.
    pub(super) fn lend(&self, body: Incoming) -> Lent {
        Lent { body: Some(body), owner: self.clone() }
    }

    /// Reads what nobody has read.
    pub(super) async fn throw_away(&self) {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = body else { return };
        let read = async {
            let mut left = MOST;
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(STALL, body.frame()).await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        // Who sends for longer than that may miss the answer.
        let _ = tokio::time::timeout(LONGEST, read).await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        *self.owner.0.lock().unwrap_or_else(PoisonError::into_inner) = body;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
