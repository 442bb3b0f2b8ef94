//! The tunnel between a device and its server, as far as both ends are the same.
//!
//! ```text
//!   device ── GET /tunnel?uuid=…&v=1, upgrade ──> server      the device dials
//!   one WebSocket  >  yamux (device is its client)  >  streams, opened by the server
//!   a stream:  {"kind":"tcp","port":48484}\n  >  {"ok":true}\n  >  bytes both ways
//! ```
//!
//! Invariants:
//!
//! * No socket, clock or runtime here: a [`Mux`] is polled by whoever owns those.
//! * An idle tunnel holds no buffer, and its heartbeat (a WebSocket ping and pong) wakes
//!   nothing in the multiplexer, which would add messages of its own.
//! * Every line, message and count that the other end chooses has a limit.

mod line;
mod mux;
mod stream;
mod wire;
mod words;

pub use line::{LineError, read_line, write_line};
pub use mux::{Event, Mux, MuxError, Side};
pub use stream::Stream;
pub use words::{Answer, HeaderError, StreamHeader};

use tungstenite::protocol::WebSocketConfig;

/// Version of everything here, sent as `v=`.
pub const VERSION: u32 = 1;

/// Streams of one tunnel that carry traffic at once.
pub const MAX_STREAMS: usize = 24;

/// Longest first line of a stream, its line feed included.
pub const MAX_LINE: usize = 4096;

/// How often an idle device shows that it is there, in milliseconds, unless it says otherwise
/// with `heartbeat=` when it dials. Every one costs some 200 bytes with TLS, so this is 2 MB a month;
/// routers forget connections that are silent for 5 minutes.
pub const HEARTBEAT_MS: u64 = 240_000;

/// Largest WebSocket message that is accepted; twice what this end ever sends.
const MAX_MESSAGE: usize = 64 * 1024;

/// WebSocket settings that make an idle connection cost little: the defaults reserve 128 KiB.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2048)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}
