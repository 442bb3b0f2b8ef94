//! Uploads that are not yet objects: append, resume, verify, publish.
//!
//! ```text
//!   begin ──> open ──append──> open ──publish(digest right)──> object
//!              │                 └────publish(digest wrong)──> open
//!              └──discard, stale──> gone
//! ```
//!
//! Each upload has a lock, held while bytes are written, so its length never moves under a
//! reader. The lock travels with the blocking write: dropping the caller's future cannot let
//! a second request in before the write ended. The running hash is kept between requests
//! and is only trusted while it covers exactly the file's length; otherwise the file is read.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::StreamExt;
use minke_common_model::digest::Hasher;
use tokio::sync::OwnedMutexGuard;

use crate::directory::blocking;
use crate::files::{self, found};
use crate::{BlobError, ByteStream, Digest, DirBlobs, Key, Result};

/// Bytes gathered before one write: bounds both memory and the number of thread hops.
const BATCH: usize = 512 * 1024;

/// How long a request waits for another one on the same upload.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The name of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(String);

/// The text is no upload's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an upload is named by 32 lower-case hex digits")]
pub struct StageIdError;

impl FromStr for StageId {
    type Err = StageIdError;

    fn from_str(text: &str) -> std::result::Result<Self, StageIdError> {
        let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 32 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StageIdError)
        }
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is remembered of an upload between two requests.
#[derive(Default)]
pub(crate) struct Progress {
    /// Bytes hashed so far, and their hash; `None` when unknown.
    hashed: Option<(u64, Hasher)>,
}

type StageLock = Arc<tokio::sync::Mutex<Progress>>;

/// The place of one upload among those that are open.
#[derive(Default)]
struct StageSlot {
    lock: StageLock,
    /// Who began it; unknown of one that an earlier process left.
    owner: Option<String>,
}

/// The uploads that are open. Cheap to clone: blocking work takes a handle along, so that an upload's
/// place is free when its file is gone, also where nobody waits for the answer any more.
#[derive(Clone, Default)]
pub(crate) struct Stages(Arc<Mutex<HashMap<StageId, StageSlot>>>);

impl Stages {
    pub(crate) fn found_on_disk(root: &Path) -> io::Result<Self> {
        let found = staged_files(root)?.into_iter().map(|(id, _)| (id, StageSlot::default()));
        Ok(Self(Arc::new(Mutex::new(found.collect()))))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<StageId, StageSlot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, id: &StageId) {
        self.slots().remove(id);
    }

    /// Frees the places of uploads whose files are gone. Whoever works on an upload, or is about to,
    /// has another handle on its lock.
    fn forget_lost(&self, root: &Path) {
        self.slots()
            .retain(|id, slot| Arc::strong_count(&slot.lock) > 1 || stage_path(root, id).exists());
    }
}

fn stage_path(root: &Path, id: &StageId) -> PathBuf {
    root.join("staging").join(&id.0)
}

fn staged_files(root: &Path) -> io::Result<Vec<(StageId, SystemTime)>> {
    let mut stages = Vec::new();
    for entry in fs::read_dir(root.join("staging"))? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(id) = id else { continue };
        if let Some(metadata) = found(entry.metadata())? {
            stages.push((id, metadata.modified()?));
        }
    }
    Ok(stages)
}

pub(crate) fn remove_stale(root: &Path, before: SystemTime) -> Result<Vec<StageId>> {
    let listing = |cause| BlobError::io("list the uploads in", root.display(), cause);
    let mut removed = Vec::new();
    for (id, modified) in staged_files(root).map_err(listing)? {
        if modified < before {
            let removing = |cause| BlobError::io("remove the stale upload", &id, cause);
            found(fs::remove_file(stage_path(root, &id))).map_err(removing)?;
            removed.push(id);
        }
    }
    Ok(removed)
}

/// One append in progress: travels into the blocking write and back, lock included.
struct Appending {
    progress: OwnedMutexGuard<Progress>,
    file: File,
    start: u64,
    len: u64,
}

impl Appending {
    fn open(path: &Path, progress: OwnedMutexGuard<Progress>) -> io::Result<Option<Self>> {
        let Some(mut file) = found(File::options().append(true).open(path))? else {
            return Ok(None);
        };
        let len = file.seek(io::SeekFrom::End(0))?;
        Ok(Some(Self { progress, file, start: len, len }))
    }

