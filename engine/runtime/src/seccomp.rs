//! Which system calls a container may make: profiles, compiled to the kernel's filter programs.
//!
//! ```text
//!   the default table, or a profile in moby's JSON          profile, defaults
//!     │  select: processor, capabilities, kernel version
//!     ▼
//!   Policy: rules by name                                   profile
//!     │  compile: names → numbers of each ABI, search tree   abi, compile, conditions
//!     ▼
//!   Program, stored beside the bundle                       program
//!     │  install, last before the program's `execve`
//!     ▼
//!   kernel                                                  install
//! ```
//! Everything up to the stored program is pure; only [`install`] touches the process.
//!
//! Invariants: a program decides every system call of every ABI (no path runs off its end); a call that
//! no rule names gets the profile's default action; calls of a foreign ABI that the profile does not
//! list kill the caller.

mod abi;
mod compile;
mod conditions;
mod defaults;
mod install;
mod profile;
mod program;

pub(crate) use install::install;
pub use profile::{Action, Context, Policy, Profile};
pub use program::Program;

/// Why a profile cannot be used. The text is shown to users.
#[allow(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(String),
    #[error("invalid seccomp profile: {0}")]
    Invalid(String),
    #[error(
        "the seccomp profile is too long: {0} instructions, the kernel takes {MAX_INSTRUCTIONS}"
    )]
    TooLong(usize),
}

/// Longest program that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

/// Whether this kernel has system call filters, by a text of `/proc/self/status`.
pub fn available(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("Seccomp:"))
}
