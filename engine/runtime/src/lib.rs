//! The runtime helper: makes and enters containers through libcontainer, then exits.
//!
//! It runs as `minke-device runtime <verb>`, started by a container's shim ([`main`]). It must stay
//! single-threaded: libcontainer clones without fork handlers, and a child that inherits a lock held by
//! another thread hangs for good. For the same reason the daemon never calls libcontainer; it only
//! uses [`spec`], which describes a container as an OCI bundle.
//!
//! * [`spec`]: what Docker's options mean as an OCI runtime specification (pure but for [`spec::Facts`]).
//! * [`helper`]: the verbs `run`, `exec` and `delete`, and how they report to the shim.

mod executor;
pub mod helper;
mod notes;
pub mod spec;

pub use helper::main;
