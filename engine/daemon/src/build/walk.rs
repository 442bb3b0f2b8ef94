//! Walking the files that a copy takes: what is visited, in which order, and who and how the copies are.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use minke_common_dockerfile::ignore::Ignore;
use rustix::fs::{FileType, Stat};

use crate::build::cancel::Cancelled;
use crate::build::owners::{Mode, Owner};
use crate::build::tree::{self, Child, MAX_DEPTH, Tree};

/// Who and how copies are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// `None` keeps each source's own.
    pub(crate) owner: Option<Owner>,
    /// `owner` was asked for: it also holds for what an archive brings.
    pub(crate) chown: bool,
    /// `None` keeps each source's own.
    pub(crate) mode: Option<Mode>,
    /// Paths below a source that are left out.
    pub(crate) exclude: Ignore,
    /// Told when nobody waits any more.
    pub(crate) cancelled: Cancelled,
}

impl Manner {
    pub(crate) fn owner(&self, stat: &Stat) -> Owner {
        self.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }

    pub(crate) fn mode(&self, stat: &Stat) -> u32 {
        let own = stat.st_mode & 0o7777;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.mode.as_ref().map_or(own, |mode| mode.of(own, directory))
    }
}

/// Something to copy: a file, link or directory of a tree.
pub(crate) struct From<'a> {
    pub(crate) tree: &'a Tree,
    /// Path in the tree, without a leading `/`; links in it are followed.
    pub(crate) path: String,
}

/// What a walk does with what it meets. Directories are told before what is in them.
pub(crate) trait Visitor {
    type Place;
    fn directory(
        &mut self,
        place: &Self::Place,
        name: &str,
        child: &Child,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Self::Place>;
    fn file(
        &mut self,
        place: &Self::Place,
        name: &str,
        child: &Child,
        file: File,
    ) -> io::Result<()>;
    fn link(&mut self, place: &Self::Place, name: &str, child: &Child, to: &str) -> io::Result<()>;
    /// A pipe or device.
    fn node(&mut self, place: &Self::Place, name: &str, child: &Child) -> io::Result<()>;
    fn leave(&mut self, _place: Self::Place, _stat: &Stat) -> io::Result<()> {
        Ok(())
    }
}

/// A walk over the files below a directory.
pub(crate) struct Walk<'a> {
    pub(crate) manner: &'a Manner,
}

impl Walk<'_> {
    /// Visits everything in a directory. A directory that is left out is entered all the same while a
    /// `!` pattern may bring something in it back.
    pub(crate) fn inside<V: Visitor>(
        &self,
        visitor: &mut V,
        directory: BorrowedFd<'_>,
        place: &V::Place,
        path: &str,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(tree::too_deep());
        }
        let exclude = &self.manner.exclude;
        for child in tree::children(directory)? {
            self.manner.cancelled.check()?;
            let path = join(path, &child.name);
            let skipped = exclude.excludes(&path);
            match child.kind() {
                FileType::Directory => {
                    let gone = skipped
                        && (exclude.prunes(&path)
                            || !self.keeps_below(directory, &child, &path, depth)?);
                    if gone {
                        continue;
                    }
                    let inner = tree::enter(directory, &child.name)?;
                    let below = visitor.directory(place, &child.name, &child, inner.as_fd())?;
                    self.inside(visitor, inner.as_fd(), &below, &path, depth + 1)?;
                    visitor.leave(below, &child.stat)?;
                }
                _ if skipped => {}
                FileType::RegularFile => {
                    let file = tree::read(directory, &child.name)?;
                    visitor.file(place, &child.name, &child, file)?;
                }
                FileType::Symlink => {
                    let to = tree::link(directory, &child.name)?;
                    visitor.link(place, &child.name, &child, &to)?;
                }
                FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                    visitor.node(place, &child.name, &child)?;
                }
                // A socket is of use only to who made it.
                _ => {}
            }
        }
        Ok(())
    }

    fn keeps_below(
        &self,
        directory: BorrowedFd<'_>,
        child: &Child,
        path: &str,
        depth: usize,
    ) -> io::Result<bool> {
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        let inner = tree::enter(directory, &child.name)?;
        for grandchild in tree::children(inner.as_fd())? {
            let path = join(path, &grandchild.name);
            if !self.manner.exclude.excludes(&path) {
                return Ok(true);
            }
            if grandchild.kind() == FileType::Directory
                && self.keeps_below(inner.as_fd(), &grandchild, &path, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A path and a name below it.
pub(crate) fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") }
}
