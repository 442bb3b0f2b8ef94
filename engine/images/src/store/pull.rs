//! Pulling an image: manifest, configuration, layers in parallel, then the name.
//!
//! Nothing is shown before all is here and checked. A pull that is dropped or fails leaves whole layers
//! and the beginnings of others, noted as pending; the next pull of the same image goes on from there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{StreamExt, TryStreamExt, stream};
use minke_common_model::digest::Digest;
use minke_common_model::image_reference::ImageReference;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::config::ImageConfig;
use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::layer::{self, LayerError, Unpacked, VIEW};
use crate::options::{Platform, PullOptions};
use crate::progress::{ProgressEvent, Sink, short_id};
use crate::registry::{
    Access, Descriptor, Endpoint, ManifestDocument, RegistryError, Session, endpoints,
};
use crate::registry::{Document, Fetched};
use crate::store::inflated::{Inflated, ReadAhead};
use crate::store::info::BlobInfo;
use crate::store::inner::{Busy, Hold, Inner};
use crate::store::keeper::{Came, Coming, Partial, forget, keep};
use crate::store::pending::{self, Pending, PendingGuard, forget_pull};
use crate::store::room::Wanted;
use crate::store::settle::Settling;
use crate::store::{Store, blocking};

/// Layers in work at once: what bounds the memory of a pull.
const PARALLEL: usize = 3;
/// Pieces of a download that wait for the unpacker.
const PIECES: usize = 8;
/// Tries on a mirror before the registry itself is asked.
const MIRROR_ATTEMPTS: u32 = 2;

/// What a pulled image is called: the reference that was asked for, and its manifest's digest.
struct Names {
    reference: ImageReference,
    top: Digest,
    /// It was asked for without credentials.
    anybody: bool,
}

/// What keeps a pull's layers and beginnings of layers from being collected.
struct Kept {
    _hold: Hold,
    _guard: Option<PendingGuard>,
    /// Where that is written down.
    note: PathBuf,
}

/// What a thread that unpacks a layer owns: it may outlive the future that started it, and until it has
/// ended nobody else may touch what is on disk of the layer.
struct Owned {
    _busy: Busy,
    /// Taken last: who waits for a layer keeps nobody else from one.
    _right: OwnedSemaphorePermit,
    kept: Arc<Kept>,
}

/// A layer to be there.
struct LayerJob {
    blob: Descriptor,
    layer: DiffId,
    name: String,
}

