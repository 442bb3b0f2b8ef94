//! Small documents on disk: written whole or not at all.
//!
//! Invariant: after [`write`] returns, a reader (also after a power cut) sees the new document; before
//! that, the old one; never a mixture.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

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
    write(path, &bytes)
}

/// Reads a JSON document; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("reading", path)(error)),
    };
    serde_json::from_slice(&bytes)
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
