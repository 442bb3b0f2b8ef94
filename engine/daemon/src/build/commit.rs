//! A step's upper directory made into a layer, and mount points taken out of it before.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, statat};

use crate::build::squash::is_opaque;
use crate::build::tree::{self, Tree};
use crate::removal::remove_tree_at;

/// Removes what only came to be because something was mounted there: empty files and directories that
/// the layers below do not have, and directories that were only touched on the way. Blocking.
pub(crate) fn drop_mount_points(
    upper: &Path,
    lower: &[PathBuf],
    targets: &[String],
) -> std::io::Result<()> {
    let upper = Tree::open(upper)?;
    let lower: Vec<Tree> = lower.iter().map(|l| Tree::open(l)).collect::<Result<_, _>>()?;
    // Deepest first, so that a directory is empty when its turn comes.
    let mut targets: Vec<&str> = targets.iter().map(|t| t.trim_matches('/')).collect();
    targets.sort_by_key(|t| std::cmp::Reverse(t.len()));
    for target in targets {
        let mut path = target;
        while !path.is_empty() && drop_one(&upper, &lower, path)? {
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    Ok(())
}

/// Whether it was removed or is not there, so that its parent may be looked at.
fn drop_one(upper: &Tree, lower: &[Tree], path: &str) -> std::io::Result<bool> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Ok(directory) = upper.directory(parent) else { return Ok(true) };
    let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(true) };
    let below = lower.iter().find_map(|tree| tree.stat(path).ok().flatten());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_size == 0 && below.is_none() => {
            tree::clear(directory.as_fd(), name)?;
            Ok(true)
        }
        FileType::Directory => {
            let inner = tree::enter(directory.as_fd(), name)?;
            let same = below.is_none_or(|b| {
                (b.st_mode, b.st_uid, b.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
            });
            if !same || is_opaque(inner.as_fd()) || !tree::children(inner.as_fd())?.is_empty() {
                return Ok(false);
            }
            remove_tree_at(directory.as_fd(), name)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_traces_of_mounts_go() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |root: &Path, path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        make(lower.path(), "etc/hosts", "");
        make(lower.path(), "home/x", "");
        make(upper.path(), "etc/resolv.conf", "");
        make(upper.path(), "etc/hostname", "said something");
        make(upper.path(), "run/secrets/token", "");
        make(upper.path(), "home/.npm/y", "kept");
        std::fs::create_dir_all(upper.path().join("proc")).unwrap();
        let targets = [
            "/proc",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/run/secrets/token",
            "/home/.npm",
            "/sys",
        ];
        let targets: Vec<String> = targets.iter().map(|t| t.to_string()).collect();
        drop_mount_points(upper.path(), &[lower.path().to_owned()], &targets).unwrap();
        for gone in ["proc", "run", "etc/resolv.conf"] {
            assert!(!upper.path().join(gone).exists(), "{gone}");
        }
        for kept in ["etc/hostname", "home/.npm/y"] {
            assert!(upper.path().join(kept).exists(), "{kept}");
        }
    }

    #[test]
    fn a_directory_that_was_only_touched_goes_and_a_changed_one_stays() {
        use std::os::unix::fs::PermissionsExt;
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [upper.path(), lower.path()] {
            std::fs::create_dir_all(root.join("etc")).unwrap();
            std::fs::create_dir_all(root.join("srv")).unwrap();
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(upper.path().join("srv"), mode).unwrap();
        let targets = ["/etc/hosts".to_owned(), "/srv/mount".to_owned()];
        drop_mount_points(upper.path(), &[lower.path().to_owned()], &targets).unwrap();
        assert!(!upper.path().join("etc").exists());
        assert!(upper.path().join("srv").exists());
    }
}
