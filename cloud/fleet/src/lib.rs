//! The rules of a fleet: who may do what, which release a device should run, what a device is told.
//!
//! Invariants:
//! - Nothing here does I/O, reads a clock or draws a random number: what is random comes in as a seed.
//! - Permissions are data: OData filter text per role × resource × verb, in which the caller is the
//!   bound parameter `@__ACTOR_ID`. No caller's value is ever spliced into a text.

pub mod device_state;
pub mod names;
pub mod permissions;
pub mod target_release;

pub use permissions::{Permissions, Role, Verb};
