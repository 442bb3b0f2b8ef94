//! What a manifest says, as far as a registry must understand it. Pure.

use std::collections::BTreeMap;

use minke_cloud_blobs::Digest;
use serde::{Deserialize, Serialize};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A checked manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: &'static str,
    /// Config and layers that must be in the repository.
    pub(crate) blobs: Vec<Content>,
    /// Manifests that must be in the repository.
    pub(crate) manifests: Vec<Content>,
    /// What this one is about.
    pub(crate) subject: Option<Digest>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A digest with the length that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Why bytes are no manifest that is accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("the manifest is not the JSON it should be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("manifests of type `{0}` are not accepted")]
    MediaType(String),
    #[error("the request says the manifest is `{header}`, the manifest says `{body}`")]
    Contradiction { header: String, body: String },
    #[error("a manifest has schemaVersion 2, not {0}")]
    Schema(u32),
    #[error("an image manifest needs a config")]
    NoConfig,
    #[error("the manifest names `{0}`, which is not a sha256 digest")]
    Digest(String),
    #[error("a manifest may name at most {limit} things, this one has {count}")]
    TooMany { count: usize, limit: usize },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    fn content(&self) -> Result<Content, ManifestError> {
        let digest = self.digest.parse();
        let digest = digest.map_err(|_| ManifestError::Digest(self.digest.clone()))?;
        Ok(Content { digest, size: self.size })
    }

    /// Layers that their licence forbids to copy stay where their URLs say.
    fn is_elsewhere(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.contains("nondistributable")
            || self.media_type.contains(".foreign.")
    }
}

fn known(media_type: &str) -> Option<&'static str> {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST]
        .into_iter()
        .find(|known| *known == media_type)
}

fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_LIST
}

/// The type that header and body agree on; without either, what the shape shows.
fn media_type(header: Option<&str>, document: &Document) -> Result<&'static str, ManifestError> {
    let header = header.map(|value| value.split(';').next().unwrap_or(value).trim());
    let body = document.media_type.as_deref().filter(|value| !value.is_empty());
    if let (Some(header), Some(body)) = (header, body)
        && header != body
    {
        let (header, body) = (header.to_owned(), body.to_owned());
        return Err(ManifestError::Contradiction { header, body });
    }
    match header.or(body) {
        Some(named) => known(named).ok_or_else(|| ManifestError::MediaType(named.to_owned())),
        None if document.manifests.is_empty() => Ok(OCI_MANIFEST),
        None => Ok(OCI_INDEX),
    }
}

impl Manifest {
    /// Reads `bytes`, sent as `content_type`; it may name at most `limit` things.
    pub(crate) fn parse(
        bytes: &[u8],
        content_type: Option<&str>,
        limit: usize,
    ) -> Result<Self, ManifestError> {
        let document: Document = serde_json::from_slice(bytes)?;
        if document.schema_version != 2 {
            return Err(ManifestError::Schema(document.schema_version));
        }
        let media_type = media_type(content_type, &document)?;
        let count = document.layers.len() + document.manifests.len();
        if count > limit {
            return Err(ManifestError::TooMany { count, limit });
        }
        let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
        if is_index(media_type) {
            for descriptor in &document.manifests {
                manifests.push(descriptor.content()?);
            }
        } else {
            blobs.push(document.config.as_ref().ok_or(ManifestError::NoConfig)?.content()?);
            for layer in document.layers.iter().filter(|layer| !layer.is_elsewhere()) {
                blobs.push(layer.content()?);
            }
        }
        let subject = document.subject.as_ref().map(Descriptor::content).transpose()?;
        let config_type = document.config.map(|config| config.media_type);
        Ok(Self {
            media_type,
            blobs,
            manifests,
            subject: subject.map(|content| content.digest),
            artifact_type: document.artifact_type.or(config_type).filter(|kind| !kind.is_empty()),
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// The descriptor under which this manifest is listed with its subject.
    pub(crate) fn referrer(&self, digest: &Digest, size: usize) -> Referrer {
        Referrer {
            media_type: self.media_type.to_owned(),
            digest: digest.to_string(),
            size: size as u64,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// One entry of a list of referrers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(text: &str) -> serde_json::Value {
        json!({"mediaType": "application/x", "digest": Digest::of(text.as_bytes()).to_string(),
               "size": text.len()})
    }

    fn parse(
        document: &serde_json::Value,
        header: Option<&str>,
    ) -> Result<Manifest, ManifestError> {
        Manifest::parse(document.to_string().as_bytes(), header, 8)
    }

    #[test]
    fn an_image_names_its_config_and_the_layers_that_are_here() {
        let mut elsewhere = descriptor("windows");
        elsewhere["urls"] = json!(["https://example.com/layer"]);
        let document = json!({"schemaVersion": 2, "config": descriptor("c"),
                              "layers": [descriptor("l"), elsewhere]});
        let manifest = parse(&document, Some(DOCKER_MANIFEST)).unwrap();
        let digests: Vec<_> = manifest.blobs.iter().map(|blob| blob.digest).collect();
        assert_eq!(digests, [Digest::of(b"c"), Digest::of(b"l")]);
        assert_eq!(manifest.media_type, DOCKER_MANIFEST);
    }

    #[test]
    fn an_index_names_manifests() {
        let document = json!({"schemaVersion": 2, "manifests": [descriptor("m")]});
        let manifest = parse(&document, None).unwrap();
        assert_eq!(manifest.media_type, OCI_INDEX);
        assert_eq!(manifest.manifests[0].digest, Digest::of(b"m"));
        assert!(manifest.blobs.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let image =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("c")});
        let contradicted = parse(&image, Some(OCI_INDEX));
        assert!(matches!(contradicted, Err(ManifestError::Contradiction { .. })));
        let v1 = json!({"schemaVersion": 1});
        assert!(matches!(parse(&v1, None), Err(ManifestError::Schema(1))));
        let bare = json!({"schemaVersion": 2});
        assert!(matches!(parse(&bare, None), Err(ManifestError::NoConfig)));
        assert!(matches!(parse(&bare, Some("text/html")), Err(ManifestError::MediaType(_))));
        let many = json!({"schemaVersion": 2, "manifests": vec![descriptor("m"); 9]});
        assert!(matches!(parse(&many, None), Err(ManifestError::TooMany { count: 9, limit: 8 })));
        let mut odd = descriptor("c");
        odd["digest"] = json!("sha256:../../etc");
        let odd = json!({"schemaVersion": 2, "config": odd});
        assert!(matches!(parse(&odd, None), Err(ManifestError::Digest(_))));
        assert!(matches!(Manifest::parse(b"[", None, 8), Err(ManifestError::Json(_))));
    }
}
