//! Small documents on disk: written whole or not at all.
//!
//! A JSON document has a line before it that says what it is, and the BLAKE3 of the rest: a byte that a
//! medium has spoiled is never taken for what was stored. Engines before that wrote the JSON alone.
//!
//! Invariant: after [`write`] returns, a reader (also after a power cut) sees the new document; before
//! that, the old one; never a mixture.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use minke_engine_images::{seal, unseal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// How a document begins.
const WHAT: &str = "minke-document 1";

/// Replaces `path` by `bytes`, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, true)
}

/// Replaces `path` by `bytes` in one step, without waiting for the disk: for what can be made again.
pub(crate) fn write_soon(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, false)
}

/// Replaces `path` by a JSON document, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    let bytes = serde_json::to_vec(document)
        .map_err(Error::system(format!("writing {} as JSON", path.display())))?;
    write(path, &seal(WHAT, &bytes))
}

/// The JSON of a document; nothing if a byte of it differs.
fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.first() == Some(&b'{') {
        return Some(bytes);
    }
    unseal(WHAT, bytes)
}

/// Reads a JSON document; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("reading", path)(error)),
    };
    let body = unsealed(&bytes).ok_or_else(|| {
        Error::system(format!("reading the document {}", path.display()))(
            "it is damaged: its checksum differs",
        )
    })?;
    serde_json::from_slice(body)
        .map(Some)
        .map_err(Error::system(format!("reading the document {}", path.display())))
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::file("syncing", path))
}

fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::file("writing", path)(io::ErrorKind::InvalidInput.into()));
    };
    let staged = parent.join(format!(".{}.new", name.to_string_lossy()));
    let stage = || -> io::Result<()> {
        let mut file = File::create(&staged)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_data()?;
        }
        fs::rename(&staged, path)
    };
    stage().map_err(Error::file("writing", path))?;
    if durable { sync_directory(parent) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_altered_bit_of_a_document_is_an_error_and_plain_json_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("document");
        let value = std::collections::BTreeMap::from([("name".to_owned(), "a".repeat(40))]);
        write_json(&path, &value).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some(value.clone()));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, bytes).unwrap();
                let read: Result<Option<serde_json::Value>> = read_json(&path);
                assert!(read.is_err(), "byte {at}, bit {bit}");
            }
        }
        fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(read_json(&path).unwrap(), Some(value));
    }
}
