//! Taking away from a context on disk what `.dockerignore` leaves out, so that nothing later has to
//! think of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use minke_common_dockerfile::ignore::Ignore;
use rustix::fs::{AtFlags, FileType, unlinkat};

use crate::build::cancel::Cancelled;
use crate::build::tree::{self, MAX_DEPTH, Tree};
use crate::removal::remove_tree_at;

/// Removes what is left out. A directory that is left out stays while something in it is kept. Blocking.
pub(crate) fn prune(tree: &Tree, ignore: &Ignore, cancelled: &Cancelled) -> io::Result<()> {
    if ignore.is_empty() {
        return Ok(());
    }
    let top = tree.directory("")?;
    Pruner { ignore, cancelled }.inside(top.as_fd(), "", 0).map(|_| ())
}

struct Pruner<'a> {
    ignore: &'a Ignore,
    cancelled: &'a Cancelled,
}

impl Pruner<'_> {
    /// Whether anything was kept.
    fn inside(&self, directory: BorrowedFd<'_>, path: &str, depth: usize) -> io::Result<bool> {
        if depth > MAX_DEPTH {
            return Err(tree::too_deep());
        }
        let mut kept = false;
        for child in tree::children(directory)? {
            self.cancelled.check()?;
            let whole = match path {
                "" => child.name.clone(),
                path => format!("{path}/{}", child.name),
            };
            let excluded = self.ignore.excludes(&whole);
            if child.kind() != FileType::Directory {
                match excluded {
                    true => unlinkat(directory, &child.name, AtFlags::empty())?,
                    false => kept = true,
                }
                continue;
            }
            if excluded && self.ignore.prunes(&whole) {
                remove_tree_at(directory, &child.name)?;
                continue;
            }
            let inner = tree::enter(directory, &child.name)?;
            let below = self.inside(inner.as_fd(), &whole, depth + 1)?;
            match excluded && !below {
                true => unlinkat(directory, &child.name, AtFlags::REMOVEDIR)?,
                false => kept = true,
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_keeps_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/b/keep", "a/b/gone", "a/c/gone", "d/x", "e/.git/config", "top"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let ignore = Ignore::parse("a\n!a/b/keep\n**/.git\ntop\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        prune(&tree, &ignore, &Cancelled::default()).unwrap();
        for (path, there) in [
            ("a/b/keep", true),
            ("a/b/gone", false),
            ("a/c", false),
            ("d/x", true),
            ("e", true),
            ("e/.git", false),
            ("empty", true),
            ("top", false),
        ] {
            assert_eq!(dir.path().join(path).exists(), there, "{path}");
        }
    }
}
