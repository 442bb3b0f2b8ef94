//! What the supervisor remembers of containers that the engine does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use minke_common_model::ids::{AppId, AppUuid, ServiceName};
use minke_device_store::{Document, StoreError};
use tracing::warn;

use crate::state::{ContainerId, Target};

/// Shared by the loop, its steps and the device API.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
    stopped: Document<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Containers that this supervisor stopped; on disk, for one that ended by itself must not be
    /// taken for one of these after a crash, nor the other way round.
    stopped: BTreeSet<ContainerId>,
    wishes: Wishes,
}

/// What people asked for through the device API. Not on disk: a request that a crash cuts off was
/// never answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Containers to be made anew.
    pub must_go: BTreeSet<ContainerId>,
    /// Services to be left stopped.
    pub stopped: BTreeSet<(AppId, ServiceName)>,
    /// Apps whose containers and volumes go before they come back.
    pub purge: BTreeSet<AppUuid>,
    /// Apps whose services' locks do not count until the app has settled.
    pub force: BTreeSet<AppUuid>,
    /// Every app's locks do not count: a configuration variable says so.
    pub override_locks: bool,
}

impl Memory {
    /// Reads what was remembered in the directory `dir`.
    pub fn open(dir: &Path) -> Memory {
        let document = Document::new(dir, "stopped");
        let stopped = match document.load() {
            Ok(loaded) => loaded.value().unwrap_or_default(),
            Err(error) => {
                warn!(%error, "which containers were stopped is forgotten");
                BTreeSet::new()
            }
        };
        let stopped = stopped.into_iter().map(ContainerId).collect();
        let inner = Inner { stopped, wishes: Wishes::default() };
        Memory { inner: Arc::new(Mutex::new(inner)), stopped: document }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is held")
    }

    /// What people asked for.
    pub fn wishes(&self) -> Wishes {
        self.lock().wishes.clone()
    }

    /// Changes what people asked for.
    pub fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.lock().wishes);
    }

    pub fn was_stopped(&self, id: &ContainerId) -> bool {
        self.lock().stopped.contains(id)
    }

    /// Remembers, durably, that this supervisor is about to stop a container.
    pub fn stopping(&self, id: &ContainerId) -> Result<(), StoreError> {
        self.change(|stopped| stopped.insert(id.clone()))
    }

    /// A container runs again or is gone.
    pub fn forget(&self, id: &ContainerId) -> Result<(), StoreError> {
        self.change(|stopped| stopped.remove(id))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<ContainerId>) -> bool,
    ) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if !change(&mut inner.stopped) {
            return Ok(());
        }
        self.stopped.save(&inner.stopped.iter().map(|id| id.0.clone()).collect())
    }

    /// A container that is gone needs nothing any more, and neither does one that is being looked
    /// after already.
    pub fn tidy(&self, here: &BTreeSet<ContainerId>, settled: &BTreeSet<AppUuid>) {
        let mut inner = self.lock();
        inner.wishes.must_go.retain(|id| here.contains(id));
        inner.wishes.force.retain(|app| !settled.contains(app));
        inner.wishes.purge.retain(|app| !settled.contains(app));
    }
}

impl Wishes {
    /// The target as it is with these wishes.
    pub fn apply(&self, target: &Target) -> Target {
        let mut target = target.clone();
        for (uuid, app) in &mut target.apps {
            app.purge = self.purge.contains(uuid);
            app.force = self.override_locks || self.force.contains(uuid);
            let services: BTreeMap<_, _> = std::mem::take(&mut app.services);
            app.services = services
                .into_iter()
                .map(|(name, mut service)| {
                    service.running &= !self.stopped.contains(&(app.id, name.clone()));
                    (name, service)
                })
                .collect();
        }
        target
    }
}
