//! The engine's small files, with errors that name them.

use std::fs;
use std::io;
use std::path::Path;

use minke_engine_documents::{Sync, parse, print, replace};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Replaces `path` by `bytes`, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, Sync::New).map_err(Error::file("writing", path))
}

/// Replaces `path` by `bytes` in one step, without waiting for the disk: for what can be made again.
pub(crate) fn write_soon(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, Sync::Nothing).map_err(Error::file("writing", path))
}

/// Replaces `path` by a JSON document, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    write(path, &print(document).map_err(Error::file("writing", path))?)
}

/// Reads a JSON document; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("reading", path)(error)),
    };
    let failed = Error::system(format!("reading the document {}", path.display()));
    parse(&bytes).map(Some).map_err(failed)
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
    minke_engine_documents::sync_directory(path).map_err(Error::file("syncing", path))
}
