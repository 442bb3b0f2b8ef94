//! The runtime helper: makes and enters containers through libcontainer, then exits.
//!
//! It runs as `minke-device runtime <verb>`, started by a container's shim ([`main`]). It must stay
//! single-threaded: libcontainer clones without fork handlers, and a child that inherits a lock held by
//! another thread hangs for good. For the same reason the daemon never calls libcontainer; it only
//! uses [`spec`], which describes a container as an OCI bundle.
//!
//! * [`spec`]: what Docker's options mean as an OCI runtime specification (pure but for [`spec::Facts`]).
//! * [`stage`], [`idmap`]: how a container in a user namespace gets at its files.
//! * `joining`: how a further process comes into the container's cgroups.
//! * [`limits`]: limits as lines in the files of cgroups.
//! * [`seccomp`]: which system calls a container may make, as a program for the kernel.
//! * [`helper`]: the verbs `run`, `exec` and `delete`, and how they report to the shim.

mod device_filter;
mod executor;
pub mod helper;
pub mod idmap;
mod joining;
pub mod limits;
mod notes;
pub mod privileges;
pub mod seccomp;
pub mod spec;
pub mod stage;
mod user_namespace;

pub use helper::main;
