//! Volumes in use: their content is made ready for containers, and what was mounted for these is taken down.
//!
//! Both may take as long as a disk or a server takes: they are for threads that may wait, and only what needs
//! the same volume waits for them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use super::{Volumes, mounted};
use crate::error::{Error, Result};

/// The containers for which something is mounted on a volume.
#[derive(Debug, Default)]
pub(super) struct Holders {
    here: BTreeSet<String>,
    /// Those that let go of it. Until their end is recorded they still look as if they ran.
    left: BTreeSet<String>,
}

impl Holders {
    fn enter(&mut self, container: &str) {
        self.left.remove(container);
        self.here.insert(container.to_owned());
    }

    fn leave(&mut self, container: &str) {
        self.here.remove(container);
        self.left.insert(container.to_owned());
    }

    /// Whether a container has it; of some that run only an earlier daemon may have known.
    fn are_there(&mut self, running: &[String]) -> bool {
        self.left.retain(|container| running.contains(container));
        !self.here.is_empty() || running.iter().any(|container| !self.left.contains(container))
    }
}

impl Volumes {
    /// Makes a volume's content ready for a container: what its options name is mounted, then `fill` has its
    /// turn. One container at a time; the next one finds a volume that is mounted and filled.
    pub(crate) fn hold(
        &self,
        name: &str,
        container: &str,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        let _busy = self.take(name);
        let options = self.get(name)?.options;
        let data = self.data(name);
        fs::create_dir_all(&data).map_err(Error::file("making", &data))?;
        if let Some(source) = mounted::read(&options)? {
            // It counts before the mount is there, which nobody takes down then.
            self.lock().entry(name.to_owned()).or_default().enter(container);
            if !mounted::is_mounted(&data)
                && let Err(error) = source.mount(&data)
            {
                self.lock().entry(name.to_owned()).or_default().leave(container);
                return Err(error);
            }
        }
        fill(&data).map_err(Error::file("filling the volume", &data))
    }

    /// A container needs a volume no longer. Answers whether there is something to be [`Self::take_down`].
    pub(crate) fn leave(&self, name: &str, container: &str) -> Result<bool> {
        if self.get(name)?.options.is_empty() {
            return Ok(false);
        }
        self.lock().entry(name.to_owned()).or_default().leave(container);
        Ok(true)
    }

    /// Takes down what is mounted on a volume, unless a container has it. `running` are the containers with
    /// this volume that look as if they ran.
    pub(crate) fn take_down(&self, name: &str, running: impl Fn() -> Vec<String>) -> Result<()> {
        let in_use = || self.lock().entry(name.to_owned()).or_default().are_there(&running());
        // Who has it may be making it ready for a long time: that is not waited for.
        if in_use() {
            return Ok(());
        }
        // Who comes from now on waits, and mounts it again. Somebody may have come just before.
        let _busy = self.take(name);
        match in_use() {
            true => Ok(()),
            false => mounted::unmount(&self.data(name)),
        }
    }

    /// Waits until no other thread is at work on this volume.
    fn take<'a>(&'a self, name: &'a str) -> Busy<'a> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ready.wait_while(busy, |busy| busy.contains(name));
        waited.unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Busy { volumes: self, name }
    }
}

/// A volume that is being made ready or taken down.
struct Busy<'a> {
    volumes: &'a Volumes,
    name: &'a str,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.volumes.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.volumes.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_leave_at_once_the_last_one_finds_nobody_there() {
        let running = ["one".to_owned(), "two".to_owned()];
        let mut holders = Holders::default();
        // Both run since before this daemon, and look so until their ends are recorded.
        holders.leave("one");
        assert!(holders.are_there(&running));
        holders.leave("two");
        assert!(!holders.are_there(&running));
        holders.enter("three");
        assert!(holders.are_there(&running));
        holders.leave("three");
        assert!(!holders.are_there(&running[1..]));
        assert!(holders.are_there(&running), "it runs again");
    }
}
