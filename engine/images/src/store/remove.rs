//! Removing names and images by Docker's rules.
//!
//! A name is taken away first; the image goes with its last name, unless something uses it. By id, all
//! names go if there is at most one tag, and all are of its repository. What hangs below an unnamed
//! parent goes up as far as it can.

use std::sync::Arc;

use minke_common_model::image_reference::ImageReference;

use crate::error::Error;
use crate::ids::{DiffId, ImageId, chain_id};
use crate::image::Image;
use crate::options::{Pruned, RemoveOptions, Removed, Use};
use crate::progress::short_id;
use crate::store::index::Index;
use crate::store::inner::{Inner, State};
use crate::store::{Store, blocking};

impl Store {
    /// Removes a name, and the image with its last name.
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<Removed>, Error> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        blocking(move || inner.remove(&name, options)).await
    }

    /// Removes images that no container uses: those without a name, or all of them, if `filter` agrees.
    pub async fn prune(
        &self,
        dangling_only: bool,
        filter: impl Fn(&Image) -> bool,
    ) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let images =
            self.images().into_iter().filter(|image| !dangling_only || image.is_dangling());
        for image in images.filter(filter) {
            let names: Vec<String> = match image.tags.is_empty() {
                true => vec![image.id.to_string()],
                false => image.tags.iter().map(ImageReference::familiar).collect(),
            };
            for name in names {
                let inner = Arc::clone(&self.inner);
                let removed = blocking(move || inner.remove_counting(&name)).await;
                match removed {
                    Ok((removed, bytes)) => {
                        pruned.removed.extend(removed);
                        pruned.space_reclaimed += bytes;
                    }
                    // Used, or gone with an earlier one.
                    Err(Error::Conflict(_) | Error::NoSuchImage(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let collected = self.gc().await?;
        pruned.space_reclaimed += collected.bytes;
        Ok(pruned)
    }
}

/// Why an image must stay.
enum Obstacle {
    Children,
    Running(String),
    Names,
    Stopped(String),
}

impl Obstacle {
    fn is_hard(&self) -> bool {
        matches!(self, Self::Children | Self::Running(_))
    }

    fn is_use(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Stopped(_))
    }

    fn error(&self, id: &ImageId) -> Error {
        let way = if self.is_hard() { "cannot be forced" } else { "must be forced" };
        let why = match self {
            Self::Children => "image has dependent child images".to_owned(),
            Self::Running(holder) => {
                format!("image is being used by running container {}", short(holder))
            }
            Self::Names => "image is referenced in multiple repositories".to_owned(),
            Self::Stopped(holder) => {
                format!("image is being used by stopped container {}", short(holder))
            }
        };
        Error::Conflict(format!("unable to delete {} ({way}) - {why}", short_id(&id.0)))
    }
}

fn short(holder: &str) -> String {
    holder.chars().take(12).collect()
}

impl Inner {
    fn remove_counting(&self, name: &str) -> Result<(Vec<Removed>, u64), Error> {
        let size = |inner: &Self| -> u64 {
            inner.state().layers.values().map(|layer| layer.info.content_bytes).sum()
        };
        let before = size(self);
        let removed = self.remove(name, RemoveOptions::default())?;
        Ok((removed, before.saturating_sub(size(self))))
    }

    fn remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<Removed>, Error> {
        let id = self.state().find_any(name)?;
        let mut removed = Vec::new();
        let reference = self.state().named(name);
        let by_name = reference.is_some();
        if let Some(reference) = reference {
            self.check_name(&id, &reference, options.force)?;
            let is_last = self.state().is_last_name(&id, &reference);
            // The last name goes with its image in one change of the index: whoever is killed between
            // two would leave an image that nobody knows by name, and so nobody removes.
            if !is_last || self.obstacle(&id, options.force, true).is_some() {
                self.untag(&id, &reference, &mut removed)?;
                if self.state().has_names(&id) {
                    return Ok(removed);
                }
            }
        } else {
            let single = self.state().is_single_name(&id);
            if let Some(obstacle) = self.obstacle(&id, options.force, single) {
                return Err(obstacle.error(&id));
            }
        }
        self.remove_image(&id, options, by_name, &mut removed)?;
        Ok(removed)
    }

    /// The last name of an image that a container uses is not taken without force.
    fn check_name(
        &self,
        id: &ImageId,
        reference: &ImageReference,
        force: bool,
    ) -> Result<(), Error> {
        let state = self.state();
        if force || !state.is_single_name(id) {
            return Ok(());
        }
        let Some((holder, _)) = state.pins.iter().find(|(_, (used, _))| used == id) else {
            return Ok(());
        };
        Err(Error::Conflict(format!(
            "unable to remove repository reference \"{}\" (must force) - container {} is using its \
             referenced image {}",
            reference.familiar(),
            short(holder),
            short_id(&id.0)
        )))
    }

    fn untag(
        &self,
        id: &ImageId,
        reference: &ImageReference,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let id = *id;
        let gone = self.change_index(|index| {
            let mut gone = vec![reference.clone()];
            index.tags.remove(reference);
            index.digests.remove(reference);
            // Digests stay only while the repository has a tag of the image.
            let name = reference.name();
            let tagged = Index::names(&index.tags, &id).iter().any(|tag| tag.name() == name);
            if !tagged && reference.digest().is_none() {
                for digest in Index::names(&index.digests, &id) {
                    if digest.name() == name {
                        index.digests.remove(&digest);
                        gone.push(digest);
                    }
                }
            }
            Ok(gone)
        })?;
        removed.extend(gone.iter().map(|name| Removed::Untagged(name.familiar())));
        Ok(())
    }

    /// What stands in the way; soft obstacles only without force, several names only if asked for.
    fn obstacle(&self, id: &ImageId, force: bool, names_may_go: bool) -> Option<Obstacle> {
        let state = self.state();
        if !state.children(id).is_empty() {
            return Some(Obstacle::Children);
        }
        let used = |how: Use| {
            state.pins.iter().find(|(_, pin)| **pin == (*id, how)).map(|(holder, _)| holder.clone())
        };
        if let Some(holder) = used(Use::Running) {
            return Some(Obstacle::Running(holder));
        }
        if force {
            return None;
        }
        if !names_may_go && state.has_names(id) {
            return Some(Obstacle::Names);
        }
        used(Use::Stopped).map(Obstacle::Stopped)
    }

    fn remove_image(
        &self,
        id: &ImageId,
        options: RemoveOptions,
        quiet: bool,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let names_may_go = self.state().is_single_name(id);
        if let Some(obstacle) = self.obstacle(id, options.force, names_may_go) {
            // A name was asked to go and went: that the image stays is no failure.
            let stays = quiet && (obstacle.is_use() || self.state().has_names(id));
            return if stays { Ok(()) } else { Err(obstacle.error(id)) };
        }
        let (names, parent, layers, is_used) = {
            let state = self.state();
            let mut names = Index::names(&state.index.tags, id);
            names.extend(Index::names(&state.index.digests, id));
            let parent = state.index.images.get(id).and_then(|record| record.parent);
            let layers = state.layers_of(id).to_vec();
            let is_used = state.pins.values().any(|(used, _)| used == id);
            (names, parent, layers, is_used)
        };
        removed.extend(names.iter().map(|name| Removed::Untagged(name.familiar())));
        if is_used {
            self.hide(id)?;
            removed.push(Removed::Deleted(id.to_string()));
            return Ok(());
        }
        self.forget_images(std::slice::from_ref(id))?;
        removed.push(Removed::Deleted(id.to_string()));
        let pending = crate::store::pending::Pending::load_all(self)?;
        let kept = pending.iter().flat_map(|pending| pending.layers.clone()).collect();
        let gone = self.collect_layers(&kept);
        removed.extend(deleted_chains(&layers, &gone));
        match parent {
            Some(parent) if !options.no_prune => self.remove_parent(&parent, removed),
            _ => Ok(()),
        }
    }

    fn remove_parent(&self, parent: &ImageId, removed: &mut Vec<Removed>) -> Result<(), Error> {
        let unneeded = {
            let state = self.state();
            state.index.images.contains_key(parent)
                && !state.has_names(parent)
                && state.children(parent).is_empty()
                && !state.pins.values().any(|(used, _)| used == parent)
        };
        if !unneeded {
            return Ok(());
        }
        self.remove_image(parent, RemoveOptions::default(), true, removed)
    }

    fn hide(&self, id: &ImageId) -> Result<(), Error> {
        self.change_index(|index| {
            index.tags.retain(|_, of| of != id);
            index.digests.retain(|_, of| of != id);
            if let Some(record) = index.images.get_mut(id) {
                record.hidden = true;
                record.parent = None;
            }
            Ok(())
        })
    }
}

/// Docker names the stacks that went, highest first.
fn deleted_chains(layers: &[DiffId], gone: &[(DiffId, u64)]) -> Vec<Removed> {
    let is_gone = |layer: &DiffId| gone.iter().any(|(id, _)| id == layer);
    (1..=layers.len())
        .rev()
        .filter(|length| is_gone(&layers[length - 1]))
        .filter_map(|length| chain_id(&layers[..length]))
        .map(|chain| Removed::Deleted(chain.to_string()))
        .collect()
}

impl State {
    /// The reference that `name` is, if it is one rather than an id.
    fn named(&self, name: &str) -> Option<ImageReference> {
        let reference: ImageReference = name.parse().ok()?;
        let key = match reference.digest() {
            Some(digest) => reference.with_digest(*digest),
            None => reference.with_default_tag(),
        };
        let known = self.index.tags.contains_key(&key) || self.index.digests.contains_key(&key);
        known.then_some(key)
    }

    pub(crate) fn has_names(&self, id: &ImageId) -> bool {
        self.index.tags.values().chain(self.index.digests.values()).any(|of| of == id)
    }

    /// At most one tag, and every name of one repository.
    fn is_single_name(&self, id: &ImageId) -> bool {
        Index::names(&self.index.tags, id).len() <= 1 && self.repositories(id) <= 1
    }

    /// Whether an image has no name left when this one is taken away. A tag takes the digests of its
    /// repository with it.
    fn is_last_name(&self, id: &ImageId, reference: &ImageReference) -> bool {
        let is_lone_digest = || {
            Index::names(&self.index.tags, id).is_empty()
                && Index::names(&self.index.digests, id).len() == 1
        };
        self.is_single_name(id) && (reference.digest().is_none() || is_lone_digest())
    }

    fn repositories(&self, id: &ImageId) -> usize {
        let mut names = Index::names(&self.index.tags, id);
        names.extend(Index::names(&self.index.digests, id));
        let names: std::collections::BTreeSet<String> =
            names.iter().map(ImageReference::name).collect();
        names.len()
    }
}
