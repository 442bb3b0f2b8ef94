//! Frames of the control socket: types, encoder, decoder. No I/O.
//!
//! Invariants: what `encode` writes, `decode` reads back equal; a decoder never allocates more than
//! [`MAX_FRAME`] for a frame and rejects trailing bytes, unknown kinds and over-long strings.

mod wire;

use std::fmt;

use wire::{Reader, Writer};

/// The only version there is so far.
pub const VERSION: u16 = 1;
/// Longest frame (kind and body), bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// Longest payload that a sender should put into one stdin or output frame, bytes.
pub const CHUNK: usize = 32 * 1024;
/// Longest session name, bytes.
pub const MAX_SESSION: usize = 128;

/// Which streams a client wants of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// It writes.
    pub stdin: bool,
    /// It reads output.
    pub stdout: bool,
    /// It reads errors.
    pub stderr: bool,
}

impl Streams {
    /// All three.
    pub const ALL: Self = Self { stdin: true, stdout: true, stderr: true };

    fn bits(self) -> u8 {
        u8::from(self.stdin) | u8::from(self.stdout) << 1 | u8::from(self.stderr) << 2
    }

    fn from_bits(bits: u8) -> Result<Self, DecodeError> {
        if bits > 7 {
            return Err(DecodeError::BadValue);
        }
        Ok(Self { stdin: bits & 1 != 0, stdout: bits & 2 != 0, stderr: bits & 4 != 0 })
    }
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First frame; answered by [`Response::Hello`] or `Failed(Unsupported)`.
    Hello {
        /// Version of the protocol.
        version: u16,
    },
    /// Run the container. Answered by `Started` once its process runs, or `Failed`.
    Start,
    /// Bind this connection to a session. Answered by `Attached` or `Failed`.
    Attach {
        /// `""` or the name of an exec.
        session: String,
        /// What the client wants.
        streams: Streams,
    },
    /// Start a further process and bind this connection to it. `process` is an OCI runtime `process`
    /// object as JSON. Answered by `Started` (output may only follow it) or `Failed`.
    Exec {
        /// `""` or the name of an exec.
        session: String,
        /// OCI `process` as JSON.
        process: Vec<u8>,
        /// Give it a terminal.
        tty: bool,
        /// What the client wants.
        streams: Streams,
        /// Of the terminal.
        size: Option<Size>,
    },
    /// Bytes for the stdin of the session this connection is bound to. Not answered.
    Stdin(Vec<u8>),
    /// End of those bytes. Not answered.
    StdinEnd,
    /// New size of a session's terminal. Answered by `Ok` or `Failed`.
    Resize {
        /// `""` or the name of an exec.
        session: String,
        /// Of the terminal.
        size: Size,
    },
    /// Send a signal to a session's process. Answered by `Ok` or `Failed`.
    Signal {
        /// `""` or the name of an exec.
        session: String,
        /// Its number.
        signal: u8,
    },
    /// Answered by `State` or `Failed(NoSession)`.
    State {
        /// `""` or the name of an exec.
        session: String,
    },
    /// Forget a finished exec. Answered by `Ok`.
    Forget {
        /// `""` or the name of an exec.
        session: String,
    },
    /// Answered by `Exited` when the session has ended and its output is drained.
    Wait {
        /// `""` or the name of an exec.
        session: String,
    },
    /// End the shim of a container that was never started. Answered by `Ok` or `Failed(BadState)`.
    Stop,
}

/// What the shim answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Greeting.
    Hello {
        /// Version of the protocol.
        version: u16,
        /// Process id on the host.
        pid: u32,
    },
    /// Done.
    Ok,
    /// Not done.
    Failed {
        /// What kind.
        failure: Failure,
        /// In words for people.
        message: String,
    },
    /// The program runs.
    Started {
        /// Process id on the host.
        pid: u32,
    },
    /// The connection is bound.
    Attached,
    /// Output.
    Stdout(Vec<u8>),
    /// Errors.
    Stderr(Vec<u8>),
    /// As asked.
    State(SessionState),
    /// The session has ended and its output is drained.
    Exited(Exit),
}

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Where it is in its life.
    pub status: Status,
    /// Pid in the shim's pid namespace; 0 before there is one.
    pub pid: u32,
    /// Nanoseconds since the epoch; 0 before the start.
    pub started_at: u64,
    /// Set when the status is `Exited`.
    pub exit: Option<Exit>,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Not started.
    Created = 0,
    /// The helper is at work.
    Starting = 1,
    /// It runs.
    Running = 2,
    /// The session has ended and its output is drained.
    Exited = 3,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, or 128 + signal.
    pub code: u32,
    /// The signal that ended it, or 0.
    pub signal: u8,
    /// The kernel killed something of this container for want of memory.
    pub oom: bool,
    /// Nanoseconds since the epoch.
    pub finished_at: u64,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// The program does not exist in the container: exit code 127.
    NotFound = 1,
    /// The program cannot be executed: exit code 126.
    NotExecutable = 2,
    /// The container or process could not be made: exit code 128.
    Create = 3,
    /// No session of that name.
    NoSession = 4,
    /// Not possible in the state the session is in.
    BadState = 5,
    /// The shim does not speak that version or know that request.
    Unsupported = 6,
    /// Anything else.
    Other = 7,
}

impl Failure {
    /// The exit code that Docker gives a container that failed to start this way.
    pub fn exit_code(self) -> u32 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            _ => 128,
        }
    }

    /// The failure of this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NotFound,
            2 => Self::NotExecutable,
            3 => Self::Create,
            4 => Self::NoSession,
            5 => Self::BadState,
            6 => Self::Unsupported,
            7 => Self::Other,
            _ => return None,
        })
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than [`MAX_FRAME`], or empty.
    BadLength,
    /// The kind is not known.
    UnknownKind(u8),
    /// The body ends early or goes on after its end.
    BadBody,
    /// A field has a value it may not have.
    BadValue,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadLength => "frame is empty or longer than the limit of 1 MiB",
            Self::UnknownKind(_) => "unknown kind of frame",
            Self::BadBody => "frame body is too short or too long",
            Self::BadValue => "frame field is out of range",
        })
    }
}

