//! Where a registry keeps what in its blob store.
//!
//! ```text
//!   blobs/sha256/<2 hex>/<64 hex>                      bytes: layers, configs, manifests
//!   repositories/<name>/_layers/<hex>                  this repository has that blob
//!   repositories/<name>/_manifests/<hex>               … that manifest; content: media type
//!   repositories/<name>/_tags/<tag>                    content: digest
//!   repositories/<name>/_referrers/<subject>/<hex>     content: descriptor
//! ```
//!
//! A part of a repository's name never begins with `_`, so names cannot meet these words.
//! Names are limited to 255 characters, digests and tags are plain, so every key is valid.

use std::time::SystemTime;

use bytes::Bytes;
use minke_cloud_blobs::{BlobError, Digest, Key, Meta, Result, StageId, Store};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::path::{Repository, Tag};

/// A link's content is a media type, a digest or a small descriptor.
const MAX_LINK: u64 = 64 * 1024;

pub(crate) struct Layout {
    pub(crate) store: Store,
    gate: RwLock<()>,
}

/// What a push holds while it makes something referenced; a collector waits for it.
pub(crate) type Pushing<'a> = RwLockReadGuard<'a, ()>;
/// What the collector holds while it removes; pushes wait for it.
pub(crate) type Collecting<'a> = RwLockWriteGuard<'a, ()>;

fn key(text: String) -> Key {
    Key::new(text).expect("checked names, tags and digests make valid keys")
}

pub(crate) fn blob_key(digest: &Digest) -> Key {
    let hex = digest.hex();
    key(format!("blobs/sha256/{}/{hex}", &hex[..2]))
}

pub(crate) fn repository_key(name: &Repository) -> Key {
    key(format!("repositories/{name}"))
}

pub(crate) fn layers_key(name: &Repository) -> Key {
    key(format!("repositories/{name}/_layers"))
}

pub(crate) fn manifests_key(name: &Repository) -> Key {
    key(format!("repositories/{name}/_manifests"))
}

pub(crate) fn tags_key(name: &Repository) -> Key {
    key(format!("repositories/{name}/_tags"))
}

pub(crate) fn referrers_key(name: &Repository, subject: &Digest) -> Key {
    key(format!("repositories/{name}/_referrers/{}", subject.hex()))
}

fn layer_key(name: &Repository, digest: &Digest) -> Key {
    key(format!("{}/{}", layers_key(name), digest.hex()))
}

fn manifest_key(name: &Repository, digest: &Digest) -> Key {
    key(format!("{}/{}", manifests_key(name), digest.hex()))
}

fn tag_key(name: &Repository, tag: &Tag) -> Key {
    key(format!("{}/{}", tags_key(name), tag.as_str()))
}

fn referrer_key(name: &Repository, subject: &Digest, referrer: &Digest) -> Key {
    key(format!("{}/{}", referrers_key(name, subject), referrer.hex()))
}