    /// Writes one batch; after an error the upload is as it was before this append.
    fn write(mut self, batch: Vec<Bytes>) -> io::Result<Self> {
        let mut hash = match self.progress.hashed.take() {
            Some((len, hash)) if len == self.len => Some(hash),
            _ if self.len == 0 => Some(Hasher::new()),
            _ => None,
        };
        for bytes in batch {
            if let Err(error) = self.file.write_all(&bytes) {
                self.undo();
                return Err(error);
            }
            self.len += bytes.len() as u64;
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
        }
        self.progress.hashed = hash.map(|hash| (self.len, hash));
        Ok(self)
    }

    fn undo(&mut self) {
        self.progress.hashed = None;
        if let Err(error) = self.file.set_len(self.start) {
            tracing::error!(%error, "could not cut an upload back; its digest will not match");
        }
    }
}

/// Takes from `bytes` until a batch is full, the stream ends, or it fails.
async fn next_batch(bytes: &mut ByteStream<'_>) -> (Vec<Bytes>, Option<io::Result<()>>) {
    let (mut batch, mut size) = (Vec::new(), 0);
    while size < BATCH {
        match bytes.next().await {
            Some(Ok(chunk)) => {
                size += chunk.len();
                batch.push(chunk);
            }
            Some(Err(error)) => return (batch, Some(Err(error))),
            None => return (batch, Some(Ok(()))),
        }
    }
    (batch, None)
}

fn hash_file(path: &Path) -> io::Result<(u64, Hasher)> {
    let (mut file, mut hash, mut len) = (File::open(path)?, Hasher::new(), 0);
    let mut buffer = vec![0; BATCH];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((len, hash)),
            count => {
                hash.update(&buffer[..count]);
                len += count as u64;
            }
        }
    }
}

/// Hashes what is stored (or trusts the hash kept while writing it), syncs and renames.
fn verify_and_publish(
    progress: &mut Progress,
    stage: &Path,
    target: &Path,
    expected: &Digest,
) -> io::Result<std::result::Result<u64, Digest>> {
    let file = File::open(stage)?;
    let size = file.metadata()?.len();
    let (len, hash) = match progress.hashed.take() {
        Some(hashed) if hashed.0 == size => hashed,
        _ => hash_file(stage)?,
    };
    let actual = hash.clone().finish();
    progress.hashed = Some((len, hash));
    if actual != *expected {
        return Ok(Err(actual));
    }
    file.sync_all()?;
    file.set_modified(SystemTime::now())?;
    files::publish(stage, target)?;
    Ok(Ok(size))
}

impl DirBlobs {
    /// Waits a moment for the lock: a sender that lost its connection may be back before
    /// the write of its last bytes ended.
    async fn lock_stage(&self, id: &StageId) -> Result<OwnedMutexGuard<Progress>> {
        let lock = self.stages.slots().get(id).map(|slot| slot.lock.clone());
        let lock = lock.ok_or_else(|| BlobError::NoStage(id.clone()))?;
        let locked = tokio::time::timeout(LOCK_WAIT, lock.lock_owned()).await;
        locked.map_err(|_| BlobError::Busy(id.clone()))
    }

    /// Takes a place for a new upload of `owner`; gives its lock too.
    fn admit(&self, owner: &str) -> Result<(StageId, StageLock)> {
        let id = StageId(uuid::Uuid::new_v4().simple().to_string());
        let mut slots = self.stages.slots();
        if slots.len() >= self.max_stages {
            return Err(BlobError::TooManyStages(self.max_stages));
        }
        let owned = slots.values().filter(|slot| slot.owner.as_deref() == Some(owner)).count();
        if owned >= self.max_stages_of_owner {
            let limit = self.max_stages_of_owner;
            return Err(BlobError::TooManyOfOwner { owner: owner.to_owned(), limit });
        }
        let lock = StageLock::default();
        slots.insert(id.clone(), StageSlot { lock: lock.clone(), owner: Some(owner.to_owned()) });
        Ok((id, lock))
    }

