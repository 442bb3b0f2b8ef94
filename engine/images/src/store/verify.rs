//! Finding damage: every byte of the store is read and compared with what it should be.
//!
//! What is found damaged is not shown any more: an image is whole and right, or it is not there, and
//! whoever needs it pulls it again. [`repair`](Store::repair) does that at once.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use minke_common_model::digest::{Digest, Hasher};

use crate::error::{Error, chain};
use crate::ids::{DiffId, ImageId};
use crate::layer::{self, Footer, LayerError, Rebuilt};
use crate::store::info::LayerInfo;
use crate::store::inner::Inner;
use crate::store::open::{is_our_version, list, named_digest, read_config};
use crate::store::{Store, blocking, checked};

/// How much of a compressed layer is read at once.
const READ: usize = 128 << 10;

/// A part of the store that can be damaged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A file beside the images: `index`, the one before it, or `version`.
    Index(&'static str),
    /// The configuration of an image.
    Config(ImageId),
    /// A layer: its manifest or its files.
    Layer(DiffId),
    /// What is noted of a layer beside its manifest; it is made again from that.
    Note(DiffId),
    /// A layer's compressed bytes on a build worker.
    Blob(Digest),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(name) => write!(f, "file {name}"),
            Self::Config(id) => write!(f, "configuration {id}"),
            Self::Layer(id) => write!(f, "layer {id}"),
            Self::Note(id) => write!(f, "note of layer {id}"),
            Self::Blob(digest) => write!(f, "compressed layer {digest}"),
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub part: Part,
    /// How that shows: the file, and what differs.
    pub why: String,
    /// The images that are not whole because of it.
    pub images: Vec<ImageId>,
}

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Images whose configurations were read.
    pub images: u64,
    /// Layers read.
    pub layers: u64,
    /// Bytes of their tars.
    pub bytes: u64,
    /// In the order in which it was found.
    pub damaged: Vec<Damage>,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// The layer that is read next.
    pub layer: DiffId,
    /// Bytes of tars read so far.
    pub done: u64,
    /// Bytes of all tars.
    pub total: u64,
}

/// A layer that was read as a whole.
pub(crate) struct ReadLayer {
    /// Of its tar, if it is right.
    bytes: u64,
    pub(crate) damage: Option<Damage>,
}

impl Store {
    /// Reads everything and marks what is damaged, which no container can start from until it is pulled
    /// again.
    pub async fn verify(&self) -> Result<VerifyReport, Error> {
        self.verify_with(|_| {}).await
    }

    /// The same, telling before each layer how far it is.
    pub async fn verify_with(
        &self,
        progress: impl Fn(VerifyProgress),
    ) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport::default();
        let inner = Arc::clone(&self.inner);
        let (images, mut damaged) = blocking(move || inner.verify_documents()).await?;
        report.images = images;
        report.damaged.append(&mut damaged);
        let layers: Vec<(DiffId, u64)> = {
            let state = self.inner.state();
            state.layers.iter().map(|(id, layer)| (*id, layer.info.tar_bytes)).collect()
        };
        let total = layers.iter().map(|(_, bytes)| bytes).sum();
        for (layer, _) in layers {
            progress(VerifyProgress { layer, done: report.bytes, total });
            let busy = self.inner.busy(&layer).await;
            let inner = Arc::clone(&self.inner);
            let checked = blocking(move || {
                let _busy = busy;
                inner.verify_layer(&layer)
            });
            let Some(checked) = checked.await? else { continue };
            report.layers += 1;
            report.bytes += checked.bytes;
            report.damaged.extend(checked.damage);
        }
        let inner = Arc::clone(&self.inner);
        report.damaged.append(&mut blocking(move || inner.verify_blobs()).await?);
        Ok(report)
    }

    /// The exact tar of a layer. Reading fails where a byte of the layer differs from what was pulled.
    pub fn rebuild(&self, layer: &DiffId) -> Result<impl Read + Send + use<>, Error> {
        if !self.inner.has_layer(layer) {
            return Err(Error::MissingLayer(*layer));
        }
        Rebuilt::open(&self.inner.layer_dir(layer))
            .map_err(|source| Error::Layer { layer: layer.0, source: Box::new(source) })
    }
}