impl std::error::Error for DecodeError {}

/// If `buffer` begins with a whole frame: its body range, and where the next frame begins.
/// `Ok(None)`: more bytes are needed.
pub fn next_frame(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let Some(header) = buffer.get(..4) else { return Ok(None) };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length == 0 || length > MAX_FRAME {
        return Err(DecodeError::BadLength);
    }
    Ok(buffer.get(4..4 + length).map(|frame| (frame, 4 + length)))
}

impl Request {
    /// Append this request as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version } => Writer::new(out, 1).u16(*version),
            Self::Start => Writer::new(out, 2),
            Self::Attach { session, streams } => {
                Writer::new(out, 3).string(session).u8(streams.bits())
            }
            Self::Exec { session, process, tty, streams, size } => {
                let writer = Writer::new(out, 4)
                    .string(session)
                    .u32(process.len() as u32)
                    .rest(process)
                    .u8((*tty).into())
                    .u8(streams.bits())
                    .u8(size.is_some().into());
                if let Some(size) = size { writer.size(*size) } else { writer }
            }
            Self::Stdin(bytes) => Writer::new(out, 5).rest(bytes),
            Self::StdinEnd => Writer::new(out, 6),
            Self::Resize { session, size } => Writer::new(out, 7).string(session).size(*size),
            Self::Signal { session, signal } => Writer::new(out, 8).string(session).u8(*signal),
            Self::State { session } => Writer::new(out, 9).string(session),
            Self::Forget { session } => Writer::new(out, 10).string(session),
            Self::Wait { session } => Writer::new(out, 11).string(session),
            Self::Stop => Writer::new(out, 12),
        }
        .finish();
    }

    /// Read a frame as [`next_frame`] gave it.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut body = Reader(frame);
        let kind = body.u8()?;
        let request = match kind {
            1 => Self::Hello { version: body.u16()? },
            2 => Self::Start,
            3 => {
                let session = body.session()?;
                Self::Attach { session, streams: Streams::from_bits(body.u8()?)? }
            }
            4 => {
                let (session, process, tty) = (body.session()?, body.bytes()?, body.bool()?);
                let streams = Streams::from_bits(body.u8()?)?;
                let size = if body.bool()? { Some(body.size()?) } else { None };
                Self::Exec { session, process, tty, streams, size }
            }
            5 => Self::Stdin(body.rest()),
            6 => Self::StdinEnd,
            7 => Self::Resize { session: body.session()?, size: body.size()? },
            8 => Self::Signal { session: body.session()?, signal: body.u8()? },
            9 => Self::State { session: body.session()? },
            10 => Self::Forget { session: body.session()? },
            11 => Self::Wait { session: body.session()? },
            12 => Self::Stop,
            other => return Err(DecodeError::UnknownKind(other)),
        };
        body.end(request)
    }
}

/// Append an output frame without building a [`Response`] first.
pub fn encode_output(out: &mut Vec<u8>, stderr: bool, bytes: &[u8]) {
    Writer::new(out, if stderr { 134 } else { 133 }).rest(bytes).finish();
}

impl Response {
    /// Append this response as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version, pid } => Writer::new(out, 128).u16(*version).u32(*pid),
            Self::Ok => Writer::new(out, 129),
            Self::Failed { failure, message } => {
                Writer::new(out, 130).u8(*failure as u8).rest(message.as_bytes())
            }
            Self::Started { pid } => Writer::new(out, 131).u32(*pid),
            Self::Attached => Writer::new(out, 132),
            Self::Stdout(bytes) => Writer::new(out, 133).rest(bytes),
            Self::Stderr(bytes) => Writer::new(out, 134).rest(bytes),
            Self::State(state) => {
                let writer = Writer::new(out, 135)
                    .u8(state.status as u8)
                    .u32(state.pid)
                    .u64(state.started_at)
                    .u8(state.exit.is_some().into());
                if let Some(exit) = &state.exit { writer.exit(exit) } else { writer }
            }
            Self::Exited(exit) => Writer::new(out, 136).exit(exit),
        }
        .finish();
    }

    /// Read a frame as [`next_frame`] gave it.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut body = Reader(frame);
        let kind = body.u8()?;
        let response = match kind {
            128 => Self::Hello { version: body.u16()?, pid: body.u32()? },
            129 => Self::Ok,
            130 => {
                let failure = Failure::from_number(body.u8()?).ok_or(DecodeError::BadValue)?;
                let message = String::from_utf8_lossy(&body.rest()).into_owned();
                Self::Failed { failure, message }
            }
            131 => Self::Started { pid: body.u32()? },
            132 => Self::Attached,
            133 => Self::Stdout(body.rest()),
            134 => Self::Stderr(body.rest()),
            135 => {
                let status = match body.u8()? {
                    0 => Status::Created,
                    1 => Status::Starting,
                    2 => Status::Running,
                    3 => Status::Exited,
                    _ => return Err(DecodeError::BadValue),
                };
                let (pid, started_at) = (body.u32()?, body.u64()?);
                let exit = if body.bool()? { Some(body.exit()?) } else { None };
                Self::State(SessionState { status, pid, started_at, exit })
            }
            136 => Self::Exited(body.exit()?),
            other => return Err(DecodeError::UnknownKind(other)),
        };
        body.end(response)
    }
}
