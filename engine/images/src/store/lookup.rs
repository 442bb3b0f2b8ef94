//! Finding images by what people call them, naming them, and saying who uses them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use minke_common_model::digest::Digest;
use minke_common_model::image_reference::ImageReference;

use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::image::Image;
use crate::options::Use;
use crate::store::inner::State;
use crate::store::pull::now;
use crate::store::{Store, blocking, open};

impl Store {
    /// All images, by id.
    pub fn images(&self) -> Vec<Image> {
        let ids: Vec<ImageId> = self.inner.state().index.images.keys().copied().collect();
        ids.iter().filter_map(|id| self.inner.image(id)).collect()
    }

    /// The ids of all images, also of those that are not shown.
    pub fn ids(&self) -> HashSet<ImageId> {
        self.inner.state().index.images.keys().copied().collect()
    }

    /// An image by name (`busybox`, `busybox:1.36`, `name@sha256:…`), id, or the beginning of its id.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        let id = self.inner.state().find(name)?;
        self.image_by_id(&id)
    }

    /// The image of this name, which is never taken for an id, if anybody may have it: it was pulled
    /// without credentials, or loaded.
    pub fn public_image(&self, name: &ImageReference) -> Option<Image> {
        let state = self.inner.state();
        let id = state.index.named(name).filter(|id| state.is_shown(id))?;
        let record = state.index.images.get(id).filter(|_| !state.index.is_private(name))?;
        state.show(id, record.parent, record.last_tagged)
    }

    /// An image by its id.
    pub fn image_by_id(&self, id: &ImageId) -> Result<Image, Error> {
        self.inner.image(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    /// The exact configuration of an image. Reads a small file.
    pub fn config_bytes(&self, id: &ImageId) -> Result<Vec<u8>, Error> {
        if !self.inner.state().index.images.contains_key(id) {
            return Err(Error::NoSuchImage(id.to_string()));
        }
        let path = self.inner.sub("images").join(id.hex());
        let read = open::read_config(&path, id);
        read.map(|(bytes, _)| bytes).map_err(|error| Error::io("reading", path, error))
    }

    /// Bytes of a layer's files; 0 if it is not here.
    pub fn layer_size(&self, layer: &DiffId) -> u64 {
        self.inner.state().layers.get(layer).map_or(0, |known| known.info.content_bytes)
    }

    /// Gives an image a name, taking it from whichever image had it. Durable when it returns.
    pub async fn tag(&self, id: &ImageId, reference: &ImageReference) -> Result<(), Error> {
        let (inner, id) = (Arc::clone(&self.inner), *id);
        let reference = reference.with_default_tag();
        if reference.digest().is_some() {
            let text = "refusing to create a tag with a digest reference".to_owned();
            return Err(Error::Invalid(text));
        }
        blocking(move || {
            inner.change_index(|index| {
                let record = index.images.get_mut(&id).filter(|record| !record.hidden);
                let record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
                record.last_tagged = now();
                index.note_who(&reference, &id, false);
                index.tags.insert(reference, id);
                Ok(())
            })
        })
        .await
    }

    /// Says that `holder` (a container's id) uses an image; one holder uses one image.
    ///
    /// Kept in memory: whoever opens the store pins again before anything is removed.
    pub fn pin(&self, id: &ImageId, holder: &str, how: Use) -> Result<(), Error> {
        let mut state = self.inner.state();
        if !state.index.images.contains_key(id) {
            return Err(Error::NoSuchImage(id.to_string()));
        }
        state.pins.insert(holder.to_owned(), (*id, how));
        Ok(())
    }

    /// Takes the pin of `holder` back.
    pub fn unpin(&self, holder: &str) {
        self.inner.state().pins.remove(holder);
    }

    /// The lower directories of an overlay over this image, top first.
    ///
    /// Mount them with `redirect_dir=off,metacopy=off`, or a layer made of the upper directory is refused.
    pub fn lower_dirs(&self, id: &ImageId) -> Result<Vec<PathBuf>, Error> {
        let config = self.inner.state().configs.get(id).cloned();
        let config = config.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        self.inner.views(&config.rootfs.diff_ids)
    }

    /// The same for a stack of layers given lowest first, as a build has it before there is an image.
    pub fn layer_dirs(&self, layers: &[DiffId]) -> Result<Vec<PathBuf>, Error> {
        self.inner.views(layers)
    }
}

impl State {
    /// Names first, then ids, as Docker does. Images of which something is damaged are not found, so
    /// that whoever needs one pulls it again, which fetches what is damaged.
    pub(crate) fn find(&self, name: &str) -> Result<ImageId, Error> {
        self.find_if(name, |id| self.is_shown(id))
    }

    /// The same with damaged images, for taking them away.
    pub(crate) fn find_any(&self, name: &str) -> Result<ImageId, Error> {
        self.find_if(name, |id| self.index.images.get(id).is_some_and(|image| !image.hidden))
    }

    fn find_if(&self, name: &str, shown: impl Fn(&ImageId) -> bool) -> Result<ImageId, Error> {
        let missing = || Error::NoSuchImage(name.chars().take(300).collect());
        if let Ok(digest) = name.parse::<Digest>() {
            return Some(ImageId(digest)).filter(|id| shown(id)).ok_or_else(missing);
        }
        if let Ok(reference) = name.parse::<ImageReference>()
            && let Some(id) = self.index.named(&reference).filter(|id| shown(id))
        {
            return Ok(*id);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !is_hex {
            return Err(missing());
        }
        let mut fitting =
            self.index.images.keys().filter(|id| shown(id) && id.hex().starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(prefix.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}
