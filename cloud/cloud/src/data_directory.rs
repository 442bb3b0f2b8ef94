//! The directory that a server keeps everything in.
//!
//! ```text
//!   minke.db   rows, unless they are in PostgreSQL
//!   blobs/     images
//!   logs/      logs of devices
//!   keys/      session (signs sessions), registry (signs the registry's tokens); 0600
//!   builder/   what builds need
//!   lock       held while a server runs
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A data directory in use; free again when this is dropped.
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if missing and takes it for this process.
    pub fn open(path: &Path) -> Result<DataDirectory> {
        let path = std::path::absolute(path)
            .with_context(|| format!("looking for the data directory {}", path.display()))?;
        make(&path)?;
        make(&path.join("keys"))?;
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .with_context(|| format!("opening {}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(DataDirectory { path, _lock: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another minke-cloud uses the data directory {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", lock.display()))
            }
        }
    }

    /// A place in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What signs sessions: made at the first start, the same ever after.
    pub fn session_secret(&self) -> Result<Vec<u8>> {
        let path = self.join("keys/session");
        match fs::read(&path) {
            Ok(secret) if secret.len() >= 32 => return Ok(secret),
            Ok(_) => bail!("{} is damaged: remove it, and everybody logs in again", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
        }
        let secret = minke_cloud_api::random_text(64).into_bytes();
        write_secret(&path, &secret).with_context(|| format!("writing {}", path.display()))?;
        Ok(secret)
    }
}

fn make(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("making the directory {}", path.display()))
}

/// Whole or not at all, also over a crash.
fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_used_by_one_and_its_secret_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let data = DataDirectory::open(&path).unwrap();
        let secret = data.session_secret().unwrap();
        let other = DataDirectory::open(&path).err().unwrap().to_string();
        assert!(other.contains("another minke-cloud"), "{other}");
        drop(data);
        let data = DataDirectory::open(&path).unwrap();
        assert_eq!(data.session_secret().unwrap(), secret);
        let mode = fs::metadata(path.join("keys/session")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
