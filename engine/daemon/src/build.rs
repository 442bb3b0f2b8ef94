//! `POST /build`: a Dockerfile and its context made into an image.
//!
//! ```text
//!   tar or URL ─> context ─┐
//!   Dockerfile ─> plan ─> needed stages, side by side: for each instruction
//!                              key(parent, instruction, content) ── in cache? ─> its layers
//!                                        └ not: RUN in a container / COPY by hand ─> upper ─> layer
//! ```
//! Invariants:
//!
//! * Nothing is read or written outside the context, a stage's tree or the build's own directory: every
//!   path of a Dockerfile, archive or context is opened with openat2 below a root ([`tree`]).
//! * A cache key holds the parent's key, the instruction with variables filled in, and the content, mode
//!   and owner of what is copied; never a time of change, never a secret.
//! * A build whose client goes away stops; its containers and directories go with it.
//! * What a build leaves on disk after a crash is removed at the next start.

mod apply;
mod archive;
mod bases;
mod cache;
mod caches;
mod cancel;
mod changes;
mod commit;
mod config;
mod confine;
mod container;
mod content;
mod context;
mod copy;
mod exclude;
mod fetch;
mod git;
mod hash;
mod http;
mod mounts;
mod output;
mod owners;
mod program;
mod request;
mod run;
mod runner;
mod squash;
mod stage;
mod stages;
mod state;
mod steps;
mod tree;
mod usage;
mod walk;
mod work;

#[cfg(test)]
mod tests;

pub(crate) use archive::{ForStore, plain};
pub(crate) use changes::with_changes;
pub(crate) use container::StepContainers;
pub(crate) use fetch::client as http_client;
pub(crate) use http::router;
pub(crate) use work::{BuildParts, Builder};
