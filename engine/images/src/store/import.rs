//! Layers that somebody else's tar brings.

use std::io::{BufReader, Read};
use std::sync::Arc;

use crate::error::{Error, chain};
use crate::store::build::CommittedLayer;
use crate::store::inflated::Inflated;
use crate::store::{Store, blocking};

impl Store {
    /// Makes a layer of a root file system's tar, plain or compressed with gzip or zstd.
    pub async fn import_layer(
        &self,
        reader: impl Read + Send + 'static,
    ) -> Result<CommittedLayer, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let reader = BufReader::with_capacity(128 << 10, reader);
            let wrong = |error: &dyn std::error::Error| Error::Archive(chain(error));
            let inflated = Inflated::new(reader).map_err(|error| wrong(&error))?;
            let stored = inner.store_tar(inflated, inner.options.keep_blobs);
            stored.map(CommittedLayer::whole).map_err(|error| match &error {
                Error::Unpack(_) if !error.is_no_space() => wrong(&error),
                _ => error,
            })
        })
        .await
    }
}