    pub(crate) async fn begin_stage(&self, owner: &str) -> Result<StageId> {
        let (id, lock) = self.admit(owner)?;
        let (path, stages, begun) = (stage_path(&self.root, &id), self.stages.clone(), id.clone());
        let create = blocking(move || {
            let _in_use = lock;
            File::create_new(path).map(drop).inspect_err(|_| stages.remove(&begun))
        });
        match create.await {
            Ok(()) => Ok(id),
            Err(cause) => Err(BlobError::io("begin the upload", id, cause)),
        }
    }

    pub(crate) async fn stage_size(&self, id: &StageId) -> Result<Option<u64>> {
        let path = stage_path(&self.root, id);
        let stat = blocking(move || found(fs::metadata(path))).await;
        let metadata = stat.map_err(|cause| BlobError::io("look up the upload", id, cause))?;
        Ok(metadata.map(|metadata| metadata.len()))
    }

    pub(crate) async fn append_stage(
        &self,
        id: &StageId,
        at: Option<u64>,
        mut bytes: ByteStream<'_>,
        limit: u64,
    ) -> Result<u64> {
        let failed = |cause| BlobError::io("write the upload", id, cause);
        let (progress, path) = (self.lock_stage(id).await?, stage_path(&self.root, id));
        let opened = blocking(move || Appending::open(&path, progress)).await.map_err(failed)?;
        let mut upload = opened.ok_or_else(|| BlobError::NoStage(id.clone()))?;
        if let Some(at) = at.filter(|at| *at != upload.len) {
            return Err(BlobError::Offset { stage: id.clone(), have: upload.len, at });
        }
        let (mut batch, mut end) = next_batch(&mut bytes).await;
        loop {
            let size = batch.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            if upload.len + size > limit {
                blocking(move || upload.undo()).await;
                return Err(BlobError::TooLarge { what: format!("the upload {id}"), limit });
            }
            let write = blocking(move || upload.write(batch));
            if let Some(outcome) = end {
                let upload = write.await.map_err(failed)?;
                return outcome
                    .map(|()| upload.len)
                    .map_err(|cause| BlobError::Source(id.clone(), cause));
            }
            // The next batch is received while this one is written.
            let (written, next) = tokio::join!(write, next_batch(&mut bytes));
            upload = written.map_err(failed)?;
            (batch, end) = next;
        }
    }

    pub(crate) async fn publish_stage(
        &self,
        id: &StageId,
        key: &Key,
        digest: &Digest,
    ) -> Result<u64> {
        let mut progress = self.lock_stage(id).await?;
        let (stage, target, expected) = (stage_path(&self.root, id), self.object(key), *digest);
        let (stages, published) = (self.stages.clone(), id.clone());
        let publish = blocking(move || {
            let outcome = verify_and_publish(&mut progress, &stage, &target, &expected);
            if let Ok(Ok(_)) = outcome {
                stages.remove(&published);
            }
            outcome
        });
        publish
            .await
            .map_err(|cause| BlobError::io("publish", key, cause))?
            .map_err(|actual| BlobError::Digest { expected, actual })
    }

    pub(crate) async fn discard_stage(&self, id: &StageId) -> Result<bool> {
        let progress = match self.lock_stage(id).await {
            Ok(progress) => progress,
            Err(BlobError::NoStage(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (path, stages, gone) = (stage_path(&self.root, id), self.stages.clone(), id.clone());
        let remove = blocking(move || {
            let _held_until_removed = progress;
            found(fs::remove_file(path)).inspect(|_| stages.remove(&gone))
        });
        let removed = remove.await.map_err(|cause| BlobError::io("discard upload", id, cause))?;
        Ok(removed.is_some())
    }

    pub(crate) async fn discard_stale_stages(&self, before: SystemTime) -> Result<usize> {
        let (root, open) = (self.root.clone(), self.stages.clone());
        let listed = blocking(move || {
            open.forget_lost(&root);
            staged_files(&root)
        });
        let listed = listed.await;
        let stages = listed
            .map_err(|cause| BlobError::io("list the uploads in", self.root.display(), cause))?;
        let mut discarded = 0;
        for (id, _) in stages.into_iter().filter(|(_, modified)| *modified < before) {
            match self.discard_stage(&id).await {
                Ok(removed) => discarded += usize::from(removed),
                // Somebody is sending to it again: not stale after all.
                Err(BlobError::Busy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(discarded)
    }
}
