//! Brings the device from what it runs to what the fleet wants it to run.

#![allow(dead_code)]

mod plan;
mod state;
mod step;
