//! Taking away what nobody needs: layers, beginnings of downloads, compressed blobs, hidden images.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use minke_common_model::digest::Digest;

use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::store::inner::{Inner, LayerState};
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
        let kept = self.collect_partials(&mut report)?;
        for (_, bytes) in self.collect_layers(&kept) {
            report.layers += 1;
            report.bytes += bytes;
        }
        Ok(report)
    }

    /// Removes the notes and the beginnings of downloads of pulls that broke off; answers which layers
    /// the others need.
    fn collect_partials(&self, report: &mut GcReport) -> Result<HashSet<DiffId>, Error> {
        // A pull that begins waits: what it is about to fetch is not in the notes read here.
        let notes = self.notes();
        let pending = Pending::forget_broken_off(self, &notes)?;
        let partial: HashSet<Digest> = pending.iter().flat_map(|p| p.blobs.clone()).collect();
        for path in list(&self.sub("partial"))? {
            if !named_digest(&path).is_some_and(|digest| partial.contains(&digest)) {
                report.partials += 1;
                report.bytes += path.metadata().map_or(0, |found| found.len());
            }
        }
        remove_unless(&self.sub("partial"), |digest| partial.contains(digest))?;
        Ok(pending.into_iter().flat_map(|pending| pending.layers).collect())
    }

    /// Removes layers that nothing needs and returns them with their sizes. One that cannot be moved away
    /// stays known, for the next collection. Blocking.
    pub(crate) fn collect_layers(&self, kept: &HashSet<DiffId>) -> Vec<(DiffId, u64)> {
        self.collect_layers_with(kept, || {})
    }

    /// The same; `forgotten` is called when the layers are out of memory and still in place.
    fn collect_layers_with(
        &self,
        kept: &HashSet<DiffId>,
        forgotten: impl FnOnce(),
    ) -> Vec<(DiffId, u64)> {
        let mut trash: Vec<PathBuf> = Vec::new();
        let mut gone = Vec::new();
        {
            let _places = self.places();
            let layers = self.forget_layers(kept);
            forgotten();
            for (id, layer) in layers {
                match self.move_away(&id) {
                    Ok(path) => {
                        trash.extend(path);
                        gone.push((id, layer.info));
                    }
                    Err(error) => {
                        tracing::warn!(layer = %id, %error, "collecting");
                        self.state().layers.insert(id, layer);
                    }
                }
            }
        }
        for blob in gone.iter().flat_map(|(_, info)| &info.blobs) {
            // Most layers keep no blob.
            let _ = std::fs::remove_file(self.blob_path(&blob.digest));
        }
        self.delete(&trash);
        gone.into_iter().map(|(id, info)| (id, info.content_bytes)).collect()
    }

    /// Takes layers that nothing needs out of memory.
    fn forget_layers(&self, kept: &HashSet<DiffId>) -> Vec<(DiffId, LayerState)> {
        let mut state = self.state();
        let needed = state.needed_layers();
        state.layers.extract_if(|id, _| !needed.contains(id) && !kept.contains(id)).collect()
    }

    /// Where a layer's directory is to be deleted; nothing if it is gone already.
    fn move_away(&self, layer: &DiffId) -> Result<Option<PathBuf>, Error> {
        match self.trash(&self.layer_dir(layer)) {
            Ok(path) => Ok(Some(path)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::options::Options;

    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(4);
        tar.append_data(&mut header, "file", &b"text"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    async fn with_a_layer() -> (tempfile::TempDir, Arc<Inner>, DiffId) {
        let dir = tempfile::tempdir().unwrap();
        let inner = Store::open(dir.path(), Options::default()).await.unwrap().inner;
        let (layer, _, _) = inner.store_tar(&tar()[..], false).unwrap();
        (dir, inner, layer)
    }

    #[tokio::test]
    async fn a_layer_that_comes_back_while_it_is_collected_stays() {
        let (_dir, inner, layer) = with_a_layer().await;
        let (back, comes_back) = mpsc::channel();
        let storing = Arc::clone(&inner);
        let start = move || {
            std::thread::spawn(move || {
                let stored = storing.store_tar(&tar()[..], false).unwrap();
                let _ = back.send(());
                stored
            })
        };
        let mut thread = None;
        let gone = inner.collect_layers_with(&HashSet::new(), || {
            thread = Some(start());
            // It must wait for the collection; where it need not, it is in place by then.
            let _ = comes_back.recv_timeout(Duration::from_millis(500));
        });
        let (again, _, _hold) = thread.unwrap().join().unwrap();
        assert_eq!((gone.len(), again), (1, layer));
        assert!(inner.has_layer(&layer));
        assert!(inner.layer_dir(&layer).join("fs/file").exists(), "the layer is not there");
    }

    #[tokio::test]
    async fn a_layer_that_cannot_be_moved_away_stays_known_and_goes_the_next_time() {
        let (dir, inner, layer) = with_a_layer().await;
        fs::remove_dir(dir.path().join("trash")).unwrap();
        fs::write(dir.path().join("trash"), "in the way").unwrap();
        assert_eq!(inner.collect_layers(&HashSet::new()), []);
        assert!(inner.has_layer(&layer));
        fs::remove_file(dir.path().join("trash")).unwrap();
        fs::create_dir(dir.path().join("trash")).unwrap();
        assert_eq!(inner.collect_layers(&HashSet::new()).len(), 1);
        assert!(!inner.has_layer(&layer) && !inner.layer_dir(&layer).exists());
    }
}
