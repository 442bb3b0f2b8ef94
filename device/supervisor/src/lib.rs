//! Brings the device from what it runs to what the fleet wants it to run.

#![allow(dead_code)]

mod api_keys;
mod compose;
mod locks;
mod plan;
mod state;
mod step;
