//! The first process of a container that asks for one (`docker run --init`): it starts the program,
//! hands on signals, and takes the exit statuses of all that lose their parents.
//!
//! It is a program of its own (`program/main.rs`, without the standard library) because it runs in the
//! container's root file system, where no C library of ours is, and once per container: a few pages of
//! memory. It is built for the same target as this crate.

/// The program: a static executable. Called as `docker-init -- PROGRAM ARGUMENTS…`.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docker-init"));
