//! A stream to a port of a device, as the runtime's other streams are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use minke_common_tunnel::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Bytes to and from a device. Shutting down the write side leaves the read side open.
/// Dropping it resets what is not finished.
pub struct TunnelStream {
    // Before the slot, so that the stream is gone when its slot is free.
    stream: Compat<Stream>,
    _slot: OwnedSemaphorePermit,
}

impl TunnelStream {
    pub(crate) fn new(stream: Stream, slot: OwnedSemaphorePermit) -> Self {
        Self { stream: stream.compat(), _slot: slot }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
