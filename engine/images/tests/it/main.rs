//! The store against real registries, real tars and a real disk.

mod auth;
mod faults;
mod given_up;
mod hostile;
mod lifecycle;
mod pull;
mod registry;
mod roundtrip;
mod tars;
