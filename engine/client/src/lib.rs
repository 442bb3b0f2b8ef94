//! The engine as others see it: typed calls over the Docker Engine API.
//!
//! * [`wire`]: the JSON bodies, shared by both ends.
//! * [`Client`]: calls an engine (ours or Docker's) over its unix socket.
//! * [`Engine`]: what a supervisor needs of an engine, implemented by [`Client`] and by
//!   [`FakeEngine`], which keeps its containers in memory and refuses what a real one refuses.

mod client;
mod engine;
mod error;
mod fake;
mod frames;
mod progress;
mod transport;
pub mod wire;

pub use client::{BuildImage, Client, ExecOutcome, WaitFor};
pub use engine::{Engine, EventFilter, LogOptions, PullImage, RemoveContainer};
pub use error::Error;
pub use fake::{FakeEngine, FakeFault};
pub use frames::{LogChunk, LogSource};
pub use progress::PullProgress;

/// The newest API version that this client speaks.
pub const API_VERSION: &str = "1.47";