impl Inner {
    /// The images that are not whole without `layer`.
    pub(crate) fn images_of(&self, layer: &DiffId) -> Vec<ImageId> {
        let state = self.state();
        let images = state.index.images.keys();
        images.filter(|id| state.layers_of(id).contains(layer)).copied().collect()
    }

    pub(crate) fn damage(&self, part: Part, why: String) -> Damage {
        let images = match &part {
            Part::Config(id) => vec![*id],
            Part::Layer(layer) => self.images_of(layer),
            Part::Index(_) | Part::Note(_) | Part::Blob(_) => Vec::new(),
        };
        tracing::warn!(%part, why, "damage in the image store");
        Damage { part, why, images }
    }

    pub(crate) fn verify_documents(&self) -> Result<(u64, Vec<Damage>), Error> {
        let mut damaged = Vec::new();
        let mut wrong = self.with_index(|index| index.damage(&self.dir));
        if !is_our_version(&self.dir) {
            wrong.push(("version", "it does not say the version"));
        }
        for (file, why) in wrong {
            damaged.push(self.damage(Part::Index(file), why.to_owned()));
        }
        let images: Vec<ImageId> = self.state().index.images.keys().copied().collect();
        for id in &images {
            if let Err(error) = self.verify_config(id) {
                damaged.push(self.damage(Part::Config(*id), error.to_string()));
            }
        }
        Ok((images.len() as u64, damaged))
    }

    pub(crate) fn verify_config(&self, id: &ImageId) -> std::io::Result<()> {
        let read = read_config(&self.sub("images").join(id.hex()), id);
        if read.is_err() {
            self.state().configs.remove(id);
        }
        read.map(|_| ())
    }

    /// Nothing if the layer went meanwhile.
    pub(crate) fn verify_layer(&self, id: &DiffId) -> Result<Option<ReadLayer>, Error> {
        if !self.state().layers.contains_key(id) {
            return Ok(None);
        }
        let dir = self.layer_dir(id);
        let before = checked::now(&dir);
        match of_layer(id, layer::check(&dir)) {
            Ok(footer) => {
                let agrees = LayerInfo::load(&dir).is_ok_and(|info| info.agrees(&footer));
                if agrees {
                    self.note_checked(id, before);
                }
                let why = "it cannot be read or disagrees with the manifest".to_owned();
                let damage = (!agrees).then(|| self.damage(Part::Note(*id), why));
                Ok(Some(ReadLayer { bytes: footer.tar_bytes, damage }))
            }
            // Says nothing about the layer.
            Err(error) if is_want(&error) => {
                Err(Error::Layer { layer: id.0, source: Box::new(error) })
            }
            Err(_) if !self.state().layers.contains_key(id) => Ok(None),
            Err(error) => {
                self.mark_broken(id)?;
                let damage = Some(self.damage(Part::Layer(*id), chain(&error)));
                Ok(Some(ReadLayer { bytes: 0, damage }))
            }
        }
    }

    fn verify_blobs(&self) -> Result<Vec<Damage>, Error> {
        let mut damaged = Vec::new();
        for path in list(&self.sub("blobs"))? {
            let Some(digest) = named_digest(&path) else { continue };
            match hash_file(&path) {
                Ok(found) if found == digest => {}
                Ok(found) => {
                    let why = format!("its bytes have digest {found}");
                    damaged.push(self.damage(Part::Blob(digest), why));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => damaged.push(self.damage(Part::Blob(digest), error.to_string())),
            }
        }
        Ok(damaged)
    }
}

/// What was read, if it is the layer of that name.
pub(crate) fn of_layer(
    id: &DiffId,
    read: Result<Footer, LayerError>,
) -> Result<Footer, LayerError> {
    match read {
        Ok(footer) if footer.diff_id != *id => Err(LayerError::Digest { found: footer.diff_id.0 }),
        other => other,
    }
}

/// Whether the system had too little of something to read the layer at all.
fn is_want(error: &LayerError) -> bool {
    use rustix::io::Errno;
    let LayerError::Io { source, .. } = error else { return false };
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(source).is_some_and(|errno| wants.contains(&errno))
}

fn hash_file(path: &std::path::Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
    }
}
