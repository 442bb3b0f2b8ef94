//! Images as files: what `docker save` writes and `docker load` reads, and OCI layouts.
//!
//! An archive is unpacked like a layer, into a directory that nothing in it can leave; only then is its
//! index read, because that may stand at its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use minke_common_model::digest::Digest;
use minke_common_model::image_reference::ImageReference;
use rustix::fs::{Mode, OFlags, ResolveFlags, open};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::ImageConfig;
use crate::error::{Error, chain};
use crate::ids::{DiffId, ImageId};
use crate::layer::{self, Rebuilt, VIEW};
use crate::options::Platform;
use crate::progress::{ProgressEvent, Sink, short_id};
use crate::registry::{Descriptor, Document, MAX_DOCUMENT, media};
use crate::store::inflated::Inflated;
use crate::store::inner::{Hold, Inner};
use crate::store::pull::now;
use crate::store::{Store, blocking};

/// More images than this in one archive are an error.
const MAX_IMAGES: usize = 1000;

/// An image that an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names it got.
    pub tags: Vec<ImageReference>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

impl Store {
    /// Reads an archive, plain or compressed, and takes all its images in.
    pub async fn load(
        &self,
        reader: impl Read + Send + 'static,
        progress: impl Fn(ProgressEvent) + Send + Sync + 'static,
    ) -> Result<Vec<Loaded>, Error> {
        let inner = Arc::clone(&self.inner);
        let sink: Sink = Arc::new(progress);
        blocking(move || inner.load(reader, &sink)).await
    }

    /// Writes images as an archive that Docker and OCI tools read. Names keep their tags, ids bring none.
    pub async fn save(
        &self,
        names: &[String],
        writer: impl Write + Send + 'static,
    ) -> Result<(), Error> {
        let mut chosen: BTreeMap<ImageId, Vec<ImageReference>> = BTreeMap::new();
        for name in names {
            let image = self.image(name)?;
            let tags = chosen.entry(image.id).or_default();
            let reference = name.parse::<ImageReference>().ok().map(|r| r.with_default_tag());
            tags.extend(reference.filter(|reference| image.tags.contains(reference)));
        }
        let layers: Vec<DiffId> = chosen
            .keys()
            .filter_map(|id| self.image_by_id(id).ok())
            .flat_map(|image| image.layers().to_vec())
            .collect();
        let hold = self.inner.hold(&layers);
        let store = self.clone();
        blocking(move || {
            let _hold = hold;
            Saver { store: &store, tar: tar::Builder::new(writer), written: Vec::new() }
                .save(&chosen)
        })
        .await
    }
}

impl Inner {
    fn load(self: &Arc<Self>, reader: impl Read, sink: &Sink) -> Result<Vec<Loaded>, Error> {
        let staging = self.staging()?;
        let wrong = |error: &dyn std::error::Error| Error::Archive(chain(error));
        let reader = BufReader::with_capacity(128 << 10, reader);
        let inflated = Inflated::new(reader).map_err(|error| wrong(&error))?;
        let limits = self.options.limits;
        if let Err(error) = layer::unpack(inflated, &staging.path, &limits) {
            let error = Error::Unpack(Box::new(error));
            return Err(if error.is_no_space() { error } else { wrong(&error) });
        }
        let archive = Unpacked::at(&staging.path.join(VIEW))?;
        let images = archive.images()?;
        if images.is_empty() || images.len() > MAX_IMAGES {
            let count = images.len();
            return Err(Error::Archive(format!("{count} images, the limit is {MAX_IMAGES}")));
        }
        images.iter().map(|image| self.load_image(&archive, image, sink)).collect()
    }

