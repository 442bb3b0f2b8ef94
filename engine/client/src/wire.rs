//! The Docker Engine API's JSON bodies, in the shapes of version 1.47.
//!
//! One set of types for both ends: the engine answers with them and [`crate::Client`] reads them.
//! Names and meanings are those of the published API description, so fields are documented here
//! only where the description leaves something open. Go clients write `null` for an empty list and
//! a zero for "not given": every field accepts both.

#![allow(missing_docs, reason = "names and meanings are those of the API description")]

mod container;
mod host_config;
mod image;
mod network;
mod system;
mod verify;
mod volume;

use serde::{Deserialize, Deserializer};

pub use container::*;
pub use host_config::*;
pub use image::*;
pub use network::*;
pub use system::*;
pub use verify::*;
pub use volume::*;

/// Reads `null` as the type's default.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a command that is either one word or a list of words (or `null`).
pub fn words<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<OneOrMany>::deserialize(deserializer)?.map(|words| match words {
        OneOrMany::One(word) => vec![word],
        OneOrMany::Many(words) => words,
    }))
}
