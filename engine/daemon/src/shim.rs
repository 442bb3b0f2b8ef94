//! The daemon's side of a shim's control socket. The protocol is described in `minke-engine-shim`.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use minke_engine_shim::protocol::{
    Exit, Failure, Request, Response, SessionState, Size, Streams, VERSION, next_frame,
};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How long a shim may take for what it answers at once. One that stands still must not hold up who can
/// do without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the next try when so many wait for a shim that nobody else may.
const CROWDED: Duration = Duration::from_millis(100);

/// A connection that has said hello.
pub(crate) struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The answers of a connection.
pub(crate) struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

/// The requests of a connection.
pub(crate) struct Writer {
    half: OwnedWriteHalf,
    buffer: Vec<u8>,
}

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("talking to the container's shim")]
    Io(#[from] io::Error),
    #[error("{message}")]
    Failed { failure: Failure, message: String },
    #[error("the container's shim has not answered within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the container's shim answered with something else: {0}")]
    Unexpected(String),
}

impl Connection {
    /// Connects to the shim whose directory is `dir`.
    pub(crate) async fn open(dir: &Path) -> Result<Connection, ShimError> {
        soon(Connection::open_patiently(dir)).await
    }

    /// The same, for who has time until the shim answers.
    pub(crate) async fn open_patiently(dir: &Path) -> Result<Connection, ShimError> {
        // Socket addresses are short; a descriptor of the directory makes every path short.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(dir, flags, Mode::empty()).map_err(io::Error::from)?;
        let address = format!("/proc/self/fd/{}/shim.sock", descriptor.as_raw_fd());
        let (read, write) = connect(&address).await?.into_split();
        let mut connection = Connection {
            reader: Reader { half: read, buffer: BytesMut::new() },
            writer: Writer { half: write, buffer: Vec::new() },
        };
        match connection.ask(&Request::Hello { version: VERSION }).await? {
            Response::Hello { .. } => Ok(connection),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Response, ShimError> {
        self.writer.send(request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Response, ShimError> {
        match self.reader.next().await? {
            Some(Response::Failed { failure, message }) => {
                Err(ShimError::Failed { failure, message })
            }
            Some(response) => Ok(response),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Starts the container; its process id.
    pub(crate) async fn start(&mut self) -> Result<u32, ShimError> {
        match self.ask(&Request::Start).await? {
            Response::Started { pid } => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    /// Binds this connection to a session.
    pub(crate) async fn attach(
        &mut self,
        session: &str,
        streams: Streams,
    ) -> Result<(), ShimError> {
        let request = Request::Attach { session: session.to_owned(), streams };
        match soon(self.ask(&request)).await? {
            Response::Attached => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Starts a further process and binds this connection to it; its process id.
    pub(crate) async fn exec(&mut self, request: &Request) -> Result<u32, ShimError> {
        match self.ask(request).await? {
            Response::Started { pid } => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    /// Sets the size of a session's terminal.
    pub(crate) async fn resize(&mut self, session: &str, size: Size) -> Result<(), ShimError> {
        self.done(&Request::Resize { session: session.to_owned(), size }).await
    }

    /// Sends a signal to a session's process.
    pub(crate) async fn signal(&mut self, session: &str, signal: u8) -> Result<(), ShimError> {
        self.done(&Request::Signal { session: session.to_owned(), signal }).await
    }

    /// The state of a session.
    pub(crate) async fn state(&mut self, session: &str) -> Result<SessionState, ShimError> {
        match soon(self.ask(&Request::State { session: session.to_owned() })).await? {
            Response::State(state) => Ok(state),
            other => Err(unexpected(other)),
        }
    }

    /// Waits for a session's end. `None`: the shim is gone without having said it.
    pub(crate) async fn wait(&mut self, session: &str) -> Option<Exit> {
        let request = Request::Wait { session: session.to_owned() };
        match self.ask(&request).await {
            Ok(Response::Exited(exit)) => Some(exit),
            Ok(_) | Err(_) => None,
        }
    }

    /// Ends the shim of a container that was not started.
    pub(crate) async fn stop(&mut self) -> Result<(), ShimError> {
        self.done(&Request::Stop).await
    }

    async fn done(&mut self, request: &Request) -> Result<(), ShimError> {
        match soon(self.ask(request)).await? {
            Response::Ok => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// Gives up on a shim that does not answer. What it says afterwards would be taken for the answer to
/// something else: the connection is of no use any more.
async fn soon<T>(answer: impl Future<Output = Result<T, ShimError>>) -> Result<T, ShimError> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(ShimError::Silent))
}

/// Connects to a socket. A shim that takes no connections soon has as many as can wait for it, which is
/// no sign that it is gone.
async fn connect(address: &str) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(CROWDED).await;
            }
            connected => return connected,
        }
    }
}

fn unexpected(response: Response) -> ShimError {
    ShimError::Unexpected(format!("{response:?}").chars().take(200).collect())
}

impl Reader {
    /// The next answer; `None` at the end. Cancel-safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Response>> {
        loop {
            let frame = next_frame(&self.buffer).map_err(io::Error::other)?;
            if let Some((frame, end)) = frame {
                let response = Response::decode(frame).map_err(io::Error::other)?;
                self.buffer.advance(end);
                return Ok(Some(response));
            }
            self.buffer.reserve(16 * 1024);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Writer {
    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.buffer.clear();
        request.encode(&mut self.buffer);
        self.half.write_all(&self.buffer).await
    }
}
