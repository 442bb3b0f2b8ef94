//! Putting what `COPY` and `ADD` take into a stage's tree. Blocking.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Gid, Uid, fchown};

use crate::build::archive::{self, Limits, Owners};
use crate::build::content::Item;
use crate::build::copy;
use crate::build::owners::Owner;
use crate::build::tree::Tree;
use crate::build::walk::Manner;

/// Where things go.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// Absolute and clean.
    pub(crate) path: String,
    /// Written with a trailing `/`, or several things go there.
    pub(crate) directory: bool,
    /// `--parents`: sources keep their directories.
    pub(crate) parents: bool,
}

impl Destination {
    /// The directory that an item goes into and its name there; a directory's contents have no name.
    fn place(&self, tree: &Tree, item: &Item) -> std::io::Result<(String, Option<String>)> {
        let mut base = self.path.clone();
        if self.parents {
            base = format!("{}/{}", base.trim_end_matches('/'), item.parents);
        }
        if item.directory || item.packing.is_some() {
            return Ok((base, None));
        }
        let is_directory =
            |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let inside = self.directory || self.parents || tree.stat(&base)?.is_some_and(is_directory);
        if inside {
            return Ok((base, Some(item.name.clone())));
        }
        let name = base.rsplit('/').next().unwrap_or("").to_owned();
        Ok((parent(&base).to_owned(), Some(name)))
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Copies or unpacks every item.
pub(crate) fn apply(
    tree: &Tree,
    items: &[Item],
    to: &Destination,
    manner: &Manner,
) -> Result<(), String> {
    for item in items {
        one(tree, item, to, manner).map_err(|e| format!("{} to {}: {e}", item.path, to.path))?;
    }
    Ok(())
}

fn one(tree: &Tree, item: &Item, to: &Destination, manner: &Manner) -> std::io::Result<()> {
    let (directory, name) = to.place(tree, item)?;
    let owner = manner.owner.unwrap_or_default();
    let into = tree.make_directory(&directory, &mut |fd| own(fd, owner))?;
    match (name, item.packing) {
        (Some(name), _) => copy::file(&item.source(), into.as_fd(), &name, manner),
        (None, None) => copy::contents(&item.source(), tree, &directory, manner),
        (None, Some(packing)) => {
            let file = item.tree.file(&item.path)?;
            let owners = match manner.owner {
                Some(owner) if manner.chown => Owners::One(owner),
                _ => Owners::Archive,
            };
            let source = archive::open(file, packing)?;
            archive::unpack(source, tree, &directory, owners, &Limits::default(), &manner.cancelled)
        }
    }
}

fn own(fd: BorrowedFd<'_>, owner: Owner) -> std::io::Result<()> {
    Ok(fchown(fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?)
}