    fn load_image(
        self: &Arc<Self>,
        archive: &Unpacked,
        image: &SavedImage,
        sink: &Sink,
    ) -> Result<Loaded, Error> {
        let bytes = archive.small(&image.config)?;
        let id = ImageId(Digest::of(&bytes));
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Config { id: id.0, why: error.to_string() })?;
        let diff_ids = config.rootfs.diff_ids.clone();
        if diff_ids.len() != image.layers.len() {
            let (manifest, config) = (image.layers.len(), diff_ids.len());
            return Err(Error::LayerCount { manifest, config });
        }
        let mut holds: Vec<Hold> = vec![self.hold(&diff_ids)];
        for (layer, path) in diff_ids.iter().zip(&image.layers) {
            if self.has_layer(layer) {
                continue;
            }
            let size = archive.open(path)?.metadata().map_or(0, |found| found.len());
            let short = short_id(&layer.0);
            sink(ProgressEvent::at(&*short, "Loading layer", 0, size));
            let file = BufReader::with_capacity(128 << 10, archive.open(path)?);
            let inflated = Inflated::new(file).map_err(|e| Error::Archive(chain(&e)))?;
            let (found, _, hold) = self.store_tar(inflated, self.options.keep_blobs)?;
            holds.push(hold);
            if found != *layer {
                return Err(Error::Archive(format!("layer {layer} has digest {found}")));
            }
            sink(ProgressEvent::at(&*short, "Loading layer", size, size));
        }
        let tags = image.repo_tags.clone().unwrap_or_default();
        let tags =
            tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<ImageReference>, _>>()?;
        let names = tags.clone();
        self.install_image(id, &bytes, Arc::new(config), |index| {
            for tag in names {
                if let Some(record) = index.images.get_mut(&id) {
                    record.last_tagged = now();
                }
                index.tags.insert(tag.with_default_tag(), id);
            }
        })?;
        match tags.is_empty() {
            true => sink(ProgressEvent::message(format!("Loaded image ID: {id}\n"))),
            false => tags.iter().for_each(|tag| {
                sink(ProgressEvent::message(format!("Loaded image: {}\n", tag.familiar())));
            }),
        }
        Ok(Loaded { id, tags })
    }
}

/// An archive's files, found without leaving its directory.
struct Unpacked {
    root: std::os::fd::OwnedFd,
}

impl Unpacked {
    fn at(root: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(root, flags, Mode::empty())
            .map_err(|error| Error::io("opening", root, error.into()))?;
        Ok(Self { root })
    }

    /// Old archives share layers by symbolic links.
    fn open_file(&self, path: &str) -> std::io::Result<File> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        layer::open_file(&self.root, Path::new(path), resolve)
    }

    fn open(&self, path: &str) -> Result<File, Error> {
        self.open_file(path).map_err(|error| Error::Archive(format!("{path}: {error}")))
    }

    fn small(&self, path: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::Archive(format!("{path}: {error}")))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::Archive(format!("{path} is longer than {MAX_DOCUMENT} bytes")));
        }
        Ok(bytes)
    }

    fn images(&self) -> Result<Vec<SavedImage>, Error> {
        if self.open_file("manifest.json").is_ok() {
            let bytes = self.small("manifest.json")?;
            return serde_json::from_slice(&bytes)
                .map_err(|error| Error::Archive(format!("manifest.json: {error}")));
        }
        if self.open_file("index.json").is_err() {
            let text = "it has neither manifest.json nor index.json".to_owned();
            return Err(Error::Archive(text));
        }
        let layout: Layout = serde_json::from_slice(&self.small("index.json")?)
            .map_err(|error| Error::Archive(format!("index.json: {error}")))?;
        layout.manifests.iter().map(|entry| self.layout_image(entry)).collect()
    }

    fn layout_image(&self, entry: &Descriptor) -> Result<SavedImage, Error> {
        let mut descriptor = entry.clone();
        for _ in 0..2 {
            let bytes = self.small(&blob_path(&descriptor.digest))?;
            if Digest::of(&bytes) != descriptor.digest {
                return Err(Error::Archive(format!("{} is damaged", descriptor.digest)));
            }
            match Document::parse(&bytes, &descriptor.media_type)? {
                Document::Manifest(manifest) => {
                    let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                        .iter()
                        .find_map(|key| entry.annotations.get(*key));
                    return Ok(SavedImage {
                        config: blob_path(&manifest.config.digest),
                        repo_tags: name.map(|name| vec![name.clone()]),
                        layers: manifest.layers.iter().map(|l| blob_path(&l.digest)).collect(),
                    });
                }
                Document::Index(index) => {
                    let wanted = Platform::host();
                    let offered = index.offered();
                    let wanted_text = wanted.to_string();
                    descriptor = index
                        .select(&wanted)
                        .cloned()
                        .ok_or(Error::Platform { wanted: wanted_text, offered })?;
                }
            }
        }
        Err(Error::Archive("an index inside an index inside an index".to_owned()))
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Saver<'a, W: Write> {
    store: &'a Store,
    tar: tar::Builder<W>,
    written: Vec<Digest>,
}