impl Layout {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, gate: RwLock::new(()) }
    }

    pub(crate) async fn pushing(&self) -> Pushing<'_> {
        self.gate.read().await
    }

    pub(crate) async fn collecting(&self) -> Collecting<'_> {
        self.gate.write().await
    }

    /// The blob, when `name` has it and its bytes are here.
    pub(crate) async fn layer(&self, name: &Repository, digest: &Digest) -> Result<Option<Meta>> {
        if self.store.head(&layer_key(name, digest)).await?.is_none() {
            return Ok(None);
        }
        self.store.head(&blob_key(digest)).await
    }

    /// As [`Layout::layer`], and keeps both link and bytes from being collected for a while.
    pub(crate) async fn hold_layer(
        &self,
        _held: &Pushing<'_>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<Option<Meta>> {
        let linked = self.store.touch(&layer_key(name, digest)).await?;
        if !linked || !self.store.touch(&blob_key(digest)).await? {
            return Ok(None);
        }
        self.store.head(&blob_key(digest)).await
    }

    /// Shows a blob in `name`. Its bytes must be here already.
    pub(crate) async fn link_layer(
        &self,
        _held: &Pushing<'_>,
        name: &Repository,
        digest: &Digest,
    ) -> Result<()> {
        self.store.put(&layer_key(name, digest), Bytes::new()).await
    }

    pub(crate) async fn unlink_layer(&self, name: &Repository, digest: &Digest) -> Result<bool> {
        self.store.delete(&layer_key(name, digest)).await
    }

    /// Verifies an upload and shows it in `name`.
    pub(crate) async fn publish_layer(
        &self,
        name: &Repository,
        id: &StageId,
        digest: &Digest,
    ) -> Result<()> {
        let held = self.pushing().await;
        self.store.publish(id, &blob_key(digest), digest).await?;
        self.link_layer(&held, name, digest).await
    }

    /// The media type of a manifest that `name` has.
    pub(crate) async fn manifest_type(
        &self,
        name: &Repository,
        digest: &Digest,
    ) -> Result<Option<String>> {
        self.small(&manifest_key(name, digest)).await
    }

    pub(crate) async fn put_manifest(
        &self,
        _held: &Pushing<'_>,
        name: &Repository,
        digest: &Digest,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<()> {
        self.store.put(&blob_key(digest), bytes).await?;
        let media_type = Bytes::copy_from_slice(media_type.as_bytes());
        self.store.put(&manifest_key(name, digest), media_type).await
    }

    pub(crate) async fn delete_manifest(&self, name: &Repository, digest: &Digest) -> Result<bool> {
        self.store.delete(&manifest_key(name, digest)).await
    }

    /// The manifest that `tag` points to; the link may point to a deleted one.
    pub(crate) async fn tagged(&self, name: &Repository, tag: &Tag) -> Result<Option<Digest>> {
        Ok(self.small(&tag_key(name, tag)).await?.and_then(|text| text.parse().ok()))
    }

    pub(crate) async fn put_tag(
        &self,
        _held: &Pushing<'_>,
        name: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<()> {
        self.store.put(&tag_key(name, tag), Bytes::from(digest.to_string())).await
    }

    pub(crate) async fn delete_tag(&self, name: &Repository, tag: &Tag) -> Result<bool> {
        self.store.delete(&tag_key(name, tag)).await
    }

    pub(crate) async fn put_referrer(
        &self,
        _held: &Pushing<'_>,
        name: &Repository,
        (subject, referrer): (&Digest, &Digest),
        descriptor: Bytes,
    ) -> Result<()> {
        self.store.put(&referrer_key(name, subject, referrer), descriptor).await
    }

    pub(crate) async fn referrer(
        &self,
        name: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<Option<Bytes>> {
        self.store.get(&referrer_key(name, subject, referrer), MAX_LINK).await
    }

    pub(crate) async fn delete_referrer(
        &self,
        name: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool> {
        self.store.delete(&referrer_key(name, subject, referrer)).await
    }

    /// Whether anything was ever pushed to `name`.
    pub(crate) async fn exists(&self, name: &Repository) -> Result<bool> {
        let children = self.store.children(&repository_key(name), None, usize::MAX).await?;
        Ok(children.iter().any(|child| child.name.starts_with('_')))
    }

    pub(crate) async fn delete_repository(&self, name: &Repository) -> Result<()> {
        let _alone = self.collecting().await;
        for part in [layers_key(name), manifests_key(name), tags_key(name)] {
            self.store.delete_all(&part).await?;
        }
        self.store.delete_all(&key(format!("repositories/{name}/_referrers"))).await
    }

    /// Removes a blob's bytes unless somebody published or touched it since `before`.
    pub(crate) async fn remove_if_older(
        &self,
        _alone: &Collecting<'_>,
        key: &Key,
        before: SystemTime,
    ) -> Result<Option<u64>> {
        match self.store.head(key).await? {
            Some(meta) if meta.modified < before => {
                self.store.delete(key).await?;
                Ok(Some(meta.size))
            }
            _ => Ok(None),
        }
    }

    async fn small(&self, key: &Key) -> Result<Option<String>> {
        let bytes = self.store.get(key, MAX_LINK).await?;
        bytes
            .map(|bytes| {
                String::from_utf8(bytes.into()).map_err(|error| BlobError::Io {
                    doing: "read the link",
                    what: key.to_string(),
                    cause: std::io::Error::other(error),
                })
            })
            .transpose()
    }
}
