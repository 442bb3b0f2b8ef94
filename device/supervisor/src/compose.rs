//! A release of the target state, as compose writes it, to what the engine is asked for.
//!
//! Pure. Nothing is refused for a key that is not known or a value that makes no sense: what cannot
//! be done is told as a warning and left out, because a device far away must run what it can.

mod environment;
mod features;
mod fields;
mod ports;
mod service;
mod target;
mod volumes;

pub(crate) use features::HOST_PATHS;
pub(crate) use target::{Facts, HASH_LABEL, SUPERVISOR_GATEWAY, build_target};

#[cfg(test)]
pub(crate) mod tests;

/// What was left out, for the log.
pub(crate) type Warnings = Vec<String>;
