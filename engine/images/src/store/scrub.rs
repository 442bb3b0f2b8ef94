//! Reading everything again from time to time, so that what a medium forgets is noticed while it can
//! still be fetched, and before somebody runs it.
//!
//! Layer by layer, the one first that was read longest ago. When each was read is noted on the disk, so
//! that an engine that is started often comes to the end all the same. A new boot makes all layers due:
//! what a power cut did to a medium is found soon after it.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::ids::DiffId;
use crate::layer;
use crate::store::commit::boot_id;
use crate::store::info::Checked;
use crate::store::inner::{Inner, State};
use crate::store::verify::{Damage, Part, of_layer};
use crate::store::{Store, blocking, checked};

/// The stack of the thread that reads.
const STACK: usize = 512 << 10;
/// The lowest priority that there is.
const NICEST: i32 = 19;

/// How the store's files stand, for all that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Layers that are damaged and not fetched again yet.
    pub damaged: u64,
    /// When the layer was read whose last reading is longest ago, in milliseconds since 1970; nothing
    /// without layers, 0 if one was never read.
    pub read_since: Option<u64>,
}

impl Store {
    /// How long until a layer is due to be read again; nothing without layers.
    pub fn scrub_due(&self) -> Option<Duration> {
        let boot = boot_id();
        let state = self.inner.state();
        let every = self.inner.options.scrub;
        let good = state.layers.values().filter(|layer| !layer.broken);
        good.map(|layer| wait(layer.info.checked.as_ref(), &boot, every)).min()
    }

    /// Reads the layer that was read longest ago, and the small files; says what is damaged, which is
    /// marked. Takes as long as it takes: it gives way to everybody.
    pub async fn scrub(&self) -> Result<Vec<Damage>, Error> {
        let inner = Arc::clone(&self.inner);
        let (_, mut damaged) = blocking(move || inner.verify_documents()).await?;
        let Some(layer) = self.inner.read_longest_ago() else { return Ok(damaged) };
        if self.read_gently(layer).await? {
            return Ok(damaged);
        }
        // The layer was not locked: it may have gone or come anew meanwhile. So it is read once more.
        let busy = self.inner.busy(&layer).await;
        let inner = Arc::clone(&self.inner);
        let read = blocking(move || {
            let _busy = busy;
            inner.verify_layer(&layer)
        });
        damaged.extend(read.await?.and_then(|read| read.damage));
        Ok(damaged)
    }

    /// What is known to be damaged at this moment.
    pub fn damaged(&self) -> Vec<Damage> {
        let (layers, images): (Vec<DiffId>, Vec<_>) = {
            let state = self.inner.state();
            let layers = state.layers.iter().filter(|(_, layer)| layer.broken);
            let images = state.index.images.keys().filter(|id| !state.configs.contains_key(*id));
            (layers.map(|(id, _)| *id).collect(), images.copied().collect())
        };
        let parts = layers.into_iter().map(Part::Layer);
        let parts = parts.chain(images.into_iter().map(Part::Config));
        let why = "it was found damaged before";
        parts.map(|part| self.inner.damage(part, why.to_owned())).collect()
    }

    /// How the files stand.
    pub fn standing(&self) -> Standing {
        let state = self.inner.state();
        let layers = state.layers.values();
        let read = layers.clone().filter(|layer| !layer.broken);
        let at = |checked: Option<&Checked>| checked.map_or(0, |checked| checked.at);
        Standing {
            damaged: layers.filter(|layer| layer.broken).count() as u64,
            read_since: read.map(|layer| at(layer.info.checked.as_ref())).min(),
        }
    }

    /// Whether a layer is right. A thread of its own reads: its priority cannot be given back.
    async fn read_gently(&self, id: DiffId) -> Result<bool, Error> {
        let inner = Arc::clone(&self.inner);
        let (sender, ended) = oneshot::channel();
        let read = move || {
            // An engine that may not do this reads all the same.
            let _ = setpriority_process(None, NICEST);
            let dir = inner.layer_dir(&id);
            let before = checked::now(&dir);
            let good = of_layer(&id, layer::check_gently(&dir)).is_ok();
            if good {
                inner.note_checked(&id, before);
            }
            // Nobody waits when the engine ends.
            let _ = sender.send(good);
        };
        let thread = std::thread::Builder::new().name("images-scrub".to_owned()).stack_size(STACK);
        thread
            .spawn(read)
            .map_err(|error| Error::io("reading", self.inner.layer_dir(&id), error))?;
        ended.await.map_err(|_| Error::Cancelled)
    }
}

impl Inner {
    fn read_longest_ago(&self) -> Option<DiffId> {
        let boot = boot_id();
        let state: &State = &self.state();
        let good = state.layers.iter().filter(|(_, layer)| !layer.broken);
        let due = |checked: Option<&Checked>| {
            let at = checked.map_or(0, |checked| checked.at);
            (wait(checked, &boot, self.options.scrub), at)
        };
        good.min_by_key(|(_, layer)| due(layer.info.checked.as_ref())).map(|(id, _)| *id)
    }
}

/// How long a layer may wait that was read then.
fn wait(checked: Option<&Checked>, boot: &str, every: Duration) -> Duration {
    let of_boot = checked.filter(|checked| checked.boot == boot);
    let age = of_boot.and_then(Checked::age);
    age.map_or(Duration::ZERO, |age| every.saturating_sub(age))
}
