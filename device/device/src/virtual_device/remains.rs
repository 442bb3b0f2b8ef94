//! What the kernel keeps of a device whose processes are gone: cgroups.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Ten hex digits that tell devices on one machine apart.
pub fn id(data: &Path) -> String {
    blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex()[..10].to_owned()
}

/// Holds the data directory for one device.
pub fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("virtual.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("a device is running from {}", data.display()))?;
    Ok(file)
}

/// Removes the cgroups of the device's engine. Its processes are gone.
pub fn remove(data: &Path) -> anyhow::Result<()> {
    let Ok(id) = fs::read_to_string(data.join("engine/engine-id")) else { return Ok(()) };
    for hierarchy in hierarchies() {
        let parent = hierarchy.join("minke");
        remove_tree(&parent.join(id.trim()));
        // Other engines may be in it: then it stays.
        let _ = fs::remove_dir(&parent);
    }
    Ok(())
}

/// The root of every cgroup hierarchy, of version 1 and 2.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut all = vec![root.to_owned()];
    if let Ok(entries) = fs::read_dir(root) {
        all.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    all
}

/// Cgroups are removed from the leaves up; their files go with them.
fn remove_tree(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Processes that were killed are in it until the kernel has buried them.
    let begun = Instant::now();
    while let Err(error) = fs::remove_dir(directory) {
        let is_busy = error.kind() == std::io::ErrorKind::ResourceBusy;
        if !is_busy || begun.elapsed() > PATIENCE {
            tracing::warn!(%error, directory = %directory.display(), "a cgroup stays");
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
