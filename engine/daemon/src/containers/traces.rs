//! What mounting leaves in a container's own layer: empty files and directories that are there only
//! because something was mounted over them. They are no change of the container's.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::container::Container;
use super::prepare::OWN_FILES;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Where every container has something mounted.
const ALWAYS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The paths (without a leading slash) of a container's own layer that only mounts have made.
pub(crate) fn of_mounts(daemon: &Daemon, container: &Container) -> Result<BTreeSet<PathBuf>> {
    let (image, mut targets) = {
        let cell = container.lock();
        let targets: Vec<String> =
            cell.config.mounts.iter().map(|mount| mount.target.clone()).collect();
        (cell.config.image_id.clone(), targets)
    };
    targets.extend(OWN_FILES.iter().map(|(_, target)| (*target).to_owned()));
    targets.extend(ALWAYS.map(str::to_owned));
    let image = image.parse().map_err(Error::system("reading the image's id"))?;
    let lower = daemon.images.lower_dirs(&image)?;
    Ok(find(&container.dir.join("upper"), &lower, &targets))
}

fn find(upper: &Path, lower: &[PathBuf], targets: &[String]) -> BTreeSet<PathBuf> {
    let mut traces = BTreeSet::new();
    let mut targets: Vec<&Path> =
        targets.iter().map(|target| Path::new(target.trim_matches('/'))).collect();
    // Deepest first: a directory is a trace when all that is in it is one.
    targets.sort_by_key(|target| std::cmp::Reverse(target.components().count()));
    for target in targets {
        for path in target.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if !is_trace(upper, lower, path, &traces) {
                break;
            }
            traces.insert(path.to_owned());
        }
    }
    traces
}

fn is_trace(upper: &Path, lower: &[PathBuf], path: &Path, known: &BTreeSet<PathBuf>) -> bool {
    let Ok(own) = upper.join(path).symlink_metadata() else { return false };
    let below = lower.iter().find_map(|dir| dir.join(path).symlink_metadata().ok());
    let below = below.filter(|found| !(found.file_type().is_char_device() && found.rdev() == 0));
    if own.is_file() {
        return own.len() == 0 && below.is_none();
    }
    let touched = below.is_none_or(|below| {
        (below.mode(), below.uid(), below.gid()) == (own.mode(), own.uid(), own.gid())
    });
    let Ok(entries) = std::fs::read_dir(upper.join(path)) else { return false };
    let mut names = entries.flatten().map(|entry| path.join(entry.file_name()));
    own.is_dir() && touched && names.all(|name| known.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mounts_made_is_a_trace() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["etc", "srv/made/deep", "var/kept", "proc"] {
            std::fs::create_dir_all(upper.path().join(path)).unwrap();
        }
        std::fs::create_dir_all(lower.path().join("etc")).unwrap();
        std::fs::write(upper.path().join("etc/hosts"), "").unwrap();
        std::fs::write(upper.path().join("etc/hostname"), "changed").unwrap();
        std::fs::write(upper.path().join("var/kept/file"), "x").unwrap();
        let targets = ["/etc/hosts", "/etc/hostname", "/srv/made/deep", "/var/kept", "/proc"];
        let targets = targets.map(str::to_owned);
        let found = find(upper.path(), &[lower.path().to_owned()], &targets);
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["etc/hosts", "proc", "srv", "srv/made", "srv/made/deep"]);
    }
}
