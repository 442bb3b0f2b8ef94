//! What the engines write to: an empty ext4 file system with a journal, as the data partition of a device
//! is. The machine's own may be anything, and remember what was deleted on it before.

use std::os::unix::fs::MetadataExt;
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
        let disk = Disk { path };
        disk.pass_requests_on()?;
        Ok(disk)
    }

    /// The file system lies in a file of another, whose disk orders what is asked of it. A second scheduler above
    /// that one only holds requests back: BFQ was seen to wait 20 ms for more from a thread that had none.
    fn pass_requests_on(&self) -> Result<()> {
        let number = std::fs::metadata(&self.path).context("cannot look at the disk")?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let scheduler = format!("/sys/dev/block/{major}:{minor}/queue/scheduler");
        std::fs::write(&scheduler, "none").with_context(|| format!("cannot write {scheduler}"))
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
