//! Pushing an image: each layer by the cheapest way there is, then configuration and manifest.
//!
//! Cheapest first: the registry has the blob in this repository; it has it in another one that it was seen
//! in and takes it over; the kept gzip form is sent; the layer is rebuilt and compressed while it is sent.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use minke_common_model::digest::Digest;
use minke_common_model::image_reference::ImageReference;

use crate::error::Error;
use crate::ids::DiffId;
use crate::layer::Rebuilt;
use crate::options::{PushOptions, Pushed};
use crate::progress::{ProgressEvent, Sink, short_id};
use crate::registry::{
    Access, Descriptor, ManifestDocument, Mounted, RegistryError, Session, UploadSource, endpoints,
    media,
};
use crate::store::info::BlobInfo;
use crate::store::{Store, blocking};

/// Like the gzip form of layers made here.
const LEVEL: u32 = 5;
const EVERY: Duration = Duration::from_millis(100);

impl Store {
    /// Sends an image that has this name. Progress is in Docker's words.
    pub async fn push(
        &self,
        reference: &ImageReference,
        options: &PushOptions,
        progress: impl Fn(ProgressEvent) + Send + Sync + 'static,
    ) -> Result<Pushed, Error> {
        let sink: Sink = Arc::new(progress);
        let reference = reference.with_default_tag();
        let image = self.image(&reference.to_string())?;
        let tag = reference
            .tag()
            .ok_or_else(|| Error::Invalid("cannot push a digest reference".to_owned()))?;
        sink(ProgressEvent::message(format!(
            "The push refers to repository [{}]",
            reference.name()
        )));
        let session = self.push_session(&reference, options).await?;
        let layers = image.layers().to_vec();
        let _hold = self.inner.hold(&layers);
        for layer in &layers {
            sink(ProgressEvent::of(short_id(&layer.0), "Preparing"));
        }
        let mut blobs = Vec::new();
        for layer in &layers {
            blobs.push(self.push_layer(&session, &reference, layer, &sink).await?);
        }
        let bytes = self.config_bytes(&image.id)?;
        let config = Descriptor {
            media_type: media::DOCKER_CONFIG.to_owned(),
            size: bytes.len() as u64,
            digest: image.id.0,
            urls: Vec::new(),
            annotations: Default::default(),
        };
        if !session.has_blob(&config.digest).await? {
            let source: UploadSource = Box::new(io::Cursor::new(bytes));
            session.upload(None, source, &Arc::default()).await?;
        }
        let (media_type, manifest) = manifest(config, &blobs)?;
        session.put_manifest(tag, media_type, &manifest).await?;
        let digest = Digest::of(&manifest);
        self.name_pushed(&reference, &image.id, digest).await?;
        let manifest_size = manifest.len() as u64;
        sink(ProgressEvent::message(format!("{tag}: digest: {digest} size: {manifest_size}")));
        Ok(Pushed { reference: reference.with_digest(digest), manifest_size })
    }

    /// The first endpoint that speaks the protocol.
    async fn push_session(
        &self,
        reference: &ImageReference,
        options: &PushOptions,
    ) -> Result<Session, Error> {
        let mut last = None;
        for endpoint in endpoints(reference, &[], &options.insecure) {
            let (clients, auth) = (&self.inner.clients, options.auth.as_ref());
            let mut patience = options.patience;
            // Whether TLS is spoken shows at the first try.
            patience.attempts = 1;
            let probe = Session::new(
                clients,
                &endpoint,
                reference.repository(),
                auth,
                Access::Push,
                patience,
            )?;
            match probe.has_blob(&Digest::of(b"")).await {
                Ok(_) => {
                    return Ok(Session::new(
                        clients,
                        &endpoint,
                        reference.repository(),
                        auth,
                        Access::Push,
                        options.patience,
                    )?);
                }
                Err(error @ (RegistryError::Denied { .. } | RegistryError::Challenge(_))) => {
                    return Err(error.into());
                }
                Err(error) => last = Some(error),
            }
        }
        let none = || RegistryError::Nowhere(Vec::new());
        Err(last.unwrap_or_else(none).into())
    }

    async fn push_layer(
        &self,
        session: &Session,
        reference: &ImageReference,
        layer: &DiffId,
        sink: &Sink,
    ) -> Result<BlobInfo, Error> {
        let _busy = self.inner.busy(layer).await;
        let short = short_id(&layer.0);
        let known = {
            let state = self.inner.state();
            let known = state.layers.get(layer).filter(|known| !known.broken);
            known.ok_or(Error::MissingLayer(*layer))?.info.blobs.clone()
        };
        for blob in known.iter().rev() {
            if session.has_blob(&blob.digest).await? {
                sink(ProgressEvent::of(&*short, "Layer already exists"));
                return self.pushed(reference, layer, blob.clone()).await;
            }
        }
        let mut open = None;
        for (blob, repository) in mountable(&known, reference) {
            match session.mount(&blob.digest, &repository).await? {
                Mounted::Yes => {
                    sink(ProgressEvent::of(&*short, format!("Mounted from {repository}")));
                    return self.pushed(reference, layer, blob.clone()).await;
                }
                Mounted::No(location) => open = location.or(open),
            }
        }
        let (source, size) = self.blob_source(layer, &known)?;
        let sent = Arc::new(AtomicU64::new(0));
        let uploading = session.upload(open, source, &sent);
        let (digest, size) = tell(uploading, &sent, size, &short, sink).await?;
        sink(ProgressEvent::of(&*short, "Pushed"));
        let same = known.iter().find(|blob| blob.digest == digest);
        let media_type =
            same.map_or(media::DOCKER_LAYER.to_owned(), |blob| blob.media_type.clone());
        self.pushed(reference, layer, BlobInfo { digest, size, media_type, sources: Vec::new() })
            .await
    }