impl<W: Write> Saver<'_, W> {
    fn save(mut self, chosen: &BTreeMap<ImageId, Vec<ImageReference>>) -> Result<(), Error> {
        let mut saved = Vec::new();
        let mut entries = Vec::new();
        for (id, tags) in chosen {
            let (image, manifest) = self.image(id, tags)?;
            let names: Vec<Option<&ImageReference>> = match tags.is_empty() {
                true => vec![None],
                false => tags.iter().map(Some).collect(),
            };
            for name in names {
                let mut entry = json!({
                    "mediaType": media::OCI_MANIFEST,
                    "digest": Digest::of(&manifest),
                    "size": manifest.len(),
                });
                if let Some(name) = name {
                    entry["annotations"] = json!({
                        "io.containerd.image.name": name.to_string(),
                        "org.opencontainers.image.ref.name": name.tag(),
                    });
                }
                entries.push(entry);
            }
            saved.push(image);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_INDEX,
            "manifests": entries,
        });
        self.file("index.json", index.to_string().as_bytes())?;
        self.file("manifest.json", json!(saved).to_string().as_bytes())?;
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.tar.into_inner().and_then(|mut writer| writer.flush()).map_err(write_error)
    }

    fn image(
        &mut self,
        id: &ImageId,
        tags: &[ImageReference],
    ) -> Result<(SavedImage, Vec<u8>), Error> {
        let image = self.store.image_by_id(id)?;
        let mut layers = Vec::new();
        for layer in image.layers() {
            let size = self.layer(layer)?;
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer,
                "size": size,
            }));
        }
        let config = self.store.config_bytes(id)?;
        self.blob(&id.0, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": id,
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        self.blob(&Digest::of(&manifest), &manifest)?;
        let saved = SavedImage {
            config: blob_path(&id.0),
            repo_tags: Some(tags.iter().map(ImageReference::familiar).collect()),
            layers: image.layers().iter().map(|layer| blob_path(&layer.0)).collect(),
        };
        Ok((saved, manifest))
    }

    fn layer(&mut self, layer: &DiffId) -> Result<u64, Error> {
        let failed = |source| Error::Layer { layer: layer.0, source: Box::new(source) };
        if !self.store.inner.has_layer(layer) {
            return Err(Error::MissingLayer(*layer));
        }
        let mut tar = Rebuilt::open(&self.store.inner.layer_dir(layer)).map_err(failed)?;
        let size = tar.footer().tar_bytes;
        if self.is_new(&layer.0) {
            let mut header = file_header(size);
            self.tar
                .append_data(&mut header, blob_path(&layer.0), &mut tar)
                .map_err(write_error)?;
        }
        Ok(size)
    }

    fn is_new(&mut self, digest: &Digest) -> bool {
        let is_new = !self.written.contains(digest);
        if is_new {
            self.written.push(*digest);
        }
        is_new
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.is_new(digest) { self.file(&blob_path(digest), bytes) } else { Ok(()) }
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut header = file_header(bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes).map_err(write_error)
    }
}

fn file_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_error(error: std::io::Error) -> Error {
    Error::io("writing", "the archive", error)
}
