//! The server's end of the tunnels: devices dial in, the server opens streams to them.
//!
//! ```text
//!   device ──GET /tunnel──> [upgrade] ──> [connection] one task each ──> [Hub] by uuid
//!                                             │                            │
//!                                  [presence] debounced            open_tcp, look
//!                                             │                            │
//!                                  DeviceAuth::connected        CONNECT <uuid>.balena:<port>
//! ```
//!
//! Invariants:
//!
//! * A device has at most one tunnel; the newest one wins.
//! * `connected(uuid, true)` and `(uuid, false)` are reported in the order in which they are
//!   true, one at a time per device, and a reconnect within the grace time reports nothing.
//! * A stalled stream holds its own window and nothing else; a device has at most 24 streams.
//! * A peer that says nothing for two heartbeats is gone.

mod connect;
mod connection;
mod hub;
mod ports;
mod presence;
mod serve;
mod stream;
mod upgrade;

pub use connect::ConnectHandler;
pub use hub::{Hub, HubOptions, OpenError};
pub use ports::{ConnectAuth, Credentials, DeviceAuth, DeviceId, Verdict};
pub use serve::{ServeOptions, serve};
pub use stream::TunnelStream;
