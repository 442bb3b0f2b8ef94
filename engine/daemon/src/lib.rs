//! The container engine's daemon: the Docker Engine API over containers, images, networks and
//! volumes.
//!
//! ```text
//!   client ──HTTP on a unix socket──> serve ──> api/* ──> containers/* ──> shim (one per container)
//!                                                   ├──> images, volumes, networks
//!                                                   └──> events (one sequencer)
//! ```
//! Invariants:
//!
//! * A container outlives the daemon. What the daemon knows of it is in two documents (`config.json`,
//!   `state.json`), written atomically; what runs is in its shim. A new daemon puts the two together
//!   ([`containers`], adoption).
//! * Everything lives below one data directory; after a crash at any point the next start removes
//!   what no document names.
//! * An event is published after what it tells is on disk.
//! * libcontainer is never called here: the shim starts `<this program> runtime …` for that.

mod api;
mod apparmor;
mod base64;
mod build;
mod containers;
mod daemon;
mod damage;
mod documents;
mod durable;
mod error;
mod events;
mod filters;
mod ids;
mod launch;
mod logs;
mod names;
mod networks;
mod options;
mod removal;
mod rootfs;
mod serve;
mod shim;
mod stamp;
mod users;
mod verify;
mod volumes;

pub use options::{EngineOptions, IdRange, TcpOptions, TlsFiles};
pub use serve::{clean_up, run};
pub use users::parse_range;
pub use verify::{VerifyTarget, verify};

/// The API version whose shapes are spoken.
pub const API_VERSION: &str = "1.47";
/// The oldest API version that a client may ask for.
pub const OLDEST_API_VERSION: &str = "1.24";
