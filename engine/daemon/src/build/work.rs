//! The builder as the daemon holds it, and the directory of one build.
//!
//! ```text
//!   <data>/build/cache.json     what earlier builds made
//!               /mounts/…       directories of RUN --mount=type=cache
//!               /builds/<id>/    one build: context, upper directories, mount points; gone with it
//!               /builds/.gone-…  what is being removed of one
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minke_engine_images::{PullOptions, Store};

use crate::build::cache::Cache;
use crate::build::caches::Caches;
use crate::build::cancel::Cancelled;
use crate::build::runner::Runner;
use crate::build::tree::Tree;
use crate::error::{Error, Result};
use crate::removal::remove_tree;
use crate::rootfs::Overlay;
use crate::{ids, rootfs};

/// What a builder is made of.
pub(crate) struct BuildParts {
    /// Images and layers.
    pub(crate) store: Store,
    /// Runs containers.
    pub(crate) runner: Arc<dyn Runner>,
    /// `<data>/build`
    pub(crate) dir: PathBuf,
    /// How base images are pulled; credentials and platform are a build's own.
    pub(crate) pull: PullOptions,
    /// Strangers build here side by side, and may have of each other's images only what anybody may.
    pub(crate) shared: bool,
}

/// Builds images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) store: Store,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) pull: Arc<PullOptions>,
    pub(crate) shared: bool,
    pub(crate) cache: Cache,
    pub(crate) caches: Caches,
    dir: Arc<PathBuf>,
}

impl Builder {
    /// Opens the directory; removes what builds of an earlier daemon left.
    pub(crate) async fn open(parts: BuildParts) -> Result<Builder> {
        let work = parts.dir.join("builds");
        off_thread("removing", &work, remove).await?;
        for path in [&work, &parts.dir.join("mounts")] {
            std::fs::create_dir_all(path).map_err(Error::file("making", path))?;
        }
        Ok(Builder {
            store: parts.store,
            runner: parts.runner,
            pull: Arc::new(parts.pull),
            shared: parts.shared,
            cache: Cache::open(&parts.dir.join("cache.json")),
            caches: Caches::new(parts.dir.join("mounts")),
            dir: Arc::new(parts.dir),
        })
    }

    /// A directory for one build.
    pub(crate) fn workspace(&self) -> Result<Arc<Workspace>> {
        let path = self.dir.join("builds").join(&ids::random()[..16]);
        for name in ["context", "empty", "steps", "files"] {
            let path = path.join(name);
            std::fs::create_dir_all(&path).map_err(Error::file("making", &path))?;
        }
        // Secrets pass through here.
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, private).map_err(Error::file("closing", &path))?;
        Ok(Arc::new(Workspace { path, next: AtomicU64::new(0), cancelled: Cancelled::default() }))
    }

    /// Where it keeps everything.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }
}

/// Does slow work on a directory beside the thread that answers everybody.
pub(super) async fn off_thread<T: Send + 'static>(
    doing: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let own = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&own)).await;
    done.map_err(io::Error::other).flatten().map_err(Error::file(doing, path))
}

/// Unmounts everything below a directory and removes it.
fn remove(path: &Path) -> io::Result<()> {
    for mount in rootfs::mounts_below(path) {
        rootfs::unmount_all(&mount).map_err(|e| io::Error::other(e.message()))?;
    }
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory of one build; removed with its mounts when the build and its blocking work are gone.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    next: AtomicU64,
    pub(crate) cancelled: Cancelled,
}

/// Where one step's changes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepDir {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Where its tree may be mounted; it is unmounted when the build is gone.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// The build's context.
    pub(crate) fn context(&self) -> PathBuf {
        self.path.join("context")
    }

    /// The lower directory of an image without layers.
    pub(crate) fn empty(&self) -> PathBuf {
        self.path.join("empty")
    }

    /// A path for a new file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("files").join(self.number())
    }

    fn number(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Directories for a step.
    pub(crate) fn step(&self) -> io::Result<StepDir> {
        let base = self.path.join("steps").join(self.number());
        let step = StepDir {
            upper: base.join("upper"),
            work: base.join("work"),
            target: base.join("root"),
        };
        for path in [&step.upper, &step.work, &step.target] {
            std::fs::create_dir_all(path)?;
        }
        Ok(step)
    }

    /// The tree of layers (top first) with a step's changes on it. It is mounted nowhere: the mount lives
    /// as long as the tree is open, so a crash leaves none.
    pub(crate) fn open(&self, lower: &[PathBuf], step: &StepDir) -> io::Result<Tree> {
        let system = |error: Error| io::Error::other(error.message());
        let StepDir { upper, work, target } = step;
        let overlay = Overlay { lower, upper, work, target, volatile: true };
        overlay.mount_at_target().map_err(system)?;
        let tree = Tree::open(&step.target);
        rootfs::unmount_all(&step.target).map_err(system)?;
        tree
    }
}

/// How often and how long apart a build's directory is tried to be removed.
const REMOVALS: (u32, Duration) = (50, Duration::from_millis(100));

impl Drop for Workspace {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let hidden = path.with_file_name(format!(".gone-{}", &ids::random()[..16]));
        // Where it cannot be renamed it is removed under its own name.
        let path = std::fs::rename(&path, &hidden).map_or(path, |()| hidden);
        // It may be large, and whoever lets go of a build may be the thread that answers everybody.
        std::thread::spawn(move || discard(&path));
    }
}

/// Removes a build's directory. The containers of a build that was given up may need a moment to end.
fn discard(path: &Path) {
    for _ in 0..REMOVALS.0 {
        if remove(path).is_ok() {
            return;
        }
        std::thread::sleep(REMOVALS.1);
    }
    tracing::warn!(path = %path.display(), "a build's directory stays until the next start");
}

/// Tells a build's blocking work to stop when the build is dropped.
pub(crate) struct StopOnDrop(pub(crate) Cancelled);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn letting_go_of_a_large_build_does_not_wait_for_its_removal() {
        // A busy machine may take this thread away in the middle, but not each time.
        let times: Vec<_> = (0..5).map(|_| times_of_letting_go()).collect();
        assert!(times.iter().any(|(waited, whole)| *waited * 3 < *whole), "{times:?}");
    }

    /// How long letting go of a build held its caller up, and how long the removal took in all.
    fn times_of_letting_go() -> (Duration, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        std::fs::create_dir(&path).unwrap();
        for name in 0..20_000 {
            std::fs::write(path.join(name.to_string()), "").unwrap();
        }
        let (next, cancelled) = (AtomicU64::new(0), Cancelled::default());
        let workspace = Workspace { path: path.clone(), next, cancelled };
        let begun = Instant::now();
        drop(workspace);
        let waited = begun.elapsed();
        assert!(!path.exists(), "its name is free at once");
        while std::fs::read_dir(dir.path()).unwrap().next().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is never removed");
            std::thread::sleep(Duration::from_millis(1));
        }
        (waited, begun.elapsed())
    }
}
