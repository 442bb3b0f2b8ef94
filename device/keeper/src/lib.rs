//! The host side of a device, behind a narrow socket: what the supervisor's container may not do itself.
//!
//! Protocol, version 1: one JSON object a line each way over a unix socket that only its owner can
//! open. Requests are [`Request`], answers [`Answer`]. A request that is not known is answered with an
//! error, so that a newer supervisor can ask an older keeper.
//!
//! Invariants:
//!
//! * What was answered with `ok` survives a power cut (the hostname) or is under way (reboot).
//! * A client that says nothing holds nobody up: one line of 4096 bytes, 5 seconds.

mod client;
mod host;
mod protocol;
mod serve;

pub use client::{Client, ClientError};
pub use host::{Host, HostError, Power};
pub use protocol::{Answer, MAX_LINE, Request, VERSION};
pub use serve::{KeeperOptions, run};
