//! Small files of an engine: replaced in one step, and where every byte counts, with a checksum.

mod document;
mod replace;

pub use document::{parse, print, seal, unseal};
pub use replace::{Sync, replace, sync_directory};
