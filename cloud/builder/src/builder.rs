//! The builder as the server holds it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits::Limits;
use crate::ports::Releases;
use crate::worker::Worker;

/// Settings of a builder.
#[derive(Clone, Debug)]
pub struct BuilderOptions {
    /// Where projects are unpacked; emptied when the builder is made.
    pub dir: PathBuf,
    /// `host:port` at which the worker reaches this server's registry.
    pub registry: String,
    /// Limits of one push.
    pub limits: Limits,
    /// Services built at once, over all pushes.
    pub parallel: usize,
    /// Pushes received and built at once.
    pub pushes: usize,
}

impl BuilderOptions {
    /// The usual settings.
    pub fn new(dir: PathBuf, registry: String) -> BuilderOptions {
        BuilderOptions { dir, registry, limits: Limits::default(), parallel: 2, pushes: 8 }
    }
}

struct Inner {
    options: BuilderOptions,
    releases: Arc<dyn Releases>,
    worker: Arc<Worker>,
    slots: Semaphore,
    pushes: Semaphore,
}

/// Receives projects and builds them. Cheap to clone.
#[derive(Clone)]
pub struct Builder {
    inner: Arc<Inner>,
}

impl Builder {
    /// A builder over rows and an engine. Removes what an earlier one left in its directory.
    pub fn new(
        options: BuilderOptions,
        releases: Arc<dyn Releases>,
        worker: Arc<Worker>,
    ) -> io::Result<Builder> {
        match std::fs::remove_dir_all(&options.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&options.dir)?,
        }
        let slots = Semaphore::new(options.parallel.max(1));
        let pushes = Semaphore::new(options.pushes.max(1));
        Ok(Builder { inner: Arc::new(Inner { options, releases, worker, slots, pushes }) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    pub(crate) fn registry(&self) -> &str {
        &self.inner.options.registry
    }

    pub(crate) fn releases(&self) -> &dyn Releases {
        &*self.inner.releases
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.inner.worker
    }

    /// A directory for one project; gone when dropped.
    pub(crate) fn directory(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("push-").tempdir_in(&self.inner.options.dir)
    }

    /// Waits until one more service may be built.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.slots.acquire().await.ok()
    }

    /// A place among the pushes, if there is one.
    pub(crate) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.pushes.try_acquire().ok()
    }
}
