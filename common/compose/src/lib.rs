//! Compose files: text to checked services, networks and volumes.
//!
//! Two things come out: what to build for each service ([`Service::build`]) and the composition
//! that a release stores and devices receive ([`Composition::to_json`]).
//!
//! What a device understands is a fixed list of keys; another key is left out with a [`Warning`],
//! as is a bind mount. A key with a value of the wrong shape is an error that names the line, the
//! column and what was expected. Variables (`${X}`) are not substituted: they are passed on as
//! they are, with a warning.
//!
//! Invariants:
//! - Nothing here panics on any input, and aliases cannot make a small file large.
//! - No path of a parsed file leads outside the project.

mod build;
mod composition;
mod endpoints;
mod error;
mod graph;
mod mounts;
mod parse;
mod service;
mod shapes;
mod yaml;

pub use build::Build;
pub use composition::{Composition, Service};
pub use error::{ComposeError, Warning};
pub use parse::parse;
pub use yaml::read_json;

/// Longest compose file that is read, in bytes.
pub const MAX_BYTES: usize = 256 << 10;
/// Most values in a file, aliases counted each time they are used.
pub const MAX_NODES: usize = 20_000;
/// How deep values may nest.
pub const MAX_DEPTH: usize = 32;
/// Most services, networks or volumes.
pub const MAX_PARTS: usize = 100;
/// Most ports that a service publishes, those in ranges counted each.
pub const MAX_PORTS: usize = 4096;
/// Longest name of a service, network or volume.
pub const MAX_NAME: usize = 255;
