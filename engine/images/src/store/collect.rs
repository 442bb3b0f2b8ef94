//! Taking away what nobody needs: layers, beginnings of downloads, compressed blobs, hidden images.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use minke_common_model::digest::Digest;

use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::store::inner::Inner;
use crate::store::open::{list, named_digest, remove_unless};
use crate::store::pending::Pending;
use crate::store::{Store, blocking};

/// What a collection took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Layers that no image names.
    pub layers: u64,
    /// Beginnings of downloads that broke off.
    pub partials: u64,
    /// Images removed by force earlier that no container uses any more, and damaged ones without a name.
    pub hidden_images: u64,
    /// Unpacked bytes of the layers, and bytes of the beginnings.
    pub bytes: u64,
}

impl Store {
    /// Takes away everything that no image, container or running operation needs, also what broken-off
    /// pulls could go on from.
    pub async fn gc(&self) -> Result<GcReport, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.collect_all()).await
    }
}

impl Inner {
    fn collect_all(&self) -> Result<GcReport, Error> {
        let sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sweeper) = sweeper {
            let _ = sweeper.join();
        }
        let mut report = GcReport { hidden_images: self.drop_hidden()?, ..GcReport::default() };
        let pending = Pending::forget_broken_off(self)?;
        let kept: HashSet<DiffId> = pending.iter().flat_map(|p| p.layers.clone()).collect();
        for (_, bytes) in self.collect_layers(&kept)? {
            report.layers += 1;
            report.bytes += bytes;
        }
        let partial: HashSet<Digest> = pending.iter().flat_map(|p| p.blobs.clone()).collect();
        for path in list(&self.sub("partial"))? {
            if !named_digest(&path).is_some_and(|digest| partial.contains(&digest)) {
                report.partials += 1;
                report.bytes += path.metadata().map_or(0, |found| found.len());
            }
        }
        remove_unless(&self.sub("partial"), |digest| partial.contains(digest))?;
        Ok(report)
    }

    /// Removes layers that nothing needs and returns them with their sizes. Blocking.
    pub(crate) fn collect_layers(
        &self,
        kept: &HashSet<DiffId>,
    ) -> Result<Vec<(DiffId, u64)>, Error> {
        let gone: Vec<(DiffId, u64, Vec<Digest>)> = {
            let mut state = self.state();
            let needed = state.needed_layers();
            let names: Vec<DiffId> = state.layers.keys().copied().collect();
            let unneeded =
                names.into_iter().filter(|id| !needed.contains(id) && !kept.contains(id));
            unneeded
                .filter_map(|id| state.layers.remove(&id).map(|layer| (id, layer.info)))
                .map(|(id, info)| {
                    (id, info.content_bytes, info.blobs.iter().map(|blob| blob.digest).collect())
                })
                .collect()
        };
        let mut trash: Vec<PathBuf> = Vec::new();
        for (id, _, blobs) in &gone {
            trash.push(self.trash(&self.layer_dir(id))?);
            for blob in blobs {
                // Most layers keep no blob.
                let _ = std::fs::remove_file(self.blob_path(blob));
            }
        }
        self.delete(&trash);
        Ok(gone.into_iter().map(|(id, bytes, _)| (id, bytes)).collect())
    }

    /// Images that were removed while containers used them go with the last of those, and so do damaged
    /// ones without a name, which cannot be repaired.
    fn drop_hidden(&self) -> Result<u64, Error> {
        let unused: Vec<ImageId> = {
            let state = self.state();
            let used: HashSet<ImageId> = state.pins.values().map(|(id, _)| *id).collect();
            let images = state.index.images.iter();
            let is_lost = |id: &ImageId| {
                !state.is_whole(id) && !state.has_names(id) && state.children(id).is_empty()
            };
            images
                .filter(|(id, record)| !used.contains(id) && (record.hidden || is_lost(id)))
                .map(|(id, _)| *id)
                .collect()
        };
        self.forget_images(&unused)?;
        Ok(unused.len() as u64)
    }

    /// Takes images out of the index and removes their configurations.
    pub(crate) fn forget_images(&self, ids: &[ImageId]) -> Result<(), Error> {
        self.change_index(|index| {
            for id in ids {
                index.images.remove(id);
                index.tags.retain(|_, of| of != id);
                index.digests.retain(|_, of| of != id);
            }
            Ok(())
        })?;
        let mut state = self.state();
        for id in ids {
            state.configs.remove(id);
            // A configuration that stays is removed at the next open.
            let _ = std::fs::remove_file(self.sub("images").join(id.hex()));
        }
        Ok(())
    }
}