    /// The compressed bytes of a layer and about how many they are.
    fn blob_source(
        &self,
        layer: &DiffId,
        known: &[BlobInfo],
    ) -> Result<(UploadSource, u64), Error> {
        for blob in known.iter().rev() {
            let path = self.inner.blob_path(&blob.digest);
            if let Ok(file) = std::fs::File::open(&path) {
                return Ok((Box::new(file), blob.size));
            }
        }
        let failed = |source| Error::Layer { layer: layer.0, source: Box::new(source) };
        let mut tar = Rebuilt::open(&self.inner.layer_dir(layer)).map_err(failed)?;
        let size = tar.footer().tar_bytes;
        let (reader, writer) = io::pipe().map_err(|e| Error::io("opening", "a pipe", e))?;
        let compressing = std::thread::spawn(move || {
            let mut encoder = GzEncoder::new(writer, Compression::new(LEVEL));
            io::copy(&mut tar, &mut encoder)?;
            encoder.finish()?.flush()
        });
        Ok((Box::new(Compressing { reader, thread: Some(compressing) }), size))
    }

    async fn pushed(
        &self,
        reference: &ImageReference,
        layer: &DiffId,
        mut blob: BlobInfo,
    ) -> Result<BlobInfo, Error> {
        blob.sources = vec![reference.name()];
        let (inner, layer, remembered) = (Arc::clone(&self.inner), *layer, blob.clone());
        blocking(move || {
            inner.remember_blob(&layer, &remembered);
            Ok(())
        })
        .await?;
        Ok(blob)
    }

    async fn name_pushed(
        &self,
        reference: &ImageReference,
        id: &crate::ids::ImageId,
        digest: Digest,
    ) -> Result<(), Error> {
        let (inner, id, name) = (Arc::clone(&self.inner), *id, reference.with_digest(digest));
        blocking(move || {
            inner.change_index(|index| {
                if index.images.contains_key(&id) {
                    index.note_who(&name, &id, false);
                    index.digests.insert(name, id);
                }
                Ok(())
            })
        })
        .await
    }
}

/// Blobs that another repository of the same registry was seen to have.
fn mountable<'a>(
    known: &'a [BlobInfo],
    reference: &ImageReference,
) -> impl Iterator<Item = (&'a BlobInfo, String)> {
    let prefix = format!("{}/", reference.registry());
    let own = reference.repository().to_owned();
    known.iter().rev().flat_map(move |blob| {
        let (prefix, own) = (prefix.clone(), own.clone());
        blob.sources
            .iter()
            .rev()
            .filter_map(move |source| source.strip_prefix(&prefix).map(str::to_owned))
            .filter(move |repository| *repository != own)
            .map(move |repository| (blob, repository))
    })
}

fn manifest(config: Descriptor, blobs: &[BlobInfo]) -> Result<(&'static str, Vec<u8>), Error> {
    // Docker's manifest has no name for other compressions than gzip.
    let is_oci = blobs.iter().any(|blob| blob.media_type.ends_with("+zstd"));
    let (media_type, config_type) = match is_oci {
        true => (media::OCI_MANIFEST, "application/vnd.oci.image.config.v1+json"),
        false => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
    };
    let layer_type = |blob: &BlobInfo| match (is_oci, blob.media_type.as_str()) {
        (true, named) if named.ends_with("+zstd") => named.to_owned(),
        (true, named) if named.ends_with(".tar") => "application/vnd.oci.image.layer.v1.tar".into(),
        (true, _) => "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        (false, named) if named.ends_with(".tar") => {
            "application/vnd.docker.image.rootfs.diff.tar".to_owned()
        }
        (false, _) => media::DOCKER_LAYER.to_owned(),
    };
    let layers = blobs.iter().map(|blob| Descriptor {
        media_type: layer_type(blob),
        size: blob.size,
        digest: blob.digest,
        urls: Vec::new(),
        annotations: Default::default(),
    });
    let document = ManifestDocument {
        schema_version: 2,
        media_type: Some(media_type.to_owned()),
        config: Descriptor { media_type: config_type.to_owned(), ..config },
        layers: layers.collect(),
    };
    let bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| Error::Invalid(format!("writing the manifest: {error}")))?;
    Ok((media_type, bytes))
}

/// Waits for an upload and tells how far it is.
async fn tell<T>(
    uploading: impl Future<Output = Result<T, RegistryError>>,
    sent: &AtomicU64,
    size: u64,
    short: &str,
    sink: &Sink,
) -> Result<T, RegistryError> {
    let mut uploading = std::pin::pin!(uploading);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        // Both arms may be dropped half-way: the upload is pinned outside, a tick is only a tick.
        tokio::select! {
            done = &mut uploading => return done,
            _ = ticks.tick() => {
                let sent = sent.load(Ordering::Relaxed);
                sink(ProgressEvent::at(short, "Pushing", sent.min(size), size));
            }
        }
    }
}

/// The gzip form of a layer while it is made; ends with the error of its making.
struct Compressing {
    reader: io::PipeReader,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Read for Compressing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        if read > 0 || into.is_empty() {
            return Ok(read);
        }
        match self.thread.take().map(std::thread::JoinHandle::join) {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(io::Error::other("compressing panicked")),
            _ => Ok(0),
        }
    }
}
