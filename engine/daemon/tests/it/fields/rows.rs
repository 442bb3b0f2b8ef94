//! What the table is made of.

use crate::support::Disk;

/// A field, what it does, and how that is seen.
pub struct Row {
    /// As in the body: `HostConfig.Memory`.
    pub field: &'static str,
    /// For people.
    pub does: &'static str,
    pub shown: Shown,
}

/// How an effect is seen. Bodies are JSON laid over `{"Image":"busybox"}`.
#[derive(Clone, Copy)]
pub enum Shown {
    /// A container with `base` and `own` that runs `probe` prints `says`; with `base` alone it does not.
    Prints {
        base: &'static str,
        own: &'static str,
        probe: &'static str,
        says: &'static str,
        /// Also without the field: the default is the same on this machine.
        everywhere: bool,
    },
    /// Inspect has this JSON at this pointer.
    Inspect { own: &'static str, at: &'static str, says: &'static str },
    /// Refused with 400 and the field's name.
    Refused(&'static str),
    /// This test shows it.
    Test(&'static str),
}

pub(super) const fn row(field: &'static str, does: &'static str, shown: Shown) -> Row {
    Row { field, does, shown }
}

pub(super) const fn prints(own: &'static str, probe: &'static str, says: &'static str) -> Shown {
    Shown::Prints { base: "", own, probe, says, everywhere: false }
}

pub(super) const fn inspect(own: &'static str, at: &'static str, says: &'static str) -> Shown {
    Shown::Inspect { own, at, says }
}

/// What `says` stands for here: `NS_x` is the number of our own namespace; of `one|two` the first is for
/// cgroups of version 1.
pub fn fill_in(says: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    if let Some(kind) = says.strip_prefix("NS_") {
        let path = format!("/proc/self/ns/{kind}");
        return std::fs::metadata(path).unwrap().ino().to_string();
    }
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    match says.split_once('|') {
        Some((_, two)) if v2 => two.to_owned(),
        Some((one, _)) => one.to_owned(),
        None => says.to_owned(),
    }
}

/// A text with a block device of this machine in it.
pub fn with_device(text: &str) -> String {
    if !text.contains("BLOCK_") {
        return text.to_owned();
    }
    let disk = Disk::find();
    text.replace("BLOCK_DEVICE", &disk.node)
        .replace("BLOCK_MAJOR", &disk.major.to_string())
        .replace("BLOCK_MINOR", &disk.minor.to_string())
}

/// Removes the cgroups that a row has had made.
pub fn sweep() {
    let mut roots = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path()));
    for root in roots {
        // Most hierarchies have none.
        let _ = std::fs::remove_dir(root.join("minke-fields"));
    }
}
