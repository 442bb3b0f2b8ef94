//! Bringing back what verification found damaged: from the registry, by the exact digest; notes and
//! indexes from what is known otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;

use minke_common_model::image_reference::ImageReference;

use crate::error::{Error, chain};
use crate::ids::ImageId;
use crate::layer::{MANIFEST, Manifest};
use crate::options::{Platform, PullOptions};
use crate::progress::ProgressEvent;
use crate::store::index::Index;
use crate::store::info::LayerInfo;
use crate::store::inner::Inner;
use crate::store::open::write_version;
use crate::store::verify::{Damage, Part};
use crate::store::{Store, blocking};

/// What became of some damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What was damaged.
    pub part: Part,
    /// Nothing if it is whole again, or else why it is not.
    pub failure: Option<String>,
}

impl Store {
    /// Repairs what [`verify`](Self::verify) reported. Images that were pulled are pulled again, of which
    /// only what is damaged is fetched; what was made here cannot be had again.
    pub async fn repair(
        &self,
        damaged: &[Damage],
        options: &PullOptions,
        progress: impl Fn(ProgressEvent) + Send + Sync + 'static,
    ) -> Result<Vec<Repair>, Error> {
        let progress = Arc::new(progress);
        let images: BTreeSet<ImageId> =
            damaged.iter().flat_map(|damage| damage.images.iter().copied()).collect();
        let mut failures = Vec::new();
        for id in images {
            let tell = Arc::clone(&progress);
            if let Err(failure) = self.fetch_again(&id, options, move |event| tell(event)).await {
                failures.push((id, failure));
            }
        }
        let mut repairs = Vec::new();
        for Damage { part, images, .. } in damaged {
            let inner = Arc::clone(&self.inner);
            let part = part.clone();
            let again = part.clone();
            let repaired = blocking(move || inner.repair_part(&again)).await?;
            let failure = match repaired {
                true => None,
                false => Some(
                    failures
                        .iter()
                        .find(|(id, _)| images.contains(id))
                        .map_or_else(|| "no image names it".to_owned(), |(_, why)| why.clone()),
                ),
            };
            repairs.push(Repair { part, failure });
        }
        Ok(repairs)
    }

    /// Pulls an image by one of the digests that it came under.
    async fn fetch_again(
        &self,
        id: &ImageId,
        options: &PullOptions,
        progress: impl Fn(ProgressEvent) + Send + Sync + 'static,
    ) -> Result<(), String> {
        let (names, platform): (Vec<ImageReference>, Option<Platform>) = {
            let state = self.inner.state();
            let config = state.configs.get(id);
            let platform = config.map(|config| Platform {
                os: config.os.clone(),
                architecture: config.architecture.clone(),
                variant: config.variant.clone(),
            });
            (Index::names(&state.index.digests, id), platform)
        };
        let options = PullOptions { platform, ..options.clone() };
        let progress = Arc::new(progress);
        let mut why = "it was made here or loaded: build or load it again".to_owned();
        for name in names {
            let tell = Arc::clone(&progress);
            match self.pull(&name, &options, move |event| tell(event)).await {
                Ok(pulled) if pulled == *id => return Ok(()),
                Ok(pulled) => why = format!("{} is image {pulled} now", name.familiar()),
                Err(error) => why = chain(&error),
            }
        }
        Err(why)
    }
}

impl Inner {
    /// Whether the part is right now; what needs no registry is made right.
    pub(crate) fn repair_part(&self, part: &Part) -> Result<bool, Error> {
        match part {
            Part::Index("version") => write_version(&self.dir).map(|()| true),
            Part::Index(_) => self.rewrite_index().map(|()| true),
            Part::Config(id) => Ok(self.state().configs.contains_key(id)),
            Part::Layer(layer) => Ok(self.has_layer(layer)),
            Part::Note(layer) => {
                let dir = self.layer_dir(layer);
                let Ok(manifest) = Manifest::open(&dir.join(MANIFEST)) else { return Ok(false) };
                let known = self.state().layers.get(layer).map(|known| known.info.clone());
                let info = known.filter(|info| info.agrees(manifest.footer()));
                let info = info.unwrap_or_else(|| LayerInfo::of(manifest.footer()));
                info.save(&dir).map_err(|error| Error::io("writing", &dir, error))?;
                if let Some(known) = self.state().layers.get_mut(layer) {
                    known.info = info;
                }
                Ok(true)
            }
            // A push makes it again.
            Part::Blob(digest) => {
                let path = self.blob_path(digest);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::io("removing", &path, error))
                    }
                    _ => Ok(true),
                }
            }
        }
    }
}
