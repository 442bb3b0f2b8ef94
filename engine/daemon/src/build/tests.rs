//! Builds over a real store. Steps run in a chroot here: containers have tests of their own, and what is
//! tested is the builder.

mod features;
mod harness;
mod packed;
mod refusals;
mod reuse;
mod sharing;
mod sources;
