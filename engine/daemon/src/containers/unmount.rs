//! Takes a container's root file system down without holding anybody up.
//!
//! The kernel writes out the file system below when an overlay goes ([`crate::rootfs`]), which takes as
//! long as its disk takes: seconds on a memory card that others write to. So a thread of its own waits for
//! it, the container has ended meanwhile, and only who needs the directory again waits too.

use tokio::sync::watch;

use super::container::Container;
use crate::rootfs;

/// How many threads are unmounting. Each says by itself when it is done: who waits may give up at any
/// time, as a request does whose client leaves, and whoever comes next still knows of them all.
#[derive(Clone, Default)]
pub(crate) struct Unmounting(watch::Sender<usize>);

/// A thread that is unmounting, until it ends in whatever way.
struct Thread(Unmounting);

impl Unmounting {
    fn begin(&self, work: impl FnOnce() + Send + 'static) {
        self.0.send_modify(|threads| *threads += 1);
        let thread = Thread(self.clone());
        tokio::task::spawn_blocking(move || {
            let _thread = thread;
            work();
        });
    }

    async fn done(&self) {
        // It fails when there is no sender, and this one is still there.
        let _ = self.0.subscribe().wait_for(|threads| *threads == 0).await;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.0.send_modify(|threads| *threads -= 1);
    }
}

/// Begins to unmount the root file system, if it is mounted.
pub(crate) fn begin(container: &Container) {
    let target = container.rootfs();
    if !rootfs::is_mounted(&target) {
        return;
    }
    let id = container.id.clone();
    container.unmounting.begin(move || {
        if let Err(error) = rootfs::unmount_all(&target) {
            tracing::warn!(container = id, error = error.message(), "unmounting failed");
        }
    });
}

/// Waits until nothing of the root file system is mounted by an earlier [`begin`].
pub(crate) async fn done(container: &Container) {
    container.unmounting.done().await;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_next_one_waiting() {
        let unmounting = Unmounting::default();
        assert_eq!(unmounting.done().now_or_never(), Some(()));
        let (first, slow) = mpsc::channel::<()>();
        unmounting.begin(move || slow.recv().unwrap());
        let (second, slower) = mpsc::channel::<()>();
        unmounting.begin(move || slower.recv().unwrap());
        // Asked once, and dropped.
        assert_eq!(unmounting.done().now_or_never(), None);
        first.send(()).unwrap();
        let short = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(short, unmounting.done()).await.is_err());
        second.send(()).unwrap();
        unmounting.done().await;
        assert_eq!(unmounting.done().now_or_never(), Some(()));
    }

    #[tokio::test]
    async fn a_thread_that_panics_holds_nobody_up() {
        let unmounting = Unmounting::default();
        unmounting.begin(|| panic!("no need to worry: a test panics"));
        unmounting.done().await;
    }
}
