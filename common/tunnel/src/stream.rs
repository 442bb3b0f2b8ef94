//! One stream of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::io::{AsyncRead, AsyncWrite};

/// Bytes both ways; each side ends by itself.
///
/// The multiplexer shows a stream that was cut off as one that ended in order. Here it is an
/// error, so that whoever carries the bytes on cuts off the other connection too instead of
/// keeping it half open for ever.
#[derive(Debug)]
pub struct Stream {
    inner: yamux::Stream,
    write_ended: bool,
}

impl Stream {
    pub(crate) fn new(inner: yamux::Stream) -> Self {
        Self { inner, write_ended: false }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        // Closed both ways although this side did not end: the other side, or the tunnel, cut it.
        if read == 0 && !buffer.is_empty() && self.inner.is_closed() && !self.write_ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_ended = true;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
