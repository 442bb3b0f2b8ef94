//! One tunnel: a WebSocket, and the multiplexer on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use futures_util::{Sink, Stream as Incoming};
use tungstenite::{Error, Message};

use crate::MAX_STREAMS;
use crate::stream::Stream;
use crate::wire::{Bytewise, Shared, Wire, lock};

/// Streams that yamux tolerates. A stream that was dropped counts until the multiplexer ran
/// again, and one too many ends the whole connection; so this is twice what the ends allow.
const YAMUX_STREAMS: usize = 2 * MAX_STREAMS;

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Dials, answers streams.
    Device,
    /// Is dialled, opens streams.
    Server,
}

/// What a tunnel reports.
#[derive(Debug)]
pub enum Event {
    /// The other end opened a stream.
    Stream(Stream),
    /// The tunnel ended: by the other end's wish, or with an error.
    Ended(Result<(), MuxError>),
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum MuxError {
    /// The WebSocket failed.
    #[error("the tunnel's connection failed")]
    Socket(#[source] Error),
    /// The multiplexer failed.
    #[error("the tunnel's streams failed")]
    Streams(#[source] yamux::ConnectionError),
}

/// Set when the multiplexer has something to do; wakes the task that polls it.
#[derive(Default)]
struct Due {
    due: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// A tunnel. Nothing happens unless it is polled; polling it also moves all its streams.
pub struct Mux<S> {
    wire: Shared<S>,
    yamux: yamux::Connection<Bytewise<S>>,
    due: Arc<Due>,
    waker: Waker,
}

impl<S> Mux<S>
where
    S: Incoming<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    /// A tunnel over an upgraded WebSocket.
    pub fn new(socket: S, side: Side) -> Self {
        let wire = Shared::new(Wire::new(socket).into());
        let mut config = yamux::Config::default();
        config.set_max_num_streams(YAMUX_STREAMS);
        config.set_max_connection_receive_window(Some(
            YAMUX_STREAMS * yamux::DEFAULT_CREDIT as usize,
        ));
        let mode = match side {
            Side::Device => yamux::Mode::Client,
            Side::Server => yamux::Mode::Server,
        };
        let yamux = yamux::Connection::new(Bytewise(wire.clone()), config, mode);
        let due = Arc::new(Due { due: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(due.clone());
        Self { wire, yamux, due, waker }
    }

    /// Sends a WebSocket ping with the next poll; a living peer answers, so [`Mux::heard`] grows.
    pub fn ping(&mut self) {
        lock(&self.wire).ping();
    }

    /// Messages heard so far, of any kind: as long as this grows the other end lives.
    pub fn heard(&self) -> u64 {
        lock(&self.wire).heard
    }

    /// Moves the tunnel on. After [`Event::Ended`] it must not be polled again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.due.task.register(cx.waker());
        {
            let mut wire = lock(&self.wire);
            wire.task.clone_from(cx.waker());
            if std::mem::take(&mut wire.blocked) {
                self.due.due.store(true, Ordering::Release);
            }
        }
        loop {
            // Before every return of `Pending`, so that the socket knows whom to wake.
            if let Err(error) = lock(&self.wire).pump() {
                return Poll::Ready(Event::Ended(Err(MuxError::Socket(error))));
            }
            if !self.due.due.swap(false, Ordering::AcqRel) {
                return Poll::Pending;
            }
            let mut own = Context::from_waker(&self.waker);
            if let Poll::Ready(event) = self.yamux.poll_next_inbound(&mut own) {
                self.due.due.store(true, Ordering::Release);
                return Poll::Ready(match event {
                    Some(Ok(stream)) => Event::Stream(Stream::new(stream)),
                    Some(Err(yamux::ConnectionError::Closed)) | None => Event::Ended(Ok(())),
                    Some(Err(error)) => Event::Ended(Err(MuxError::Streams(error))),
                });
            }
        }
    }

    /// Opens a stream; its first bytes travel with the next [`Mux::poll`].
    pub fn open(&mut self) -> Result<Stream, MuxError> {
        self.due.due.store(true, Ordering::Release);
        match self.yamux.poll_new_outbound(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(stream) => stream.map(Stream::new).map_err(MuxError::Streams),
            // Only when 256 streams wait for an answer, which the limits exclude.
            Poll::Pending => Err(MuxError::Streams(yamux::ConnectionError::TooManyStreams)),
        }
    }

    /// Says goodbye: every stream ends, the other end sees an orderly close.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.due.task.register(cx.waker());
        lock(&self.wire).task.clone_from(cx.waker());
        self.yamux.poll_close(&mut Context::from_waker(&self.waker)).map(|_| ())
    }
}
