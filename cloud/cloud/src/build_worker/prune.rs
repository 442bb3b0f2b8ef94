//! Removes what builds left on the build engine and no build needs any more: at the start, once a day, and
//! when the disk has little room left.
//!
//! What steps made and the directories of `RUN --mount=type=cache` go by their last use, which the engine
//! knows. Images with names, most of them base images, go after them: those that nothing was made from
//! that is still there, and that were pulled or named long ago. So a base image stays as long as a build
//! used it, however old it is.
//!
//! A running build holds what it works on. A push has looked for its images before it builds, though, so
//! these go only while no push runs.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use minke_cloud_builder::Worker;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::gate::Gate;

const EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked whether the disk has room, and whether images that are due can go.
const LOOK: Duration = Duration::from_secs(60);
/// How long room that was made has to last; measuring what is there takes time.
const PAUSE: Duration = Duration::from_secs(10 * 60);
/// How long the engine may take to answer after the start.
const READY: Duration = Duration::from_secs(60);
/// How long pushes may have to wait for it.
const CLOSED: Duration = Duration::from_secs(5 * 60);
/// Free bytes that are little on any disk; on a small one a tenth of it is.
const LITTLE: u64 = 5 << 30;

/// How much of what builds left stays.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// What was not used for so long goes.
    pub unused: Duration,
    /// Bytes of the cache.
    pub cache: u64,
}

/// Prunes a build engine. Cheap to clone.
#[derive(Clone)]
pub struct Pruner {
    pub worker: Arc<Worker>,
    pub gate: Gate,
    /// The engine's data: whose disk is watched.
    pub data: PathBuf,
    pub keep: Keep,
}

impl Pruner {
    /// Runs until the server ends.
    pub async fn run(self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next_day, mut next_room) = (Instant::now(), Instant::now());
        // They may wait for days without a minute's pause between pushes.
        let mut images_due = false;
        loop {
            look.tick().await;
            if Instant::now() >= next_day {
                next_day = Instant::now() + EVERY;
                images_due = said("pruning the build cache", self.cache(self.long_ago()).await);
            }
            if images_due {
                let pruned = self.images_between_pushes(Some(self.long_ago())).await;
                images_due = matches!(pruned, Ok(None));
                said("removing base images that no build uses", pruned);
            }
            if Instant::now() >= next_room {
                match self.missing().await {
                    Ok(0) => {}
                    Ok(missing) => {
                        said("making room on the disk", self.make_room(missing).await);
                        next_room = Instant::now() + PAUSE;
                    }
                    Err(error) => tracing::error!("looking for room on the disk: {error:#}"),
                }
            }
        }
    }

    fn long_ago(&self) -> SystemTime {
        SystemTime::now().checked_sub(self.keep.unused).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Removes what builds did not use after a time, and what is too much.
    async fn cache(&self, not_after: SystemTime) -> Result<()> {
        self.worker.ready(READY).await?;
        let old = self.shrink(Some(not_after), 0).await?;
        let surplus = self.shrink(None, self.keep.cache).await?;
        match old + surplus {
            0 => {}
            bytes => tracing::info!(bytes, "freed by pruning the build cache"),
        }
        Ok(())
    }

    /// Bytes that were freed.
    async fn shrink(&self, not_after: Option<SystemTime>, keep: u64) -> Result<u64> {
        let pruned = self.worker.client().prune_builds(not_after, keep).await?;
        Ok(u64::try_from(pruned.space_reclaimed).unwrap_or(0))
    }

    /// Frees about as many bytes: of the cache what was not used for longest, and where that is too
    /// little, base images too.
    async fn make_room(&self, missing: u64) -> Result<()> {
        let cache = self.worker.client().build_cache().await?;
        let held: u64 = cache.iter().map(|it| u64::try_from(it.size).unwrap_or(0)).sum();
        let mut freed = self.shrink(None, held.saturating_sub(missing)).await?;
        if freed < missing {
            freed += self.images_between_pushes(None).await?.unwrap_or(0);
        }
        tracing::warn!(freed, missing, "the disk has little room left: pruned the build cache");
        Ok(())
    }

    /// Bytes that were freed, or nothing where a push runs.
    async fn images_between_pushes(&self, not_after: Option<SystemTime>) -> Result<Option<u64>> {
        match self.gate.close().await.context("looking for running pushes")? {
            Some(_closed) => {
                let pruned = tokio::time::timeout(CLOSED, self.images(not_after)).await;
                Ok(Some(pruned.with_context(|| format!("it took longer than {CLOSED:?}"))??))
            }
            None => Ok(None),
        }
    }

    /// Removes images with names that nothing was made from; without a time, however new they are.
    async fn images(&self, not_after: Option<SystemTime>) -> Result<u64> {
        let images = self.worker.client().list_all_images().await?;
        let parents: HashSet<&str> = images.iter().map(|it| it.parent_id.as_str()).collect();
        let (mut count, mut bytes) = (0, 0);
        for image in images.iter().filter(|it| !parents.contains(it.id.as_str())) {
            let names: Vec<&String> = image.repo_tags.iter().chain(&image.repo_digests).collect();
            let is_due = match not_after {
                Some(time) => self.is_older(&image.id, time).await?,
                None => true,
            };
            if is_due && !names.is_empty() && self.remove(&names).await? {
                count += 1;
                bytes += u64::try_from(image.size - image.shared_size.max(0)).unwrap_or(0);
            }
        }
        if count > 0 {
            tracing::info!(count, bytes, "removed base images that no build uses");
        }
        Ok(bytes)
    }

    /// Whether an image was last named by then. One that was pulled by its digest alone never was: it
    /// cannot be known when it was used, so it stays until room is needed.
    async fn is_older(&self, id: &str, than: SystemTime) -> Result<bool> {
        let Some(details) = self.worker.client().inspect_image(id).await? else {
            return Ok(false);
        };
        let named: Result<Timestamp, _> = details.metadata.last_tag_time.parse();
        let named = named.with_context(|| format!("reading when {id} was named"))?;
        Ok(named > Timestamp::UNIX_EPOCH && SystemTime::from(named) <= than)
    }

    /// Takes all names of an image away, and so the image; whether nothing held it.
    async fn remove(&self, names: &[&String]) -> Result<bool> {
        for name in names {
            match self.worker.client().delete_built_image(name).await {
                Ok(_) => {}
                // A digest goes with the last tag of its repository.
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_conflict() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Bytes that the disk lacks.
    async fn missing(&self) -> Result<u64> {
        let data = self.data.clone();
        let looked = tokio::task::spawn_blocking(move || room(&data));
        let (free, total) = looked.await.context("the look was given up")??;
        Ok(missing(free, total))
    }
}

/// Logs a failure; whether there was none.
fn said<T>(doing: &str, outcome: Result<T>) -> bool {
    if let Err(error) = &outcome {
        tracing::error!("{doing}: {error:#}");
    }
    outcome.is_ok()
}

/// Twice as much as is little becomes free, so that it lasts.
fn missing(free: u64, total: u64) -> u64 {
    let little = LITTLE.min(total / 10);
    if free < little { 2 * little - free } else { 0 }
}

/// Free and all bytes of a disk. Blocking.
fn room(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero, and there is room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: any bytes are numbers, and they were zero before.
    let found = unsafe { found.assume_init() };
    let block = found.f_frsize;
    Ok((found.f_bavail * block, found.f_blocks * block))
}

#[cfg(test)]
mod tests;
