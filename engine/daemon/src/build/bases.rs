//! Images that a build begins with or copies from: each found or pulled once in a build.
//!
//! Where strangers build side by side, an image that one of them has brought here with credentials is no
//! other's: its registry is asked with the credentials of whoever builds, by a pull that fetches only what
//! is not here. Ids, which no registry knows, lead to nothing there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::RegistryAuth;
use minke_engine_images::{
    Credentials, Error, ErrorKind, Image, ImageId, Platform, ProgressEvent, PullOptions, chain,
};
use tokio::sync::OnceCell;

use crate::build::cache::{Imports, MAX_IMPORTS};
use crate::build::output::Output;
use crate::build::stage::Failure;
use crate::build::stages::Build;

/// How often an image is looked for that is removed as soon as it is found.
const MAX_FINDS: usize = 3;

/// What a build has found so far, by name and platform.
#[derive(Default)]
pub(crate) struct Bases {
    found: Mutex<BTreeMap<String, Arc<OnceCell<Image>>>>,
}

impl Build {
    /// The platform that is built for, unless a stage says another.
    pub(crate) fn platform(&self) -> Platform {
        self.request.platform.clone().unwrap_or_else(Platform::host)
    }

    /// An image: the one that is here, or pulled. It stays until the build ends. `platform` is one that
    /// was asked for.
    pub(crate) async fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &Output,
    ) -> Result<Image, Failure> {
        let place = {
            let mut found = self.bases.found.lock().unwrap_or_else(PoisonError::into_inner);
            let key = format!("{name} {}", platform.map(ToString::to_string).unwrap_or_default());
            found.entry(key).or_default().clone()
        };
        let found = place.get_or_try_init(|| self.hold(name, platform, output)).await;
        found.cloned()
    }

    /// Finds an image and pins it. Its layers are read long after: of one that was removed meanwhile a
    /// copy would take half, and the cache would keep that.
    async fn hold(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &Output,
    ) -> Result<Image, Failure> {
        for _ in 0..MAX_FINDS {
            let image = self.find(name, platform, output).await?;
            match self.pin(&image.id) {
                Ok(()) => return Ok(image),
                // Somebody was faster: it is not here, so the next look pulls it.
                Err(Error::NoSuchImage(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let text = format!("the image `{name}` was removed {MAX_FINDS} times as it was found");
        Err(Failure::text(text))
    }

    async fn find(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &Output,
    ) -> Result<Image, Failure> {
        let fits = |image: &Image| {
            let own = image.config.architecture.as_str();
            platform.is_none_or(|wanted| own.is_empty() || own == wanted.architecture)
        };
        if !self.request.pull
            && let Some(image) = self.here(name)
            && fits(&image)
        {
            return Ok(image);
        }
        let _slot = self.slot().await;
        let reference: ImageReference =
            name.parse().map_err(|e| Failure::text(format!("invalid image name `{name}`: {e}")))?;
        let pulled = self.pull(&reference, platform, output).await;
        let pulled = match pulled {
            Err(error) if self.builder.shared => return Err(not_to_be_had(name, &error)),
            pulled => pulled?,
        };
        Ok(self.builder.store.image_by_id(&pulled)?)
    }

    /// The image that is here, if this build may have it unasked.
    fn here(&self, name: &str) -> Option<Image> {
        let store = &self.builder.store;
        match self.builder.shared {
            true => store.public_image(&name.parse().ok()?),
            false => store.image(name).ok(),
        }
    }

    async fn pull(
        &self,
        reference: &ImageReference,
        platform: Option<&Platform>,
        output: &Output,
    ) -> Result<ImageId, Error> {
        let options = PullOptions {
            auth: self.credentials(reference),
            platform: Some(platform.cloned().unwrap_or_else(|| self.platform())),
            ..PullOptions::clone(&self.builder.pull)
        };
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<ProgressEvent>(64);
        // A slow client misses lines of progress rather than slowing the pull down.
        let progress = move |event| drop(sender.try_send(event));
        let pull = self.builder.store.pull(reference, &options, progress);
        let show = async {
            while let Some(event) = receiver.recv().await {
                output.progress(&event.to_json()).await;
            }
        };
        let (pulled, ()) = tokio::join!(pull, show);
        pulled
    }

    fn credentials(&self, reference: &ImageReference) -> Option<Credentials> {
        let host = reference.registry();
        let hub = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
        let names: Vec<&str> = if hub[1..].contains(&host) { hub.to_vec() } else { vec![host] };
        let found: &RegistryAuth = names.iter().find_map(|n| self.request.registries.get(*n))?;
        Some(match found {
            auth if !auth.registrytoken.is_empty() => {
                Credentials::RegistryToken(auth.registrytoken.clone())
            }
            auth if !auth.identitytoken.is_empty() => {
                Credentials::IdentityToken(auth.identitytoken.clone())
            }
            auth => Credentials::Basic {
                username: auth.username.clone(),
                password: auth.password.clone(),
            },
        })
    }

    /// What `--cache-from` names; what cannot be had is said and left out.
    pub(crate) async fn imports(&self) -> Imports {
        let mut imports = Imports::default();
        if self.request.no_cache {
            return imports;
        }
        let platform = self.request.platform.as_ref();
        for name in self.request.cache_from.iter().take(MAX_IMPORTS) {
            // One that is here is good enough, even where bases are pulled anew.
            let found = match self.here(name) {
                Some(image) if self.pin(&image.id).is_ok() => Ok(image),
                _ => self.image(name, platform, &self.output).await,
            };
            match found {
                Ok(image) => imports.add(&image.config),
                Err(failure) => {
                    let why = failure.message;
                    let text = format!("[Warning] nothing is taken from {name}: {why}\n");
                    self.output.text(&text).await;
                }
            }
        }
        imports
    }
}

/// What is said of an image that another build may have brought here: the same whether one has or not.
fn not_to_be_had(name: &str, error: &Error) -> Failure {
    let why = chain(error);
    Failure::text(match error.kind() {
        ErrorKind::Denied => format!("the image `{name}` is refused by its registry: {why}"),
        ErrorKind::Unavailable => {
            format!("the image `{name}` cannot be had, as its registry does not answer: {why}")
        }
        _ => format!("the image `{name}` cannot be had: {why}"),
    })
}
