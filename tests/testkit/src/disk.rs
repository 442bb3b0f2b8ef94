//! Disks that are full soon.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Mounts an empty file system of so many megabytes over the folder `path`.
pub fn mount(path: &Path, megabytes: u32) -> Result<()> {
    let size = std::ffi::CString::new(format!("size={megabytes}m,mode=755"))
        .context("a size is no option of a mount")?;
    rustix::mount::mount("minke-disk", path, "tmpfs", MountFlags::empty(), size.as_c_str())
        .with_context(|| format!("cannot mount a disk at {}", path.display()))
}

/// Unmounts it; nothing mounted there is no error.
pub fn unmount(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot unmount the disk at {}", path.display()))
        }
    }
}

/// Fills the disk that `file` lies on with that file, but for so many megabytes.
pub fn fill_disk(file: &Path, megabytes_left: u64) -> Result<()> {
    let said = || format!("cannot fill the disk with {}", file.display());
    let folder = file.parent().with_context(said)?;
    let space = rustix::fs::statvfs(folder).with_context(said)?;
    let mut left = (space.f_bavail * space.f_frsize).saturating_sub(megabytes_left << 20);
    let mut filler = std::fs::File::create(file).with_context(said)?;
    let piece = vec![0; 1 << 20];
    while left > 0 {
        let now = left.min(1 << 20) as usize;
        filler.write_all(&piece[..now]).with_context(said)?;
        left -= now as u64;
    }
    Ok(())
}
