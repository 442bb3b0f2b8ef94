//! Checking at use: is a layer still what it was when every byte of it was known to be right?
//!
//! ```text
//! used ─► stamp as noted, and read lately? ─yes─► used
//!                      └─no─► read as a whole ─right─► noted anew, used
//!                                             └wrong─► marked, the image is not there any more
//! ```
//!
//! The stamp costs a look at each file and shows whatever was written by anybody. What a medium forgets
//! by itself shows only when it is read: [`scrub`](super::scrub) does that all the time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::layer;
use crate::store::commit::boot_id;
use crate::store::info::Checked;
use crate::store::inner::Inner;
use crate::store::pull;
use crate::store::verify::{Damage, Part};
use crate::store::{Store, blocking};

/// What is noted of a layer that is right at this moment; nothing if it cannot be looked at.
pub(crate) fn now(layer: &Path) -> Option<Checked> {
    let stamp = layer::stamp(layer).ok()?;
    Some(Checked { at: pull::now(), boot: boot_id(), stamp })
}

impl Checked {
    /// How long ago that was; nothing if it is in the future: the clock was set.
    pub(crate) fn age(&self) -> Option<Duration> {
        pull::now().checked_sub(self.at).map(Duration::from_millis)
    }
}

impl Store {
    /// Looks at what an image is made of before it is used, and says what is damaged, which is marked
    /// and not shown from then on. Reads a layer only if somebody wrote to it, or if that is overdue.
    pub async fn check(&self, id: &ImageId) -> Result<Vec<Damage>, Error> {
        let (inner, image) = (Arc::clone(&self.inner), *id);
        let (mut damaged, doubtful) = blocking(move || Ok(inner.look_at(&image))).await?;
        for layer in doubtful {
            let busy = self.inner.busy(&layer).await;
            let inner = Arc::clone(&self.inner);
            let read = blocking(move || {
                let _busy = busy;
                // Somebody else may have read it while we waited.
                if inner.is_as_noted(&layer) {
                    return Ok(None);
                }
                let found = inner.verify_layer(&layer)?.and_then(|read| read.damage);
                match found {
                    Some(Damage { part: part @ Part::Note(_), .. }) => {
                        inner.repair_part(&part).map(|_| None)
                    }
                    other => Ok(other),
                }
            });
            damaged.extend(read.await?);
        }
        Ok(damaged)
    }

    /// Something that ran on this image ended as if its files were damaged: its layers are read again
    /// before the next use, unless that was done lately.
    pub fn suspect(&self, id: &ImageId, lately: Duration) {
        let mut state = self.inner.state();
        for layer in state.layers_of(id).to_vec() {
            let Some(known) = state.layers.get_mut(&layer) else { continue };
            let age = known.info.checked.as_ref().and_then(Checked::age);
            if age.is_none_or(|age| age >= lately) {
                known.info.checked = None;
            }
        }
    }
}

impl Inner {
    /// What is damaged for all that is known, and the layers that must be read to know it.
    fn look_at(&self, id: &ImageId) -> (Vec<Damage>, Vec<DiffId>) {
        let mut damaged = Vec::new();
        if !self.state().index.images.contains_key(id) {
            return (damaged, Vec::new());
        }
        if let Err(error) = self.verify_config(id) {
            damaged.push(self.damage(Part::Config(*id), error.to_string()));
        }
        let layers = self.state().layers_of(id).to_vec();
        let mut doubtful = Vec::new();
        for layer in layers {
            if !self.has_layer(&layer) {
                let why = "it was found damaged before".to_owned();
                damaged.push(self.damage(Part::Layer(layer), why));
            } else if !self.is_as_noted(&layer) {
                doubtful.push(layer);
            }
        }
        (damaged, doubtful)
    }

    /// Whether nobody wrote to a layer since it was read as a whole, and that is not too long ago.
    fn is_as_noted(&self, layer: &DiffId) -> bool {
        let noted = self.state().layers.get(layer).and_then(|known| known.info.checked.clone());
        let Some(noted) = noted else { return false };
        let overdue = noted.age().is_some_and(|age| age >= self.options.overdue);
        !overdue && layer::stamp(&self.layer_dir(layer)).is_ok_and(|stamp| stamp == noted.stamp)
    }

    /// Notes that a layer was read as a whole and is right.
    pub(crate) fn note_checked(&self, layer: &DiffId, checked: Option<Checked>) {
        let info = {
            let mut state = self.state();
            let Some(known) = state.layers.get_mut(layer) else { return };
            known.info.checked = checked;
            known.info.clone()
        };
        if let Err(error) = info.save(&self.layer_dir(layer)) {
            tracing::debug!(%layer, %error, "when a layer was read is forgotten at the next start");
        }
    }
}
