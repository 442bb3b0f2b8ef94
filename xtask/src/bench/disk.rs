//! What the engines write to: an empty ext4 file system with a journal, as the data partition of a device
//! is. The machine's own may be anything, and remember what was deleted on it before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_tests_testkit::{mount_disk, unmount_disk};

/// Far more than three engines with their registries need; only what is written takes room.
const MEGABYTES: u32 = 32 << 10;

/// The mounted file system; unmounted when dropped.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes one in `work` and mounts it there.
    pub fn make(work: &Path) -> Result<Disk> {
        let path = work.join("disk");
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount_disk(&path, &work.join("disk.ext4"), MEGABYTES)?;
        Ok(Disk { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount_disk(&self.path) {
            eprintln!("{error:#}");
        }
    }
}
