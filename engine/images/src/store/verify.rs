//! Finding damage: every byte of every layer is read and compared with its manifest.

use std::io::Read;
use std::sync::Arc;

use crate::error::{Error, chain};
use crate::ids::DiffId;
use crate::layer::{self, LayerError, Rebuilt};
use crate::store::{Store, blocking};

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Layers read.
    pub layers: u64,
    /// Bytes of their tars.
    pub bytes: u64,
    /// Damaged layers and what is wrong with each; pulling an image of theirs again repairs them.
    pub damaged: Vec<(DiffId, String)>,
}

impl Store {
    /// Reads every layer and marks the damaged ones, which no container can start from until they are
    /// pulled again.
    pub async fn verify(&self) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport::default();
        let layers: Vec<DiffId> = self.inner.state().layers.keys().copied().collect();
        for id in layers {
            let _busy = self.inner.busy(&id).await;
            if !self.inner.state().layers.contains_key(&id) {
                continue;
            }
            let inner = Arc::clone(&self.inner);
            let checked = blocking(move || {
                let checked = match layer::check(&inner.layer_dir(&id)) {
                    Ok(footer) if footer.diff_id == id => Ok(footer),
                    Ok(footer) => Err(LayerError::Digest { found: footer.diff_id.0 }),
                    Err(error) => Err(error),
                };
                if checked.is_err() && inner.state().layers.contains_key(&id) {
                    inner.mark_broken(&id)?;
                }
                Ok(checked)
            })
            .await?;
            report.layers += 1;
            match checked {
                Ok(footer) => report.bytes += footer.tar_bytes,
                Err(error) => report.damaged.push((id, chain(&error))),
            }
        }
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
