//! Questions to registries that bring no image here: what a name stands for, whether credentials are
//! good, what can be found.

use minke_common_model::digest::Digest;
use minke_common_model::image_reference::{DEFAULT_REGISTRY, ImageReference};
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::error::Error;
use crate::options::{Credentials, Platform, PullOptions};
use crate::registry::{Document, RegistryError, Session, endpoints};
use crate::store::Store;

/// Docker Hub answers searches under another name than it gives images.
const HUB_SEARCH: &str = "https://index.docker.io";
/// The largest answer to a search, in bytes.
const MAX_SEARCH: u64 = 4 << 20;

/// What a name stands for in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Of the manifest or index.
    pub media_type: String,
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes of the manifest or index.
    pub size: u64,
    /// What its images run on.
    pub platforms: Vec<Platform>,
}

/// One repository that a search has found. Field names are the search protocol's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many like it.
    pub star_count: i64,
    /// It is one of Docker's own.
    pub is_official: bool,
    /// Always false today.
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct FoundList {
    #[serde(default)]
    results: Vec<Found>,
}

impl Store {
    /// Asks the registry what a name stands for; nothing is kept.
    pub async fn offer(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<Offer, Error> {
        let reference = reference.with_default_tag();
        let (session, fetched) = self.find(&reference, options).await?;
        let platforms = match &fetched.document {
            Document::Index(index) => {
                let entries = index.manifests.iter().filter_map(|entry| entry.platform.clone());
                let known = entries.filter(|platform| platform.architecture != "unknown");
                known
                    .map(|platform| Platform {
                        os: platform.os,
                        architecture: platform.architecture,
                        variant: platform.variant,
                    })
                    .collect()
            }
            Document::Manifest(manifest) => {
                let bytes = session.small_blob(&manifest.config).await?;
                let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|error| {
                    Error::Config { id: manifest.config.digest, why: error.to_string() }
                })?;
                let (os, architecture) = (config.os, config.architecture);
                vec![Platform { os, architecture, variant: config.variant }]
            }
        };
        let (media_type, digest, size) = (fetched.media_type, fetched.digest, fetched.size);
        Ok(Offer { media_type, digest, size, platforms })
    }

    /// Every tag of a repository, as references.
    pub async fn tags(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Result<Vec<ImageReference>, Error> {
        let mut tried = Vec::new();
        for endpoint in endpoints(reference, &options.mirrors, &options.insecure) {
            let asked = async { self.session(reference, &endpoint, options)?.tags().await };
            match asked.await {
                Ok(tags) => {
                    let named = tags.iter().map(|tag| reference.with_tag(tag));
                    return Ok(named.collect::<Result<_, _>>()?);
                }
                Err(error) => tried.push((endpoint.base, error)),
            }
        }
        Err(match tried.pop() {
            Some((_, error)) if tried.is_empty() => error.into(),
            Some(last) => {
                tried.push(last);
                RegistryError::Nowhere(tried).into()
            }
            None => RegistryError::Nowhere(tried).into(),
        })
    }

    /// Checks credentials with a registry (`host[:port]`, as images are named after it).
    pub async fn check_login(
        &self,
        registry: &str,
        credentials: Option<&Credentials>,
        options: &PullOptions,
    ) -> Result<(), Error> {
        let mut last = RegistryError::Nowhere(Vec::new());
        for endpoint in endpoints(&any_image_of(registry)?, &[], &options.insecure) {
            let mut patience = options.patience;
            // Somebody waits for the answer, and whether TLS is spoken shows at the first try.
            patience.attempts = 1;
            let clients = &self.inner.clients;
            let session = Session::for_login(clients, &endpoint, credentials, patience)?;
            match session.enter().await {
                Ok(()) => return Ok(()),
                Err(error @ (RegistryError::Denied { .. } | RegistryError::Challenge(_))) => {
                    return Err(error.into());
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Asks a registry (Docker Hub's name is `docker.io`) for repositories about `term`.
    pub async fn search(
        &self,
        registry: &str,
        term: &str,
        limit: u32,
        options: &PullOptions,
    ) -> Result<Vec<Found>, Error> {
        let mut last = RegistryError::Nowhere(Vec::new());
        for mut endpoint in endpoints(&any_image_of(registry)?, &[], &options.insecure) {
            if registry == DEFAULT_REGISTRY {
                endpoint.base = HUB_SEARCH.to_owned();
            }
            let mut patience = options.patience;
            patience.attempts = 1;
            let (clients, auth) = (&self.inner.clients, options.auth.as_ref());
            let session = Session::for_login(clients, &endpoint, auth, patience)?;
            match session.search(term, limit, MAX_SEARCH).await {
                Ok(bytes) => {
                    let list: FoundList = serde_json::from_slice(&bytes).map_err(|error| {
                        let what = "the answer to the search".to_owned();
                        RegistryError::Document { what, why: error.to_string() }
                    })?;
                    return Ok(list.results);
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

/// A reference that leads to a registry.
fn any_image_of(registry: &str) -> Result<ImageReference, Error> {
    Ok(format!("{registry}/any").parse::<ImageReference>()?)
}
