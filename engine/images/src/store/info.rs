//! What the store notes about a layer beside its manifest: sizes for quick answers, and where its
//! compressed form was seen, so that a push need not send it again.

use std::fs;
use std::io;
use std::path::Path;

use minke_common_model::digest::Digest;
use minke_engine_documents::{Sync, replace, seal, unseal};
use serde::{Deserialize, Serialize};

use crate::layer::Footer;

/// Name of the note inside a layer's directory.
pub(crate) const NAME: &str = "info";
const WHAT: &str = "minke-layer-info 2";
/// Version 1 had no first line.
const VERSION: u32 = 1;
/// Older places are forgotten.
const MAX_SOURCES: usize = 16;
const MAX_BLOBS: usize = 8;

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    pub version: u32,
    /// Bytes of all regular files.
    pub content_bytes: u64,
    pub tar_bytes: u64,
    pub entries: u64,
    /// Newest last.
    #[serde(default)]
    pub blobs: Vec<BlobInfo>,
    /// Nothing for layers of engines that did not note it, and when that note was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// When every byte of a layer was known to be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The boot in which that was.
    pub boot: String,
    /// What the file system said of the layer just before: [`stamp`](crate::layer::stamp).
    pub stamp: String,
}

/// A compressed form of the layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobInfo {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    /// `registry/repository` names that had it; newest last.
    #[serde(default)]
    pub sources: Vec<String>,
}

impl LayerInfo {
    pub(crate) fn of(footer: &Footer) -> Self {
        Self {
            version: VERSION,
            content_bytes: footer.content_bytes,
            tar_bytes: footer.tar_bytes,
            entries: footer.entries,
            blobs: Vec::new(),
            checked: None,
        }
    }

    /// Whether it says of the layer what the layer's manifest says.
    pub(crate) fn agrees(&self, footer: &Footer) -> bool {
        let own = (self.content_bytes, self.tar_bytes, self.entries);
        own == (footer.content_bytes, footer.tar_bytes, footer.entries)
    }

    /// Of a layer whose manifest cannot be read.
    pub(crate) fn unknown() -> Self {
        Self {
            version: VERSION,
            content_bytes: 0,
            tar_bytes: 0,
            entries: 0,
            blobs: Vec::new(),
            checked: None,
        }
    }

    pub(crate) fn load(layer: &Path) -> io::Result<Self> {
        let bytes = fs::read(layer.join(NAME))?;
        let body = match bytes.first() {
            Some(b'{') => &bytes[..],
            _ => unseal(WHAT, &bytes)
                .ok_or_else(|| io::Error::other("the layer's note has a wrong checksum"))?,
        };
        Ok(serde_json::from_slice(body)?)
    }

    /// Written without a sync: it can be lost or torn. A lost note costs a transfer, nothing else.
    pub(crate) fn save(&self, layer: &Path) -> io::Result<()> {
        replace(&layer.join(NAME), &seal(WHAT, &serde_json::to_vec(self)?), Sync::Nothing)
    }

    /// Notes that `source` has the blob; false if that was known.
    pub(crate) fn remember(&mut self, blob: &BlobInfo) -> bool {
        let at = match self.blobs.iter().position(|known| known.digest == blob.digest) {
            Some(at) => at,
            None => {
                if self.blobs.len() >= MAX_BLOBS {
                    self.blobs.remove(0);
                }
                self.blobs.push(BlobInfo { sources: Vec::new(), ..blob.clone() });
                self.blobs.len() - 1
            }
        };
        let known = &mut self.blobs[at];
        let mut changed = known.sources.is_empty() && blob.sources.is_empty();
        for source in &blob.sources {
            if !known.sources.contains(source) {
                if known.sources.len() >= MAX_SOURCES {
                    known.sources.remove(0);
                }
                known.sources.push(source.clone());
                changed = true;
            }
        }
        changed
    }
}
