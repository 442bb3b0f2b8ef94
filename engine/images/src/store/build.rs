//! Layers and images that are made here.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use minke_common_model::digest::{Digest, Hasher};

use crate::config::ImageConfig;
use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::layer::{self, LayerError};
use crate::registry::media;
use crate::store::info::BlobInfo;
use crate::store::inner::{Hold, Inner, remove_tree};
use crate::store::{Store, blocking};

/// Much of gzip's best at a third of its time.
const LEVEL: u32 = 5;

/// A layer made here; the store keeps it at least as long as this value or an image of it lives.
pub struct CommittedLayer {
    /// What to put into the configuration.
    pub diff_id: DiffId,
    /// Bytes of its files.
    pub size: u64,
    /// The directory held nothing: images can do without this layer.
    pub is_empty: bool,
    _hold: Hold,
}

impl CommittedLayer {
    /// A layer that is kept even if it holds nothing.
    pub(crate) fn whole((diff_id, size, hold): (DiffId, u64, Hold)) -> Self {
        Self { diff_id, size, is_empty: false, _hold: hold }
    }
}

impl Store {
    /// Makes a layer of the upper directory of an overlay, which must not change meanwhile.
    pub async fn commit_layer(&self, upper: &Path) -> Result<CommittedLayer, Error> {
        self.commit_layer_without(upper, BTreeSet::new()).await
    }

    /// The same without some paths (relative to `upper`) and all below them.
    pub async fn commit_layer_without(
        &self,
        upper: &Path,
        without: BTreeSet<PathBuf>,
    ) -> Result<CommittedLayer, Error> {
        let (inner, upper) = (Arc::clone(&self.inner), upper.to_owned());
        blocking(move || inner.pack_layer(&upper, without)).await
    }

    /// Makes an image of layers that are here. Its id is the digest of `config` as it is written here.
    pub async fn create_image(
        &self,
        config: &ImageConfig,
        parent: Option<ImageId>,
    ) -> Result<ImageId, Error> {
        // Held before they are looked for: a collection in between would take them away.
        let hold = self.inner.hold(&config.rootfs.diff_ids);
        for layer in &config.rootfs.diff_ids {
            if !self.inner.has_layer(layer) {
                return Err(Error::MissingLayer(*layer));
            }
        }
        let (inner, config) = (Arc::clone(&self.inner), Arc::new(config.clone()));
        let made = blocking(move || {
            let bytes = serde_json::to_vec(&*config)
                .map_err(|error| Error::io("writing", inner.sub("images"), error.into()))?;
            let id = ImageId(Digest::of(&bytes));
            inner.install_image(id, &bytes, config, |index| {
                let known = parent.filter(|parent| *parent != id);
                if let (Some(parent), Some(record)) = (known, index.images.get_mut(&id)) {
                    record.parent.get_or_insert(parent);
                }
            })?;
            drop(hold);
            Ok(id)
        });
        made.await
    }
}

impl Inner {
    fn pack_layer(
        self: &Arc<Self>,
        upper: &Path,
        without: BTreeSet<PathBuf>,
    ) -> Result<CommittedLayer, Error> {
        let failed = |source| Error::Pack { path: upper.to_owned(), source: Box::new(source) };
        let limits = self.options.limits;
        let (reader, writer) = io::pipe().map_err(|source| {
            failed(LayerError::Io { doing: "opening", path: "a pipe".into(), source })
        })?;
        let from = upper.to_owned();
        let packing = std::thread::spawn(move || {
            let writer = io::BufWriter::with_capacity(64 << 10, writer);
            layer::pack_without(&from, writer, &limits, &without)
        });
        let stored =
            self.store_tar(BufReader::with_capacity(64 << 10, reader), self.options.keep_blobs);
        let packed = match packing.join() {
            Ok(packed) => packed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (stored, packed) {
            (Ok((diff_id, size, hold)), Ok(packed)) => {
                Ok(CommittedLayer { diff_id, size, is_empty: packed.entries == 0, _hold: hold })
            }
            // A broken pipe says only that the other side failed.
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(LayerError::Io { source, .. }))
                if source.kind() == io::ErrorKind::BrokenPipe =>
            {
                Err(error)
            }
            (_, Err(error)) => Err(failed(error)),
        }
    }

    /// Unpacks a tar into a layer of the store, with its gzip form if that is wanted. Blocking.
    pub(crate) fn store_tar(
        self: &Arc<Self>,
        tar: impl Read,
        with_blob: bool,
    ) -> Result<(DiffId, u64, Hold), Error> {
        let staging = self.staging()?;
        let failed = |source| Error::Unpack(Box::new(source));
        let compressed = match with_blob {
            true => Some(Compressed::create(staging.path.with_extension("blob"))?),
            false => None,
        };
        let source = Teed { tar, compressed };
        let (unpacked, source) =
            layer::unpack(source, &staging.path, &self.options.limits).map_err(failed)?;
        let footer = unpacked.footer;
        // Held before it is looked for: a collection in between would take it away.
        let hold = self.hold(&[footer.diff_id]);
        let blob = match source.compressed {
            Some(compressed) => Some(compressed.finish(&self.sub("blobs"))?),
            None => None,
        };
        if self.has_layer(&footer.diff_id) {
            if let Some(blob) = &blob {
                self.remember_blob(&footer.diff_id, blob);
            }
            return Ok((footer.diff_id, footer.content_bytes, hold));
        }
        self.commit(staging, &footer, blob.as_ref(), || Ok(()))?;
        Ok((footer.diff_id, footer.content_bytes, hold))
    }
}

/// Gives a tar on and compresses it beside.
struct Teed<R> {
    tar: R,
    compressed: Option<Compressed>,
}

impl<R: Read> Read for Teed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(into)?;
        if let Some(compressed) = &mut self.compressed {
            compressed.encoder.write_all(&into[..length])?;
        }
        Ok(length)
    }
}

/// The gzip form of a layer in the making; removed on drop unless it was finished.
struct Compressed {
    path: PathBuf,
    encoder: GzEncoder<Hashing>,
}

struct Hashing {
    file: io::BufWriter<std::fs::File>,
    hasher: Hasher,
    count: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Compressed {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let file = std::fs::File::create(&path).map_err(|e| Error::io("creating", &path, e))?;
        let file = io::BufWriter::with_capacity(128 << 10, file);
        let hashing = Hashing { file, hasher: Hasher::new(), count: 0 };
        Ok(Self { path, encoder: GzEncoder::new(hashing, Compression::new(LEVEL)) })
    }

    /// Moves the finished blob into `blobs`, where the sync of its layer takes it along.
    fn finish(mut self, blobs: &Path) -> Result<BlobInfo, Error> {
        let failed = |error| Error::io("writing", &self.path, error);
        self.encoder.try_finish().map_err(failed)?;
        let hashing = self.encoder.get_mut();
        hashing.flush().map_err(failed)?;
        let digest = hashing.hasher.clone().finish();
        let size = hashing.count;
        std::fs::rename(&self.path, blobs.join(digest.hex())).map_err(failed)?;
        let media_type = media::DOCKER_LAYER.to_owned();
        Ok(BlobInfo { digest, size, media_type, sources: Vec::new() })
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}
