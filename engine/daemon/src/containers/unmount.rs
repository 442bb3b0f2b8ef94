//! Takes a container's root file system down without holding anybody up.
//!
//! The kernel writes out the file system below when an overlay goes ([`crate::rootfs`]), which takes as
//! long as its disk takes: seconds on a memory card that others write to. So a thread of its own waits for
//! it, the container has ended meanwhile, and only who needs the directory again waits too.

use std::sync::Mutex;

use tokio::task::JoinHandle;

use super::container::Container;
use crate::rootfs;

/// What is being unmounted.
#[derive(Default)]
pub(crate) struct Unmounting(Mutex<Option<JoinHandle<()>>>);

impl Unmounting {
    fn replace(&self, next: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
        let mut slot = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut slot, next)
    }
}

/// Begins to unmount the root file system, if it is mounted.
pub(crate) fn begin(container: &Container) {
    let target = container.rootfs();
    if !rootfs::is_mounted(&target) {
        return;
    }
    let id = container.id.clone();
    let before = container.unmounting.replace(None);
    let task = tokio::task::spawn_blocking(move || {
        if let Err(error) = rootfs::unmount_all(&target) {
            tracing::warn!(container = id, error = error.message(), "unmounting failed");
        }
    });
    let task = match before {
        None => task,
        Some(before) => tokio::spawn(async move {
            // Both have said themselves what went wrong.
            let _ = before.await;
            let _ = task.await;
        }),
    };
    container.unmounting.replace(Some(task));
}

/// Waits until nothing of the root file system is mounted by an earlier [`begin`].
pub(crate) async fn done(container: &Container) {
    if let Some(task) = container.unmounting.replace(None) {
        let _ = task.await;
    }
}
