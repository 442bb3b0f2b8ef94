//! The store in a directory of the local file system.
//!
//! ```text
//!   objects/<key>     what is visible; only ever renamed into place
//!   staging/<id>      uploads that can go on, also after a restart
//!   trash/<uuid>      small objects being written, trees being removed; emptied at start
//! ```

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::files::{self, found};
use crate::staging::Stages;
use crate::{
    BlobError, Blobs, ByteStream, Child, Digest, Key, Meta, Reading, Result, StageId, staging,
};

/// Read size: large enough that a system call per chunk costs nothing beside the copy.
const CHUNK: usize = 128 * 1024;

/// What may be set about a store in a directory.
#[derive(Debug, Clone)]
pub struct DirOptions {
    /// Uploads that nobody touched for this long are removed when the store is opened.
    pub stale_after: Duration,
    /// Uploads that may be open at once.
    pub max_stages: usize,
    /// Uploads of one owner that may be open at once.
    pub max_stages_of_owner: usize,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(24 * 3600),
            max_stages: 4096,
            max_stages_of_owner: 256,
        }
    }
}

/// A [`Blobs`] store in a directory. One process opens a directory at a time.
pub struct DirBlobs {
    pub(crate) root: PathBuf,
    pub(crate) max_stages: usize,
    pub(crate) max_stages_of_owner: usize,
    pub(crate) stages: Stages,
}

impl DirBlobs {
    /// Opens, or makes, the store in `root` and clears what an earlier process left unfinished.
    /// Blocks; called once at start.
    pub fn open(root: impl Into<PathBuf>, options: &DirOptions) -> Result<Self> {
        let root = root.into();
        let opening = |cause| BlobError::io("open the store in", root.display(), cause);
        let trash = root.join("trash");
        if trash.exists() {
            fs::remove_dir_all(&trash).map_err(opening)?;
        }
        for dir in ["objects", "staging", "trash"] {
            files::make_dirs(&root.join(dir)).map_err(opening)?;
        }
        let before = SystemTime::now().checked_sub(options.stale_after);
        let removed =
            before.map_or(Ok(Vec::new()), |before| staging::remove_stale(&root, before))?;
        if !removed.is_empty() {
            tracing::info!(uploads = removed.len(), "removed uploads that were never finished");
        }
        let stages = Stages::found_on_disk(&root).map_err(opening)?;
        let (max_stages, max_stages_of_owner) = (options.max_stages, options.max_stages_of_owner);
        Ok(Self { root, max_stages, max_stages_of_owner, stages })
    }

    pub(crate) fn object(&self, key: &Key) -> PathBuf {
        self.root.join("objects").join(key.as_str())
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("trash").join(uuid::Uuid::new_v4().simple().to_string())
    }

    async fn open_object(&self, key: &Key) -> Result<Option<(File, Meta)>> {
        let path = self.object(key);
        let opened = blocking(move || {
            let Some(file) = found(File::open(path))? else { return Ok(None) };
            Ok(meta_of(&file.metadata()?).map(|meta| (file, meta)))
        });
        opened.await.map_err(|cause| BlobError::io("read", key, cause))
    }
}

/// Runs file-system work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

fn meta_of(metadata: &fs::Metadata) -> Option<Meta> {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    metadata.is_file().then_some(Meta { size: metadata.len(), modified })
}

fn write_whole(scratch: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = File::create_new(scratch).and_then(|mut file| {
        file.write_all(bytes)?;
        // The kernel's own stamp lags the clock by a tick, and callers compare with the clock.
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        files::publish(scratch, target)
    });
    if written.is_err() {
        // The first error is the one to tell; the start-up clears what this leaves.
        let _ = fs::remove_file(scratch);
    }
    written
}

