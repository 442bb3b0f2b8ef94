//! Files that are whole or not there: written beside, synced, renamed, directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Puts `bytes` at `path` so that a reader, also after a power cut, sees the old file or the new one.
/// `mode` is of the new file, e.g. `0o600`.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let beside = beside(path, "tmp");
    write_synced(&beside, bytes, mode)?;
    let renamed = fs::rename(&beside, path).and_then(|()| sync_parent(path));
    renamed.map_err(|source| StoreError::write(path.to_owned(), source))
}

/// Removes the file at `path`, if there is one, so that it does not come back with a power cut.
pub fn remove_durably(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    removed
        .and_then(|()| sync_parent(path))
        .map_err(|source| StoreError::Remove { path: path.to_owned(), source })
}

/// `path` with `.suffix` behind its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a new file and syncs it; leaves none behind when it fails.
pub(crate) fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let written = create(path, mode).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| {
        // The space of a torn file is what the next try needs most.
        let _ = fs::remove_file(path);
        StoreError::write(path.to_owned(), source)
    })
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    // A leftover of a crash may have another mode: it is removed, not reused.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Makes a rename or removal in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
