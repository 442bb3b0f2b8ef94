//! Replacing a file so that nobody ever sees a part of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// What of the new file is on the disk when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// All: a power cut finds the new file.
    New,
    /// A power cut finds the old file or the new one.
    OldOrNew,
    /// Nothing: a power cut may find anything. For what can be made again.
    Nothing,
}

/// Replaces the file at `path`. A reader sees the old file or the new one; what fails leaves the old one,
/// and nothing beside it.
pub fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let staged = parent.join(format!(".{}.new", name.to_string_lossy()));
    let written = write(&staged, bytes, sync).and_then(|()| fs::rename(&staged, path));
    if written.is_err() {
        // A full disk must not be left fuller.
        let _ = fs::remove_file(&staged);
    }
    written?;
    if sync == Sync::New { sync_directory(parent) } else { Ok(()) }
}

fn write(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    if sync == Sync::Nothing { Ok(()) } else { file.sync_data() }
}

/// Makes a directory's entries outlive a power cut.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for sync in [Sync::New, Sync::OldOrNew, Sync::Nothing] {
            replace(&path, b"old", sync).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        // No file can take the place of a directory.
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(replace(&path, b"new", Sync::New).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
