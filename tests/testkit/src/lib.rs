//! A whole Minke on one machine, made of the binaries that users run: a registry for base
//! images, a server, virtual devices. `cargo xtask demo` shows it, the end-to-end tests use it.
//!
//! Invariant: whatever a [`Site`] makes on the machine is written down before it is made, so
//! that [`Site::clean`] removes all of it, also after a crash of whoever made it.

pub mod base_images;
mod binaries;
mod bridge;
mod cli;
mod disk;
mod http;
mod inside;
mod ledger;
mod memory;
mod process;
mod site;
mod stages;
mod traces;
mod weather;

pub use binaries::Binaries;
pub use cli::Cli;
pub use disk::{fill_disk, mount as mount_disk, unmount as unmount_disk};
pub use http::{Response, get, request};
pub use inside::{Inside, Remains, kill, signal};
pub use memory::{ProcessMemory, memory};
pub use process::{give_up_when, wait_until};
pub use rustix::process::Signal;
pub use site::{Device, Options, Site, SiteMemory};
pub use stages::Stages;
pub use traces::Traces;
pub use weather::{FLEET, Weather};
