//! A client's connection, whatever it came over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A connection.
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Bytes that we have sent and the other side has not taken yet; 0 where that cannot be known.
    pub(crate) fn unread(&self) -> u32 {
        match self {
            Socket::Unix(stream) => outstanding(stream.as_fd()).unwrap_or(0),
            // There the number says what the network has not confirmed.
            Socket::Tcp(_) | Socket::Tls(_) => 0,
        }
    }

    /// Something that tells when the other side of a unix socket has closed it, not only its own
    /// direction. Over TCP the two look the same.
    pub(crate) fn farewell(&self) -> io::Result<Option<Farewell>> {
        let Socket::Unix(stream) = self else { return Ok(None) };
        // Of what is asked for here nothing ever comes; that a socket is closed is told unasked.
        let copy = stream.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned, and stays open for as long as it is registered.
        let copy = unsafe { AsyncFd::register_with_interest(copy, Interest::PRIORITY)? };
        Ok(Some(Farewell(copy)))
    }

    /// Something that tells later whether the other side is gone.
    pub(crate) fn probe(&self) -> io::Result<Probe> {
        Ok(Probe(self.as_fd().try_clone_to_owned()?))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

/// `SIOCOUTQ` of a unix socket: what waits in the other side's queue.
fn outstanding(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: the call writes one `int` and reads nothing.
    let count: i32 = unsafe {
        let ask = rustix::ioctl::Getter::<SIOCOUTQ, i32>::new();
        rustix::ioctl::ioctl(socket, ask)?
    };
    Ok(u32::try_from(count).unwrap_or(0))
}

/// Waits for the end of a connection that others read and write.
pub(crate) struct Farewell(AsyncFd<OwnedFd>);

impl Farewell {
    /// Returns when the other side is gone.
    pub(crate) async fn said(&self) {
        while let Ok(mut ready) = self.0.ready(Interest::PRIORITY).await {
            if hung_up(self.0.as_fd()) {
                return;
            }
            ready.clear_ready();
        }
    }
}

fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut descriptors = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let answer = poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    answer.is_ok() && descriptors[0].revents().contains(PollFlags::HUP)
}

/// Looks at a connection that others read and write.
pub(crate) struct Probe(OwnedFd);

impl Probe {
    /// Whether the other side has closed the connection, not only its own direction.
    pub(crate) fn is_gone(&self) -> bool {
        hung_up(self.0.as_fd())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
