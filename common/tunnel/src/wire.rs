//! A WebSocket as a stream of bytes, shared by the pump that reads it and the multiplexer.
//!
//! The multiplexer is only ever woken for bytes that it waits for. Control messages end
//! here: a ping, pong or wake-up of the socket does not reach it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{Sink, Stream};
use tungstenite::{Error, Message};

/// Bytes gathered before they become one message.
const MESSAGE: usize = 16 * 1024 + 64;

/// The state of one WebSocket. All calls come from the task that owns the tunnel.
pub(crate) struct Wire<S> {
    socket: S,
    /// Wakes the task that owns the tunnel.
    pub(crate) task: Waker,
    inbox: Bytes,
    outbox: BytesMut,
    reader: Option<Waker>,
    /// The socket did not take everything; the multiplexer must try again.
    pub(crate) blocked: bool,
    unflushed: bool,
    ping_due: bool,
    ended: bool,
    /// Messages heard so far, of any kind.
    pub(crate) heard: u64,
}

pub(crate) type Shared<S> = Arc<Mutex<Wire<S>>>;

pub(crate) fn lock<S>(wire: &Shared<S>) -> MutexGuard<'_, Wire<S>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Wire<S>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            task: Waker::noop().clone(),
            inbox: Bytes::new(),
            outbox: BytesMut::new(),
            reader: None,
            blocked: false,
            unflushed: false,
            ping_due: false,
            ended: false,
            heard: 0,
        }
    }

    pub(crate) fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Moves what the socket has: one message of bytes into the inbox, control messages away.
    pub(crate) fn pump(&mut self) -> Result<(), Error> {
        self.send_ping()?;
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        while self.inbox.is_empty() && !self.ended {
            match Pin::new(&mut self.socket).poll_next(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(Some(message)) => self.receive(message?)?,
                Poll::Ready(None) => self.ended = true,
            }
        }
        if (!self.inbox.is_empty() || self.ended)
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<(), Error> {
        self.heard += 1;
        match message {
            Message::Binary(bytes) => self.inbox = bytes,
            Message::Close(_) => self.ended = true,
            // Answered by the WebSocket itself with its next read, which follows at once.
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(_) | Message::Frame(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "a tunnel carries no text");
                return Err(Error::Io(error));
            }
        }
        Ok(())
    }

    fn send_ping(&mut self) -> Result<(), Error> {
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        let mut socket = Pin::new(&mut self.socket);
        if self.ping_due && !self.ended && socket.as_mut().poll_ready(&mut cx)?.is_ready() {
            self.ping_due = false;
            socket.as_mut().start_send(Message::Ping(Bytes::new()))?;
            if socket.poll_flush(&mut cx)?.is_pending() {
                self.unflushed = true;
                self.blocked = true;
            }
        }
        Ok(())
    }

    /// Hands the outbox to the socket as one message.
    fn send_outbox(&mut self) -> Poll<io::Result<()>> {
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        let mut socket = Pin::new(&mut self.socket);
        self.blocked = true;
        if socket.as_mut().poll_ready(&mut cx).map_err(broken)?.is_pending() {
            return Poll::Pending;
        }
        self.blocked = false;
        self.unflushed = true;
        let message = Message::Binary(std::mem::take(&mut self.outbox).freeze());
        Poll::Ready(socket.start_send(message).map_err(broken))
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        if !self.outbox.is_empty() {
            std::task::ready!(self.send_outbox())?;
        }
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        let flushed = Pin::new(&mut self.socket).poll_flush(&mut cx).map_err(broken);
        self.blocked = flushed.is_pending();
        self.unflushed = flushed.is_pending();
        flushed
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::ConnectionAborted, error),
    }
}

/// The multiplexer's view of a [`Wire`].
pub(crate) struct Bytewise<S>(pub(crate) Shared<S>);

impl<S> AsyncRead for Bytewise<S>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        if wire.inbox.is_empty() {
            if wire.ended {
                return Poll::Ready(Ok(0));
            }
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.len().min(wire.inbox.len());
        wire.inbox.copy_to_slice(&mut buffer[..count]);
        if wire.inbox.is_empty() {
            // Lets go of the message's memory.
            wire.inbox = Bytes::new();
        }
        Poll::Ready(Ok(count))
    }
}

impl<S> AsyncWrite for Bytewise<S>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        if wire.outbox.len() >= MESSAGE {
            std::task::ready!(wire.send_outbox())?;
        }
        let count = bytes.len().min(MESSAGE - wire.outbox.len());
        wire.outbox.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).flush()
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        std::task::ready!(wire.flush())?;
        let task = wire.task.clone();
        let closed = Pin::new(&mut wire.socket).poll_close(&mut Context::from_waker(&task));
        wire.blocked = closed.is_pending();
        closed.map_err(broken)
    }
}
