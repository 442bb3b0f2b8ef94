//! The store against real registries, real tars and a real disk.

mod at_once;
mod auth;
mod disk;
mod disk_full;
mod faults;
mod given_up;
mod gnu;
mod healing;
mod hostile;
mod lifecycle;
mod memory;
mod private;
mod pull;
mod reading;
mod references;
mod registry;
mod roundtrip;
mod tars;
