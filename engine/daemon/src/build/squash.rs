//! Squashing: the layers that a build added become one, without what they hid from each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use minke_engine_images::History;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat,
};

use crate::build::cancel::Cancelled;
use crate::build::stage::Failure;
use crate::build::stages::Build;
use crate::build::state::State;
use crate::build::tree::{self, Child, MAX_DEPTH, Tree};
use crate::removal::remove_tree_at;
use crate::stamp;

/// Marks a directory of a layer that hides what is below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Puts one layer in the place of those that the stage added.
pub(crate) async fn squash(build: &Build, state: &mut State) -> Result<(), Failure> {
    let kept = state.base.layers;
    let layers = state.config.rootfs.diff_ids.clone();
    let steps = state.base.steps;
    if layers.len() <= kept + 1 {
        return Ok(());
    }
    let store = &build.builder.store;
    let (below, added) = layers.split_at(kept);
    let lower = store.layer_dirs(below)?;
    let added = store.layer_dirs(added)?;
    let step = build.workspace.step().map_err(Failure::io("making a directory"))?;
    let (workspace, upper) = (build.workspace.clone(), step.upper.clone());
    let merge = move || {
        let scratch = workspace.step().map_err(|e| e.to_string())?;
        let base = match lower.is_empty() {
            true => None,
            false => Some(workspace.open(&lower, &scratch).map_err(|e| e.to_string())?),
        };
        // Layers come top first, and are laid on each other lowest first.
        merge(added.iter().rev().cloned().collect(), base.as_ref(), &upper, &workspace.cancelled)
            .map_err(|e| format!("squashing: {e}"))
    };
    build.blocking(merge).await?;
    let layer = store.commit_layer(&step.upper).await?;
    state.config.rootfs.diff_ids.truncate(kept);
    state.config.rootfs.diff_ids.push(layer.diff_id);
    for history in state.config.history.iter_mut().skip(steps) {
        history.empty_layer = true;
    }
    let created = state.config.created.clone().unwrap_or_else(|| stamp::rfc3339(stamp::now()));
    state.config.history.push(History {
        created: Some(created),
        comment: Some(format!("merge of {} layers", layers.len() - kept)),
        ..History::default()
    });
    Ok(())
}

/// Lays layers (lowest first) on each other into the empty directory `into`. Whiteouts stay where `base`
/// has something to hide.
fn merge(
    layers: Vec<PathBuf>,
    base: Option<&Tree>,
    into: &std::path::Path,
    cancelled: &Cancelled,
) -> io::Result<()> {
    let target = Tree::open(into)?;
    let merger = Merger { base, cancelled };
    for layer in layers {
        let layer = Tree::open(&layer)?;
        let (from, to) = (layer.directory("")?, target.directory("")?);
        merger.directory(from.as_fd(), to.as_fd(), "", 0)?;
    }
    Ok(())
}

struct Merger<'a> {
    base: Option<&'a Tree>,
    cancelled: &'a Cancelled,
}

impl Merger<'_> {
    fn directory(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &str,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(tree::too_deep());
        }
        for child in tree::children(from)? {
            self.cancelled.check()?;
            let path = format!("{path}/{}", child.name);
            let old = tree::entry(to, &child.name)?;
            if child.kind() == FileType::Directory {
                let inner = tree::enter(from, &child.name)?;
                let made = self.open_directory(inner.as_fd(), to, &child.name, old.as_ref())?;
                self.directory(inner.as_fd(), made.as_fd(), &path, depth + 1)?;
                describe(inner.as_fd(), made.as_fd(), &child)?;
                continue;
            }
            if old.is_some() {
                remove_tree_at(to, &child.name)?;
            }
            match is_whiteout(&child.stat) {
                true => self.hide(to, &child.name, &path)?,
                false => linkat(from, &child.name, to, &child.name, AtFlags::empty())?,
            }
        }
        Ok(())
    }

    /// The directory of this name in the merged layer, made where it is missing. Whether it hides what
    /// the base has is carried over.
    fn open_directory(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &str,
        old: Option<&Stat>,
    ) -> io::Result<OwnedFd> {
        let kind = old.map(|stat| FileType::from_raw_mode(stat.st_mode));
        let hides = is_opaque(from);
        let merges = kind == Some(FileType::Directory) && !hides;
        if !merges {
            if old.is_some() {
                remove_tree_at(to, name)?;
            }
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
        }
        let made = tree::enter(to, name)?;
        // A directory in the place of something else hides that, whatever it was in the base.
        if hides || (!merges && old.is_some()) {
            fsetxattr(&made, OPAQUE, b"y", XattrFlags::empty())?;
        }
        Ok(made)
    }

    /// Hides what the base has there.
    fn hide(&self, to: BorrowedFd<'_>, name: &str, path: &str) -> io::Result<()> {
        let there = match self.base {
            Some(base) => match path.rsplit_once('/') {
                Some((parent, name)) => match base.directory(parent) {
                    Ok(parent) => tree::entry(parent.as_fd(), name)?.is_some(),
                    Err(_) => false,
                },
                None => false,
            },
            None => false,
        };
        if there {
            let mode = Mode::from_raw_mode(0o600);
            mknodat(to, name, FileType::CharacterDevice, mode, makedev(0, 0))?;
        }
        Ok(())
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an overlay directory hides everything below it: then being there says something.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 4];
    let found = fgetxattr(directory, OPAQUE, &mut value[..]);
    matches!(found, Ok(length) if value[..length] == *b"y")
}

/// Gives a directory another's owner, mode, attributes and time.
fn describe(from: BorrowedFd<'_>, to: BorrowedFd<'_>, child: &Child) -> io::Result<()> {
    let stat = &child.stat;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; 64 << 10];
    let length = flistxattr(from, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(futimens(to, &Timestamps { last_access: time, last_modification: time })?)
}
