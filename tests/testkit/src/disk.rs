//! Disks that are full soon.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// Mounts an empty ext4 file system of so many megabytes over the folder `path`; it lies in the file
/// `image`.
pub fn mount(path: &Path, image: &Path, megabytes: u32) -> Result<()> {
    let file =
        std::fs::File::create(image).with_context(|| format!("cannot make {}", image.display()))?;
    file.set_len(u64::from(megabytes) << 20)
        .with_context(|| format!("cannot make {} that large", image.display()))?;
    drop(file);
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
    // The loop device goes with the mount.
    run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(path))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
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