fn list(dir: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<Child>> {
    let mut children = Vec::new();
    for entry in found(fs::read_dir(dir))?.into_iter().flatten() {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if after.is_none_or(|after| name.as_str() > after) {
            children.push(Child { name, is_prefix: entry.file_type()?.is_dir() });
        }
    }
    children.sort_unstable();
    children.truncate(limit);
    Ok(children)
}

fn part(key: &Key, meta: Meta, range: Option<Range<u64>>) -> Result<Range<u64>> {
    let range = range.unwrap_or(0..meta.size);
    if range.start > meta.size || (range.start == meta.size && meta.size > 0) {
        return Err(BlobError::Range { key: key.clone(), size: meta.size, start: range.start });
    }
    Ok(range.start..range.end.min(meta.size).max(range.start))
}

impl Blobs for DirBlobs {
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Meta>>> {
        let path = self.object(key);
        let stat = blocking(move || found(fs::metadata(path)));
        async move {
            let metadata = stat.await.map_err(|cause| BlobError::io("look up", key, cause))?;
            Ok(metadata.as_ref().and_then(meta_of))
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        key: &'a Key,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<Option<Reading>>> {
        async move {
            let Some((mut file, meta)) = self.open_object(key).await? else { return Ok(None) };
            let range = part(key, meta, range)?;
            let seeking = |cause| BlobError::io("read", key, cause);
            file.seek(io::SeekFrom::Start(range.start)).map_err(seeking)?;
            let file = tokio::fs::File::from_std(file).take(range.end - range.start);
            let bytes = ReaderStream::with_capacity(file, CHUNK).boxed();
            Ok(Some(Reading { meta, range, bytes }))
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a Key, limit: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            let Some((file, meta)) = self.open_object(key).await? else { return Ok(None) };
            if meta.size > limit {
                return Err(BlobError::TooLarge { what: key.to_string(), limit });
            }
            let read = blocking(move || {
                let mut bytes = Vec::with_capacity(meta.size as usize);
                io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
                Ok(Bytes::from(bytes))
            });
            read.await.map(Some).map_err(|cause| BlobError::io("read", key, cause))
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        let (scratch, target) = (self.scratch(), self.object(key));
        let write = blocking(move || write_whole(&scratch, &target, &bytes));
        async move { write.await.map_err(|cause| BlobError::io("store", key, cause)) }.boxed()
    }

    fn touch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let path = self.object(key);
        let touch = blocking(move || {
            let Some(file) = found(File::options().append(true).open(path))? else {
                return Ok(false);
            };
            file.set_modified(SystemTime::now()).map(|()| true)
        });
        async move { touch.await.map_err(|cause| BlobError::io("touch", key, cause)) }.boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let path = self.object(key);
        let delete = blocking(move || match found(fs::remove_file(&path))? {
            Some(()) => files::sync_parent(&path).map(|()| true),
            None => Ok(false),
        });
        async move { delete.await.map_err(|cause| BlobError::io("delete", key, cause)) }.boxed()
    }

    fn delete_all<'a>(&'a self, prefix: &'a Key) -> BoxFuture<'a, Result<()>> {
        let (path, scratch) = (self.object(prefix), self.scratch());
        let delete = blocking(move || {
            if found(fs::rename(&path, &scratch))?.is_some() {
                files::sync_parent(&path)?;
                fs::remove_dir_all(&scratch)?;
            }
            Ok(())
        });
        async move { delete.await.map_err(|cause| BlobError::io("delete", prefix, cause)) }.boxed()
    }

    fn children<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Child>>> {
        let dir = self.object(prefix);
        let after = after.map(str::to_owned);
        let list = blocking(move || list(&dir, after.as_deref(), limit));
        async move { list.await.map_err(|cause| BlobError::io("list", prefix, cause)) }.boxed()
    }

    fn stage<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<StageId>> {
        self.begin_stage(owner).boxed()
    }

    fn staged<'a>(&'a self, id: &'a StageId) -> BoxFuture<'a, Result<Option<u64>>> {
        self.stage_size(id).boxed()
    }

    fn append<'a>(
        &'a self,
        id: &'a StageId,
        at: Option<u64>,
        bytes: ByteStream<'a>,
        limit: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        self.append_stage(id, at, bytes, limit).boxed()
    }

    fn publish<'a>(
        &'a self,
        id: &'a StageId,
        key: &'a Key,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<u64>> {
        self.publish_stage(id, key, digest).boxed()
    }

    fn discard<'a>(&'a self, id: &'a StageId) -> BoxFuture<'a, Result<bool>> {
        self.discard_stage(id).boxed()
    }

    fn discard_stale(&self, before: SystemTime) -> BoxFuture<'_, Result<usize>> {
        self.discard_stale_stages(before).boxed()
    }
}

/// A shared handle, as [`crate::Store`] wants it.
impl From<DirBlobs> for Arc<dyn Blobs> {
    fn from(blobs: DirBlobs) -> Self {
        Arc::new(blobs)
    }
}
