//! Directories of `RUN --mount=type=cache`: kept between builds, shared or not as the mount says.
//!
//! Whoever waits for a cache holds nothing that another build step waits for: the caches of a step are
//! taken in one order, after everything else is ready and before the leave to work.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use minke_common_dockerfile::{Mount, MountKind};
use minke_common_model::digest::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::build::copy;
use crate::build::mounts::chown;
use crate::build::runner::RunBind;
use crate::build::stage::Stage;
use crate::build::tree::Tree;
use crate::build::usage::Record;
use crate::build::walk::{From, Manner};
use crate::removal::{remove_tree, remove_tree_at};
use crate::volumes::disk_usage;

/// Most directories of one `sharing=private` cache.
const MAX_PRIVATE: usize = 16;

/// Where the caches are, and who uses them.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    dir: PathBuf,
    used: Arc<Mutex<BTreeMap<String, Arc<RwLock<()>>>>>,
}

/// A cache in use.
#[derive(Debug)]
#[allow(dead_code, reason = "holding it is what it is for")]
pub(crate) enum Held {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Caches {
    pub(crate) fn new(dir: PathBuf) -> Caches {
        Caches { dir, used: Arc::default() }
    }

    fn lock_of(&self, name: &str) -> Arc<RwLock<()>> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody uses any more is forgotten.
        used.retain(|_, lock| Arc::strong_count(lock) > 1);
        used.entry(name.to_owned()).or_default().clone()
    }

    /// A cache's directory, which may not be there yet, once it may be used.
    async fn take(&self, name: &str, sharing: &str) -> (PathBuf, Held) {
        match sharing {
            "locked" => {
                let held = self.lock_of(name).write_owned().await;
                (self.dir.join(name), Held::Alone(held))
            }
            "private" => {
                for nth in 1..MAX_PRIVATE {
                    let own = format!("{name}.{nth}");
                    if let Ok(held) = self.lock_of(&own).try_write_owned() {
                        return (self.dir.join(own), Held::Alone(held));
                    }
                }
                let last = format!("{name}.{MAX_PRIVATE}");
                let held = self.lock_of(&last).write_owned().await;
                (self.dir.join(last), Held::Alone(held))
            }
            _ => {
                let held = self.lock_of(name).read_owned().await;
                (self.dir.join(name), Held::Shared(held))
            }
        }
    }

    /// Each with what it takes. Blocking.
    pub(crate) fn records(&self) -> Vec<Record> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let record = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let in_use = self.lock_of(&name).try_write().is_err();
            // Its directory changes with what is put into it.
            let used = entry.metadata().ok()?.modified().ok()?;
            let used = used.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as i64);
            Some(Record::of_mount(name, in_use, disk_usage(&entry.path()), used))
        };
        entries.flatten().filter_map(record).collect()
    }

    /// Removes one unless somebody uses it; whether it is gone. Blocking.
    pub(crate) fn clear(&self, name: &str) -> io::Result<bool> {
        let lock = self.lock_of(name);
        let Ok(_held) = lock.try_write() else { return Ok(false) };
        remove_tree(&self.dir.join(name)).map(|()| true)
    }
}

/// A cache that a step wants.
struct Wanted<'m> {
    name: String,
    mount: &'m Mount,
    /// What it begins with.
    seed: Option<(Arc<Tree>, String)>,
}

impl Stage<'_> {
    /// The name of a cache: its id, or where it is mounted.
    pub(crate) fn cache_id(&self, mount: &Mount) -> Result<String, String> {
        match &mount.id {
            Some(id) => self.state.word(id),
            None => self.target(mount),
        }
    }

    /// Takes the caches of a step; they are held as long as the result is.
    pub(crate) async fn caches(
        &self,
        mounts: &[Mount],
        binds: &mut Vec<RunBind>,
    ) -> Result<Vec<Held>, String> {
        let mut wanted = Vec::new();
        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Cache) {
            let name = Digest::of(self.cache_id(mount)?).hex()[..32].to_owned();
            wanted.push(Wanted { name, mount, seed: self.seed(mount).await? });
        }
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        let caches = &self.build.builder.caches;
        let (mut held, mut last) = (Vec::new(), None::<(String, PathBuf)>);
        for Wanted { name, mount, seed } in wanted {
            let path = match last {
                // One cache at two places is taken once.
                Some((taken, path)) if taken == name => path,
                _ => {
                    let sharing = mount.sharing.as_deref().unwrap_or("shared");
                    let (path, use_of_it) = caches.take(&name, sharing).await;
                    held.push(use_of_it);
                    path
                }
            };
            let (place, of) = (path.clone(), mount.clone());
            self.build
                .blocking(move || prepare(&place, &of, seed).map_err(|e| e.to_string()))
                .await?;
            let read_only = mount.read_only.unwrap_or(false);
            let target = self.target(mount)?;
            binds.push(RunBind::Path { source: path.clone(), target, read_only });
            last = Some((name, path));
        }
        Ok(held)
    }

    /// What a new cache is filled with: a directory of a stage or image.
    async fn seed(&self, mount: &Mount) -> Result<Option<(Arc<Tree>, String)>, String> {
        let Some(from) = mount.from.as_deref().filter(|from| !from.is_empty()) else {
            return Ok(None);
        };
        let source = self.state.word(mount.source.as_deref().unwrap_or("/"))?;
        let tree = self.tree_of(from).await.map_err(|failure| failure.message)?;
        Ok(Some((tree, source.trim_matches('/').to_owned())))
    }
}

/// Makes a cache's directory where it is missing, whole or not at all.
fn prepare(path: &Path, mount: &Mount, seed: Option<(Arc<Tree>, String)>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let half = path.with_file_name(format!("half-{}", crate::ids::random()));
    std::fs::create_dir(&half)?;
    if let Some((tree, source)) = seed {
        let into = Tree::open(&half)?;
        copy::contents(&From { tree: &tree, path: source }, &into, "", &Manner::default())?;
    }
    std::fs::set_permissions(&half, PermissionsExt::from_mode(mount.mode.unwrap_or(0o755)))?;
    chown(&half, mount)?;
    match std::fs::rename(&half, path) {
        // Somebody who shares it was faster.
        Err(_) if path.exists() => {
            let parent = Tree::open(path.parent().unwrap_or(path))?;
            let parent = parent.directory("")?;
            let name = half.file_name().unwrap_or_default().to_string_lossy().into_owned();
            remove_tree_at(parent.as_fd(), &name)
        }
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caches_are_shared_locked_or_private() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().to_owned());
        let (one, first) = caches.take("a", "shared").await;
        let (two, second) = caches.take("a", "shared").await;
        assert_eq!(one, two);
        let locked = tokio::spawn({
            let caches = caches.clone();
            async move { caches.take("a", "locked").await.0 }
        });
        tokio::task::yield_now().await;
        assert!(!locked.is_finished(), "two share it");
        drop((first, second));
        assert_eq!(locked.await.unwrap(), one);
        let (mine, _held) = caches.take("p", "private").await;
        let (yours, _also_held) = caches.take("p", "private").await;
        assert_ne!(mine, yours);
    }
}