impl Store {
    /// Brings an image here, whole or not at all. Dropping the future gives it up.
    ///
    /// Progress comes from several threads, in Docker's words.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: impl Fn(ProgressEvent) + Send + Sync + 'static,
    ) -> Result<ImageId, Error> {
        let sink: Sink = Arc::new(progress);
        let reference = reference.with_default_tag();
        let (session, fetched) = self.find(&reference, options).await?;
        let opening = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or_default().to_owned(),
        };
        let from = format!("Pulling from {}", reference.repository());
        sink(ProgressEvent::of(opening, from));
        let top = fetched.digest;
        let manifest = self.manifest(&session, &reference, fetched, options).await?;
        let (id, bytes, config) = self.config(&session, &manifest, options).await?;
        let jobs = jobs(&manifest, &config, &reference)?;
        let hold = self.inner.hold(&config.rootfs.diff_ids);
        let pending = Pending {
            layers: config.rootfs.diff_ids.clone(),
            blobs: manifest.layers.iter().map(|blob| blob.digest).collect(),
        };
        let wanted = self.inner.wanted(&jobs);
        let missing = !wanted.is_empty();
        let guard = match missing {
            true => {
                let (inner, name) = (Arc::clone(&self.inner), reference.familiar());
                let begun = blocking(move || {
                    inner.check_room(&name, &wanted)?;
                    pending.begin(&inner, id.0)
                });
                Some(begun.await?)
            }
            false => None,
        };
        let kept =
            Arc::new(Kept { _hold: hold, _guard: guard, note: pending::path(&self.inner, &id.0) });
        for job in jobs.iter().filter(|job| !self.inner.has_layer(&job.layer)) {
            sink(ProgressEvent::of(short_id(&job.blob.digest), "Pulling fs layer"));
        }
        // Collected first: a lazy closure here makes the whole future un-`Send` in the eyes of rustc.
        let layers: Vec<_> =
            jobs.iter().map(|job| self.layer(&session, job, &kept, &sink)).collect();
        stream::iter(layers).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        let known = self.is_named(&reference, &id) && !missing;
        let anybody = options.auth.is_none();
        let names = Names { reference: reference.clone(), top, anybody };
        self.name_pulled(names, id, bytes, config, kept).await?;
        sink(ProgressEvent::message(format!("Digest: {top}")));
        let outcome = if known { "Image is up to date" } else { "Downloaded newer image" };
        sink(ProgressEvent::message(format!("Status: {outcome} for {}", reference.familiar())));
        Ok(id)
    }

    /// The first place that has the reference.
    pub(crate) async fn find(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<(Session, Fetched), Error> {
        let mut tried = Vec::new();
        for endpoint in endpoints(reference, &options.mirrors, &options.insecure) {
            let found = async {
                let mut session = self.session(reference, &endpoint, options)?;
                let fetched = session.document(reference).await?;
                // It has the image: from here on failures are waited out.
                session.patience = options.patience;
                Ok((session, fetched))
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) if endpoint.is_mirror || is_unreachable(&error) => {
                    tracing::debug!(base = endpoint.base, %error, "asking the next place");
                    tried.push((endpoint.base, error));
                }
                Err(error) if tried.iter().all(|(_, error)| is_unreachable(error)) => {
                    return Err(error.into());
                }
                Err(error) => tried.push((endpoint.base, error)),
            }
        }
        Err(match tried.len() {
            1 => tried.remove(0).1.into(),
            _ => RegistryError::Nowhere(tried).into(),
        })
    }

    pub(crate) fn session(
        &self,
        reference: &ImageReference,
        endpoint: &Endpoint,
        options: &PullOptions,
    ) -> Result<Session, RegistryError> {
        let mut patience = options.patience;
        if endpoint.is_mirror {
            patience.attempts = patience.attempts.min(MIRROR_ATTEMPTS);
        }
        if endpoint.any_certificate && endpoint.base.starts_with("https:") {
            // Whether TLS is spoken shows at the first try; without is next.
            patience.attempts = 1;
        }
        let (clients, auth) = (&self.inner.clients, options.auth.as_ref());
        Session::new(clients, endpoint, reference.repository(), auth, Access::Pull, patience)
    }

    /// The manifest itself, through an index if need be.
    async fn manifest(
        &self,
        session: &Session,
        reference: &ImageReference,
        fetched: Fetched,
        options: &PullOptions,
    ) -> Result<ManifestDocument, Error> {
        let index = match fetched.document {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => index,
        };
        let wanted = options.platform.clone().unwrap_or_else(Platform::host);
        let Some(chosen) = index.select(&wanted) else {
            let (wanted, offered) = (wanted.to_string(), index.offered());
            return Err(Error::Platform { wanted, offered });
        };
        let by_digest = reference.with_digest(chosen.digest);
        match session.document(&by_digest).await?.document {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(RegistryError::Document {
                what: format!("manifest {}", chosen.digest),
                why: "it is an index inside an index".to_owned(),
            }
            .into()),
        }
    }

    async fn config(
        &self,
        session: &Session,
        manifest: &ManifestDocument,
        options: &PullOptions,
    ) -> Result<(ImageId, Vec<u8>, ImageConfig), Error> {
        let digest = manifest.config.digest;
        let bytes = match self.config_bytes(&ImageId(digest)) {
            Ok(bytes) => bytes,
            Err(_) => session.small_blob(&manifest.config).await?,
        };
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Config { id: digest, why: error.to_string() })?;
        if let Some(wanted) = &options.platform {
            let fits = wanted.os == config.os && wanted.architecture == config.architecture;
            if !fits {
                let offered = format!("{}/{}", config.os, config.architecture);
                return Err(Error::Platform { wanted: wanted.to_string(), offered });
            }
        }
        Ok((ImageId(Digest::of(&bytes)), bytes, config))
    }

    async fn layer(
        &self,
        session: &Session,
        job: &LayerJob,
        kept: &Arc<Kept>,
        sink: &Sink,
    ) -> Result<(), Error> {
        let short = short_id(&job.blob.digest);
        let busy = self.inner.busy(&job.layer).await;
        let blob = BlobInfo {
            digest: job.blob.digest,
            size: job.blob.size,
            media_type: job.blob.media_type.clone(),
            sources: vec![job.name.clone()],
        };
        if self.inner.has_layer(&job.layer) {
            let (inner, layer) = (Arc::clone(&self.inner), job.layer);
            let kept = Arc::clone(kept);
            blocking(move || {
                inner.remember_blob(&layer, &blob);
                drop((busy, kept));
                Ok(())
            })
            .await?;
            sink(ProgressEvent::of(short, "Already exists"));
            return Ok(());
        }
        let right = Arc::clone(&self.inner.unpackers).acquire_owned().await.map_err(|closed| {
            Error::io("unpacking into", &self.inner.dir, std::io::Error::other(closed))
        })?;
        let owned = Arc::new(Owned { _busy: busy, _right: right, kept: Arc::clone(kept) });
        let mut fresh = false;
        loop {
            match self.fetch(session, job, blob.clone(), sink, &owned).await {
                Ok(()) => break,
                // What an earlier try left may be spoiled: once more from the beginning.
                Err((error, true)) if !fresh => {
                    tracing::info!(blob = %job.blob.digest, %error, "fetching again from the start");
                    fresh = true;
                }
                Err((error, _)) => return Err(error),
            }
        }
        sink(ProgressEvent::of(short, "Pull complete"));
        Ok(())
    }

    /// Downloads and unpacks at the same time. An error says whether bytes of an earlier try were used
    /// and are gone now.
    async fn fetch(
        &self,
        session: &Session,
        job: &LayerJob,
        blob: BlobInfo,
        sink: &Sink,
        owned: &Arc<Owned>,
    ) -> Result<(), (Error, bool)> {
        let path = self.inner.sub("partial").join(job.blob.digest.hex());
        let size = job.blob.size;
        let limit = self.inner.options.limits.bytes;
        if size > limit {
            let what = format!("blob {}", job.blob.digest);
            return Err((RegistryError::TooLong { what, limit }.into(), false));
        }
        let opening = Arc::clone(owned);
        let opened = blocking(move || {
            let opened = Partial::open(&path, size);
            drop(opening);
            opened.map_err(|error| Error::io("opening", &path, error))
        });
        let partial = opened.await.map_err(|error| (error, false))?;
        let from = partial.length;
        let (sender, pieces) = mpsc::channel(PIECES);
        let (id, sink) = (short_id(&job.blob.digest), Arc::clone(sink));
        let settling = Settling::new(Arc::clone(&self.inner), owned.kept.note.clone());
        let coming = Coming { partial, pieces, size, id, sink, settling };
        let (inner, layer) = (Arc::clone(&self.inner), job.layer);
        let (failed, has_failed) = oneshot::channel();
        let owned = Arc::clone(owned);
        let unpacking = blocking(move || {
            let unpacked = inner.unpack_blob(coming, layer, &blob, failed);
            drop(owned);
            unpacked
        });
        let downloading = async {
            // Both arms may be dropped: the blob's bytes are on disk as far as they came.
            tokio::select! {
                done = session.blob(&job.blob, from, sender) => done,
                Ok(()) = has_failed => Ok(()),
            }
        };
        match tokio::join!(downloading, unpacking) {
            (_, Ok(())) => Ok(()),
            (Err(error), Err(_)) => Err((error.into(), false)),
            (Ok(()), Err(error)) => Err((error, from > 0)),
        }
    }

    fn is_named(&self, reference: &ImageReference, id: &ImageId) -> bool {
        self.inner.state().index.named(reference) == Some(id)
    }

    /// Shows the image. What kept its layers until now is let go when it is shown, also if nobody
    /// waits for that any more.
    async fn name_pulled(
        &self,
        Names { reference, top, anybody }: Names,
        id: ImageId,
        bytes: Vec<u8>,
        config: ImageConfig,
        kept: Arc<Kept>,
    ) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.install_image(id, &bytes, Arc::new(config), |index| {
                let by_digest = reference.with_digest(top);
                index.note_who(&by_digest, &id, anybody);
                index.digests.insert(by_digest, id);
                if reference.digest().is_none() {
                    index.note_who(&reference, &id, anybody);
                }
                // A name with a digest is not moved by what a tag means today.
                if reference.digest().is_none() && index.tags.get(&reference) != Some(&id) {
                    if let Some(record) = index.images.get_mut(&id) {
                        record.last_tagged = now();
                    }
                    index.tags.insert(reference, id);
                }
            })?;
            drop(kept);
            // Also the note of an earlier try that left no layer to fetch.
            forget_pull(&inner, &id.0);
            Ok(())
        })
        .await
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn is_unreachable(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Transport { .. } | RegistryError::Stalled { .. })
}

