//! Containers: what they are, how they start and end, and what becomes of them.
//!
//! ```text
//!   created ──start──> running ──exit──> exited ──start──> running …
//!                        │  ^ └──pause/unpause──> paused
//!                     exit│ │back-off over
//!                        v  │
//!                     restarting ──stop──> exited            (any but running) ──remove──> gone
//! ```
//! Each container has a directory `containers/<id>`:
//!
//! | what | |
//! |---|---|
//! | `config.json` | [`document::ConfigDocument`]: what was asked for; a directory without it is a leftover |
//! | `state.json` | [`document::StateDocument`]: what has happened; missing: created, never started |
//! | `upper`, `work`, `rootfs` | the overlay's parts and where it is mounted while the container runs |
//! | `shm` | where memory is mounted that other containers may share |
//! | `hosts`, `hostname`, `resolv.conf`, `dns` | files for the container and for its shim's name service |
//! | `shim/`, `bundle/` | the shim's directory, the runtime specification |
//! | `<id>-json.log` | the log |
//! | `execs/` | what is known of execs |
//!
//! Invariants: a document is written before the change it tells of is published; one lifecycle change
//! of a container goes on at a time (its `lifecycle` lock); waits are told of an end only when the network
//! of the container is gone, so that whoever waited can start or remove it at once. Its mount may still be
//! going, and the files of a removed one ([`unmount`], [`remove::Removals`]).

pub(crate) mod adopt;
mod cgroup_wait;
pub(crate) mod commit;
pub(crate) mod container;
mod cpusets;
pub(crate) mod create;
pub(crate) mod document;
pub(crate) mod exec;
pub(crate) mod exit;
mod files;
pub(crate) mod filter;
mod health;
mod links;
mod log_marks;
mod log_options;
pub(crate) mod membership;
pub(crate) mod mounts;
mod ports;
pub(crate) mod prepare;
pub(crate) mod registry;
pub(crate) mod remove;
mod restart;
mod shm;
pub(crate) mod signals;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod subpaths;
pub(crate) mod sweep;
mod sysctls;
pub(crate) mod traces;
pub(crate) mod unmount;
pub(crate) mod update;
mod validate;
pub(crate) mod view;
