//! Dockerfile text to a checked tree, and what is needed to act on that tree without I/O.
//!
//! - [`parse`]: text to [`Dockerfile`]: stages, instructions, flags, heredocs, each with the line
//!   and column it stands at. Words keep their quotes and variables; they are expanded when the
//!   instruction is carried out, with [`expand`].
//! - [`ignore::Ignore`]: `.dockerignore` as Docker matches it.
//! - [`project`]: which Dockerfile a project means for a device type, and template variables.
//!
//! Invariants:
//! - Nothing here panics on any input, and all input is bounded ([`MAX_BYTES`] and its siblings).
//! - Printing a parsed file gives text that parses to an equal tree.

mod ast;
mod error;
mod flags;
mod glob;
mod instructions;
mod lines;
mod parse;
mod print;
mod words;

pub mod expand;
pub mod ignore;
pub mod plan;
pub mod project;

pub use ast::{
    Add, Arg, Command, CopyFlags, Dockerfile, From, Healthcheck, Heredoc, Instruction, Mount,
    MountKind, Node, Pair, Run, RunNetwork, Source, Span, Stage, Warning,
};
pub use error::ParseError;
pub use glob::Glob;
pub use parse::{parse, parse_instruction};

/// Longest Dockerfile that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most instructions in a file, counted over all stages.
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Most stages in a file.
pub const MAX_STAGES: usize = 256;
/// Longest value that variable expansion may produce, in bytes.
pub const MAX_EXPANDED: usize = 1 << 18;
