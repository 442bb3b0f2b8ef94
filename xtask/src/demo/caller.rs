//! Whom the demo works for: root, or who became root for it.

use std::os::unix::fs::lchown;
use std::path::Path;

use anyhow::{Context, Result};

/// Who started the demo.
pub struct Caller {
    /// User and group of somebody who is not root.
    ids: Option<(u32, u32)>,
}

impl Caller {
    /// As sudo says in the environment.
    pub fn who_called_sudo() -> Caller {
        let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        Caller { ids: id("SUDO_UID").zip(id("SUDO_GID")).filter(|(user, _)| *user != 0) }
    }

    /// Whether nobody else is behind root.
    pub fn is_root(&self) -> bool {
        self.ids.is_none()
    }

    /// Makes a file, or a folder with all in it, theirs.
    pub fn own(&self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.ids else { return Ok(()) };
        let said = || format!("cannot give {} to user {user}", path.display());
        lchown(path, Some(user), Some(group)).with_context(said)?;
        if !path.symlink_metadata().with_context(said)?.is_dir() {
            return Ok(());
        }
        for entry in path.read_dir().with_context(said)? {
            self.own(&entry.with_context(said)?.path())?;
        }
        Ok(())
    }
}
