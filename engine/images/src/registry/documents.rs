//! Manifests and indexes, Docker's and OCI's: the same shape under different names.

use std::collections::BTreeMap;

use minke_common_model::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::options::Platform;
use crate::registry::RegistryError;

/// The media types of documents and layers.
pub mod media {
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// OCI's manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's gzip layer.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// What a puller accepts, best first.
    pub const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
        application/vnd.oci.image.manifest.v1+json, \
        application/vnd.docker.distribution.manifest.list.v2+json, \
        application/vnd.oci.image.index.v1+json";
}

/// More layers than this in one image are an error.
const MAX_LAYERS: usize = 1000;
/// More images than this in one index are an error.
const MAX_INDEX: usize = 1000;

/// What a document says about a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Other places it is at; foreign layers of Windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free key and value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
    /// Always 2.
    pub schema_version: u32,
    /// Docker always says it, OCI may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// Images of several platforms under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Docker always says it, OCI may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    pub manifests: Vec<IndexEntry>,
}

/// One image of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<IndexPlatform>,
}

/// What an image of an index runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPlatform {
    /// `amd64` and the like; `unknown` for attestations.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A document that a tag or digest may stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(ManifestDocument),
    Index(Index),
}

impl Document {
    /// What it says it is.
    pub(crate) fn media_type(&self) -> Option<&str> {
        match self {
            Self::Manifest(manifest) => manifest.media_type.as_deref(),
            Self::Index(index) => index.media_type.as_deref(),
        }
    }

    /// Reads a document by what it says of itself, or else by the answer's content type.
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Self, RegistryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
        }
        let wrong = |why: String| RegistryError::Document { what: "the manifest".to_owned(), why };
        let head: Head = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if head.schema_version != 2 {
            return Err(wrong(format!(
                "schema version {} is not supported; push the image again with a current client",
                head.schema_version
            )));
        }
        let named = head.media_type.as_deref().unwrap_or(content_type);
        let is_index = match named {
            media::DOCKER_LIST | media::OCI_INDEX => true,
            media::DOCKER_MANIFEST | media::OCI_MANIFEST => false,
            _ => head.manifests.is_some(),
        };
        let parsed = if is_index {
            serde_json::from_slice(bytes).map(Self::Index)
        } else {
            serde_json::from_slice(bytes).map(Self::Manifest)
        };
        let document = parsed.map_err(|error| wrong(error.to_string()))?;
        let (what, count, limit) = match &document {
            Self::Manifest(manifest) => ("layers", manifest.layers.len(), MAX_LAYERS),
            Self::Index(index) => ("images", index.manifests.len(), MAX_INDEX),
        };
        if count > limit {
            return Err(wrong(format!("it has {count} {what}, the limit is {limit}")));
        }
        Ok(document)
    }
}

impl Index {
    /// The manifest for `platform`: the same variant, else a lesser one of arm, else one without.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let fits = |entry: &&IndexEntry| {
            entry.platform.as_ref().is_some_and(|offered| {
                offered.os == platform.os && offered.architecture == platform.architecture
            })
        };
        let candidates: Vec<&IndexEntry> = self.manifests.iter().filter(fits).collect();
        let variant = |entry: &IndexEntry| {
            entry
                .platform
                .as_ref()
                .and_then(|offered| offered.variant.clone())
                .filter(|v| !v.is_empty())
        };
        // What a processor is that says no more.
        let least = match platform.architecture.as_str() {
            "arm64" => Some("v8"),
            "amd64" => Some("v1"),
            _ => None,
        };
        let wanted = platform.variant.as_deref().or(least);
        let mut choices = candidates.clone();
        choices.retain(|entry| match (wanted, variant(entry)) {
            (Some(wanted), Some(offered)) => offered.as_str() <= wanted,
            _ => true,
        });
        // The highest variant that is not above the wanted one; none is the least.
        let best = choices.iter().copied().max_by_key(|entry| {
            let variant = variant(entry);
            (variant.as_deref() == wanted, variant, std::cmp::Reverse(position(self, entry)))
        });
        best.map(|entry| &entry.descriptor)
    }

    /// What it offers, for people.
    pub fn offered(&self) -> String {
        let mut names: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|offered| offered.architecture != "unknown")
            .map(|offered| {
                let variant = offered.variant.iter().map(|variant| format!("/{variant}"));
                format!("{}/{}{}", offered.os, offered.architecture, variant.collect::<String>())
            })
            .take(30)
            .collect();
        names.dedup();
        names.join(", ")
    }
}

fn position(index: &Index, entry: &IndexEntry) -> usize {
    index.manifests.iter().position(|other| std::ptr::eq(other, entry)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(offers: &[(&str, Option<&str>)]) -> Index {
        let entries = offers.iter().enumerate().map(|(at, (architecture, variant))| IndexEntry {
            descriptor: Descriptor {
                media_type: media::OCI_MANIFEST.to_owned(),
                size: at as u64,
                digest: Digest::from_bytes([at as u8; 32]),
                urls: Vec::new(),
                annotations: BTreeMap::new(),
            },
            platform: Some(IndexPlatform {
                architecture: (*architecture).to_owned(),
                os: "linux".to_owned(),
                variant: variant.map(str::to_owned),
            }),
        });
        Index { schema_version: 2, media_type: None, manifests: entries.collect() }
    }

    fn selected(offers: &[(&str, Option<&str>)], platform: &str) -> Option<u64> {
        let platform = Platform::parse(platform).unwrap();
        index(offers).select(&platform).map(|descriptor| descriptor.size)
    }

    #[test]
    fn selects_the_best_variant() {
        let arms = [("arm", Some("v5")), ("arm", Some("v7")), ("arm", Some("v6")), ("arm64", None)];
        assert_eq!(selected(&arms, "linux/arm/v7"), Some(1));
        assert_eq!(selected(&arms, "linux/arm/v6"), Some(2));
        assert_eq!(selected(&arms, "linux/arm64/v8"), Some(3));
        assert_eq!(selected(&arms, "linux/amd64"), None);
        assert_eq!(selected(&[("amd64", None), ("amd64", Some("v3"))], "linux/amd64"), Some(0));
        let newer = [("arm64", Some("v9")), ("arm64", Some("v8"))];
        assert_eq!(selected(&newer, "linux/arm64"), Some(1));
        assert_eq!(selected(&[("amd64", None), ("amd64", None)], "linux/amd64"), Some(0));
    }

    #[test]
    fn tells_indexes_from_manifests() {
        let list = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse(list, ""), Ok(Document::Index(_))));
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(Document::parse(old, "").unwrap_err().to_string().contains("schema version 1"));
        assert!(Document::parse(b"<html>", "text/html").is_err());
    }
}
