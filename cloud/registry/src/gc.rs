//! Removes blobs that no manifest names, links to them, and uploads that nobody finishes.
//!
//! ```text
//!   mark:   every manifest of every repository -> the digests that stay   (no lock)
//!   sweep:  every blob and link that is not marked and was not published,
//!           touched or mounted since `grace` before the mark               (a lock each)
//! ```
//!
//! Why it is safe while others push: whatever makes a blob count (upload, mount, the answer
//! to a pusher's HEAD, a manifest that names it) sets the blob's time to now while it holds
//! the gate for reading. The sweep looks at the time again while it holds the gate for
//! writing. So a blob that is removed was not marked, and nothing happened to it since.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use minke_cloud_blobs::{Digest, Key};

use crate::layout::{blob_key, layers_key, manifests_key};
use crate::listing::all_repositories;
use crate::manifest::Manifest;
use crate::path::Repository;
use crate::{Registry, RegistryError};

/// How old something must be to be removed.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// For blobs: must outlast the slowest push of one image.
    pub grace: Duration,
    /// For uploads that nobody touches.
    pub stale_upload: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { grace: day, stale_upload: day }
    }
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs whose bytes were removed.
    pub blobs: usize,
    /// Bytes of those blobs.
    pub bytes: u64,
    /// Links of repositories to blobs.
    pub links: usize,
    /// Unfinished uploads.
    pub uploads: usize,
}

/// Why a collection stopped; what it removed before stays removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store failed.
    #[error("cannot collect garbage in the registry")]
    Registry(#[from] RegistryError),
    /// A manifest is damaged, so nobody knows which blobs it needs: nothing was removed.
    #[error("the manifest {digest} of {repository} is damaged; nothing was removed")]
    Damaged {
        /// Where it is.
        repository: Repository,
        /// Its digest.
        digest: Digest,
    },
}

impl From<minke_cloud_blobs::BlobError> for GcError {
    fn from(error: minke_cloud_blobs::BlobError) -> Self {
        Self::Registry(error.into())
    }
}

impl Registry {
    /// Runs one collection. Two at once are safe but useless.
    pub async fn collect_garbage(&self, options: &GcOptions) -> Result<Collected, GcError> {
        // Behind the gate, so that no push is half way: each is either linked and will be
        // marked, or still to come and will set times later than this one.
        let now = {
            let _alone = self.layout().collecting().await;
            SystemTime::now()
        };
        let before = now.checked_sub(options.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let stale = now.checked_sub(options.stale_upload).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut collected = Collected::default();
        let mut marked = HashSet::new();
        let repositories = all_repositories(self).await?;
        let mut named = Vec::with_capacity(repositories.len());
        for repository in &repositories {
            let of_this = self.mark(repository).await?;
            marked.extend(of_this.iter().copied());
            named.push(of_this);
        }
        for (repository, named) in repositories.iter().zip(&named) {
            collected.links += self.sweep_links(repository, named, before).await?;
        }
        self.sweep_blobs(&marked, before, &mut collected).await?;
        collected.uploads = self.layout().store.discard_stale(stale).await?;
        Ok(collected)
    }

    /// What the manifests of `repository` name, themselves included.
    async fn mark(&self, repository: &Repository) -> Result<HashSet<Digest>, GcError> {
        let (layout, limits) = (self.layout(), self.limits());
        let mut named = HashSet::new();
        for child in layout.store.children(&manifests_key(repository), None, usize::MAX).await? {
            let Ok(digest) = Digest::from_hex(&child.name) else { continue };
            let media_type = layout.manifest_type(repository, &digest).await?;
            let bytes = layout.store.get(&blob_key(&digest), limits.manifest as u64).await?;
            // Deleted since it was listed: what it named is not needed because of it.
            let (Some(media_type), Some(bytes)) = (media_type, bytes) else { continue };
            let manifest = Manifest::parse(&bytes, Some(&media_type), limits.descriptors)
                .map_err(|_| GcError::Damaged { repository: repository.clone(), digest })?;
            named.insert(digest);
            named.extend(manifest.blobs.iter().map(|blob| blob.digest));
        }
        Ok(named)
    }

    async fn sweep_links(
        &self,
        repository: &Repository,
        named: &HashSet<Digest>,
        before: SystemTime,
    ) -> Result<usize, GcError> {
        let (store, mut removed) = (&self.layout().store, 0);
        let layers = layers_key(repository);
        for child in store.children(&layers, None, usize::MAX).await? {
            let known = Digest::from_hex(&child.name).is_ok_and(|digest| named.contains(&digest));
            if let (false, Ok(key)) = (known, layers.join(&child.name)) {
                let alone = self.layout().collecting().await;
                let gone = self.layout().remove_if_older(&alone, &key, before).await?;
                removed += usize::from(gone.is_some());
            }
        }
        Ok(removed)
    }

    async fn sweep_blobs(
        &self,
        marked: &HashSet<Digest>,
        before: SystemTime,
        collected: &mut Collected,
    ) -> Result<(), GcError> {
        let store = &self.layout().store;
        let root = Key::new("blobs/sha256").expect("plain words are a key");
        for fan in store.children(&root, None, usize::MAX).await? {
            let Ok(fan) = root.join(&fan.name) else { continue };
            for child in store.children(&fan, None, usize::MAX).await? {
                let marked =
                    Digest::from_hex(&child.name).is_ok_and(|digest| marked.contains(&digest));
                let Ok(key) = fan.join(&child.name) else { continue };
                if marked {
                    continue;
                }
                let alone = self.layout().collecting().await;
                if let Some(size) = self.layout().remove_if_older(&alone, &key, before).await? {
                    collected.blobs += 1;
                    collected.bytes += size;
                }
            }
        }
        Ok(())
    }
}
