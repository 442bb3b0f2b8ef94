//! The store against real registries, real tars and a real disk.

mod hostile;
mod roundtrip;
mod tars;
