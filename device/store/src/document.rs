//! One typed document and the generation before it.
//!
//! A file is one header line and the JSON after it:
//! `minke-document 1 <generation> <bytes of JSON> <blake3 of generation, JSON>\n`.

use std::fs;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::atomic::{beside, remove_durably, sync_parent, write_synced};

#[cfg(test)]
mod tests;

/// Longest document, in bytes of JSON.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

const MAGIC: &str = "minke-document 1";
const MAX_HEADER: usize = 160;

/// A place for one value of type `T`.
#[derive(Debug)]
pub struct Document<T> {
    path: PathBuf,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Document<T> {
    fn clone(&self) -> Document<T> {
        Document { path: self.path.clone(), value: PhantomData }
    }
}

/// What [`Document::load`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded<T> {
    /// Nothing was ever saved.
    Absent,
    /// What was saved last.
    Current(T),
    /// What was saved before the last; the last is damaged, for this reason.
    Previous {
        /// The value of the generation before.
        value: T,
        /// What is wrong with the last one.
        damage: String,
    },
}

impl<T> Loaded<T> {
    /// The value, whichever generation it is of.
    pub fn value(self) -> Option<T> {
        match self {
            Loaded::Absent => None,
            Loaded::Current(value) | Loaded::Previous { value, .. } => Some(value),
        }
    }
}

enum Generation {
    Absent,
    Whole { number: u64, json: Vec<u8> },
    Damaged(String),
}

impl<T: Serialize + DeserializeOwned> Document<T> {
    /// The document `name` of the directory `dir`, which exists.
    pub fn new(dir: &Path, name: &str) -> Document<T> {
        Document { path: dir.join(name), value: PhantomData }
    }

    /// Where the current generation is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the last value, or the one before when the last is damaged.
    pub fn load(&self) -> Result<Loaded<T>, StoreError> {
        let damage = match self.decode(&self.path)? {
            Decoded::Value(value) => return Ok(Loaded::Current(value)),
            Decoded::Damaged(damage) => Some(damage),
            Decoded::Absent => None,
        };
        match (self.decode(&beside(&self.path, "prev"))?, damage) {
            (Decoded::Value(value), damage) => Ok(Loaded::Previous {
                value,
                damage: damage.unwrap_or_else(|| "it is missing".to_owned()),
            }),
            (Decoded::Absent, None) => Ok(Loaded::Absent),
            (Decoded::Absent, Some(reason)) | (Decoded::Damaged(reason), None) => {
                Err(StoreError::Damaged { path: self.path.clone(), reason })
            }
            (Decoded::Damaged(older), Some(newer)) => Err(StoreError::Damaged {
                path: self.path.clone(),
                reason: format!("{newer}; the previous generation: {older}"),
            }),
        }
    }

    /// Makes `value` the current generation; durable when this returns. Two syncs.
    pub fn save(&self, value: &T) -> Result<(), StoreError> {
        let json = serde_json::to_vec(value)
            .map_err(|source| StoreError::Encode { path: self.path.clone(), source })?;
        if json.len() > MAX_BYTES {
            return Err(StoreError::TooLong { path: self.path.clone(), bytes: json.len() });
        }
        let previous = beside(&self.path, "prev");
        // A damaged current generation must not push out a whole previous one.
        let (keep_current, number) = match read(&self.path)? {
            Generation::Whole { number, .. } => (true, number + 1),
            Generation::Absent | Generation::Damaged(_) => match read(&previous)? {
                Generation::Whole { number, .. } => (false, number + 2),
                Generation::Absent | Generation::Damaged(_) => (false, 1),
            },
        };
        let beside = beside(&self.path, "tmp");
        write_synced(&beside, &encode(number, &json), 0o600)?;
        let renamed = (|| -> io::Result<()> {
            if keep_current {
                fs::rename(&self.path, &previous)?;
            }
            fs::rename(&beside, &self.path)?;
            sync_parent(&self.path)
        })();
        renamed.map_err(|source| StoreError::write(self.path.clone(), source))
    }

    /// Forgets the document, both generations.
    pub fn remove(&self) -> Result<(), StoreError> {
        // The previous goes first: the other way round a crash between would bring it back.
        remove_durably(&beside(&self.path, "prev"))?;
        remove_durably(&self.path)
    }

    fn decode(&self, path: &Path) -> Result<Decoded<T>, StoreError> {
        Ok(match read(path)? {
            Generation::Absent => Decoded::Absent,
            Generation::Damaged(reason) => Decoded::Damaged(reason),
            Generation::Whole { json, .. } => match serde_json::from_slice(&json) {
                Ok(value) => Decoded::Value(value),
                Err(error) => Decoded::Damaged(format!("not of the expected shape: {error}")),
            },
        })
    }
}

enum Decoded<T> {
    Absent,
    Damaged(String),
    Value(T),
}

fn header_line(number: u64, json: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(json);
    format!("{MAGIC} {number} {} {}\n", json.len(), hasher.finalize().to_hex())
}

fn encode(number: u64, json: &[u8]) -> Vec<u8> {
    let mut bytes = header_line(number, json).into_bytes();
    bytes.extend_from_slice(json);
    bytes
}

fn read(path: &Path) -> Result<Generation, StoreError> {
    let failed = |source| StoreError::Read { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Generation::Absent),
        Err(source) => return Err(failed(source)),
    };
    let mut bytes = Vec::new();
    file.take((MAX_BYTES + MAX_HEADER + 1) as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(check(bytes).unwrap_or_else(|reason| Generation::Damaged(reason.to_owned())))
}

fn check(bytes: Vec<u8>) -> Result<Generation, &'static str> {
    let end = bytes
        .iter()
        .take(MAX_HEADER)
        .position(|byte| *byte == b'\n')
        .ok_or("its header line is missing")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "its header is not text")?;
    let json = &bytes[end + 1..];
    let fields = header.strip_prefix(MAGIC).ok_or("it is not a document of version 1")?;
    let mut fields = fields.split_ascii_whitespace();
    let number =
        fields.next().and_then(|text| text.parse().ok()).ok_or("its generation is missing")?;
    let length: usize =
        fields.next().and_then(|text| text.parse().ok()).ok_or("its length is missing")?;
    if json.len() != length {
        return Err("its length is wrong");
    }
    // Compared whole, so that no other spelling of the same numbers passes.
    if header_line(number, json).as_bytes() != &bytes[..=end] {
        return Err("its checksum is wrong");
    }
    Ok(Generation::Whole { number, json: json.to_vec() })
}
