//! The words every part of Minke shares: ids, the target state that a server sends, the report
//! that a device answers, configuration variables, labels, and the device's `config.json`.
//!
//! Invariants:
//!
//! * Nothing here does I/O, reads a clock or knows a socket.
//! * Text is parsed once, at the edge, into types that cannot hold a wrong value; every collection
//!   and string that comes from outside has a limit, and an error names the limit.

pub mod config_json;
pub mod config_variables;
pub mod digest;
pub mod durations;
pub mod ids;
pub mod image_reference;
pub mod labels;
pub mod lenient;
pub mod pax;
pub mod reported_state;
pub mod semver;
pub mod sizes;
pub mod target_state;
pub mod update_strategy;
