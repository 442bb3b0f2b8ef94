//! The few file operations that make a change durable. All block: call them off the runtime.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes `dir` and what is missing above it, each entry synced into its parent.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(dir.parent().ok_or(error)?)?;
            match fs::create_dir(dir) {
                Ok(()) => sync_parent(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Moves a written and synced file to where it is seen.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        make_dirs(parent)?;
    }
    fs::rename(from, to)?;
    sync_parent(to)
}

/// `Ok(None)` instead of "not found"; a path through a file is not found either.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