fn jobs(
    manifest: &ManifestDocument,
    config: &ImageConfig,
    reference: &ImageReference,
) -> Result<Vec<LayerJob>, Error> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let (manifest, config) = (manifest.layers.len(), diff_ids.len());
        return Err(Error::LayerCount { manifest, config });
    }
    let pairs = manifest.layers.iter().zip(diff_ids);
    Ok(pairs
        .map(|(blob, layer)| LayerJob { blob: blob.clone(), layer: *layer, name: reference.name() })
        .collect())
}

impl Inner {
    /// What the layers that are not here will take, each once.
    fn wanted(&self, jobs: &[LayerJob]) -> Vec<Wanted> {
        let missing = jobs.iter().filter(|job| !self.has_layer(&job.layer));
        let sizes: HashMap<DiffId, &Descriptor> =
            missing.map(|job| (job.layer, &job.blob)).collect();
        let here = |blob: &Descriptor| {
            let path = self.sub("partial").join(blob.digest.hex());
            std::fs::metadata(path).map_or(0, |found| found.len().min(blob.size))
        };
        sizes.values().map(|blob| Wanted { size: blob.size, here: here(blob) }).collect()
    }

    /// Unpacks what comes and commits it if every digest is right. Blocking; `failed` is told when no
    /// more bytes are wanted.
    ///
    /// The bytes kept for resume go when they are of no use: the layer is whole, or they are wrong, or the
    /// disk is full.
    fn unpack_blob(
        &self,
        coming: Coming,
        layer: DiffId,
        blob: &BlobInfo,
        failed: oneshot::Sender<()>,
    ) -> Result<(), Error> {
        let of_layer = |source| Error::Layer { layer: blob.digest, source: Box::new(source) };
        let path = coming.partial.path.clone();
        let (id, sink) = (coming.id.clone(), Arc::clone(&coming.sink));
        let opening = |error| Error::io("keeping", &path, error);
        let staging = self.staging()?;
        let (keeping, follower) = keep(coming).map_err(opening)?;
        let inflate = move || Ok(Box::new(Inflated::new(follower)?) as Box<dyn std::io::Read>);
        let unpacked = match ReadAhead::start(inflate) {
            Ok(tar) => layer::unpack(tar, &staging.path, &self.options.limits)
                .map(|(unpacked, _)| unpacked)
                .map_err(of_layer),
            Err(error) => Err(Error::io("unpacking", &path, error)),
        };
        if unpacked.is_err() {
            let _ = failed.send(());
        }
        // Cut short by the network or by being given up: the rest can still come.
        let came = keeping.finish();
        let is_short = came.is_short;
        let is_full = came.failure.is_some();
        let result = unpacked.and_then(|Unpacked { footer, large }| {
            check_digests(&came, blob, &footer, layer)?;
            self.ledger.wrote(came.length);
            sink(ProgressEvent::at(&*id, "Extracting", blob.size, blob.size));
            let keep_blob = self.options.keep_blobs;
            let whole = || match keep_blob {
                true => std::fs::rename(&path, self.blob_path(&blob.digest)),
                false => std::fs::remove_file(&path),
            };
            let layer = self.commit(staging, &footer, Some(blob), whole)?;
            // Written and whole: who runs meanwhile has more use for the memory.
            large.forget(&self.layer_dir(&layer).join(VIEW));
            Ok(layer)
        });
        if let Err(error) = &result
            && (!is_short || is_full || error.is_no_space())
        {
            forget(&path);
        }
        match (result, came.failure) {
            (Err(_), Some(failure)) => Err(Error::io("keeping", &path, failure)),
            (result, _) => result.map(|_| ()),
        }
    }
}

fn check_digests(
    came: &Came,
    blob: &BlobInfo,
    footer: &layer::Footer,
    layer: DiffId,
) -> Result<(), Error> {
    if came.digest != blob.digest {
        let what = format!("blob {}", blob.digest);
        let (expected, found) = (blob.digest, came.digest);
        return Err(RegistryError::Digest { what, expected, found }.into());
    }
    if footer.diff_id != layer {
        let source = Box::new(LayerError::Digest { found: footer.diff_id.0 });
        return Err(Error::Layer { layer: blob.digest, source });
    }
    Ok(())
}
