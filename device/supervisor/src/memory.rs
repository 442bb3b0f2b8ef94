//! What the supervisor remembers of containers that the engine does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use minke_common_model::ids::{AppId, AppUuid, ServiceName};
use minke_device_store::Document;
use tokio::time::Instant;
use tracing::warn;

use crate::state::{ContainerId, Target};

#[cfg(test)]
mod tests;

/// How long an update that was asked for by force may take to be heard of. Longer than a request for
/// it may take, and its repetition.
pub(crate) const FORCE_HELD: Duration = Duration::from_secs(120);

/// Shared by the loop, its steps and the device API.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
    stopped: Document<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Containers that this supervisor stopped, or was asked to start again; on disk, for one that
    /// ended by itself must not be taken for one of these after a crash, nor the other way round.
    stopped: BTreeSet<ContainerId>,
    /// The disk holds other containers than these, for it did not take the last change.
    is_unsaved: bool,
    wishes: Wishes,
    /// Until when the locks of apps that have settled do not count either.
    force_held: Option<Instant>,
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
        let inner = Inner { stopped, ..Inner::default() };
        Memory { inner: Arc::new(Mutex::new(inner)), stopped: document }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is held")
    }

    /// What people asked for.
    pub fn wishes(&self) -> Wishes {
        self.lock().wishes.clone()
    }

    /// Changes what people asked for, and gives what it was before and after.
    pub fn wish(&self, change: impl FnOnce(&mut Wishes)) -> (Wishes, Wishes) {
        let wishes = &mut self.lock().wishes;
        let before = wishes.clone();
        change(wishes);
        (before, wishes.clone())
    }

    /// The locks of `apps` do not count in the update that is being asked for. Its target is not here
    /// yet, so for a while it is no sign of the end that the apps are as the last target wants them.
    pub fn force_update(&self, apps: impl IntoIterator<Item = AppUuid>) {
        let mut inner = self.lock();
        inner.wishes.force.extend(apps);
        inner.force_held = Some(Instant::now() + FORCE_HELD);
    }

    /// Takes back what one change did, and nothing that others did since.
    pub fn take_back(&self, (before, after): &(Wishes, Wishes)) {
        let wishes = &mut self.lock().wishes;
        undo(&mut wishes.must_go, &before.must_go, &after.must_go);
        undo(&mut wishes.stopped, &before.stopped, &after.stopped);
        undo(&mut wishes.purge, &before.purge, &after.purge);
        undo(&mut wishes.force, &before.force, &after.force);
    }

    pub fn was_stopped(&self, id: &ContainerId) -> bool {
        self.lock().stopped.contains(id)
    }

    /// Remembers, durably if the disk takes it, that this supervisor is about to stop a container.
    pub fn stopping(&self, id: &ContainerId) {
        self.change(|stopped| stopped.insert(id.clone()));
    }

    /// A container runs again or is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.change(|stopped| stopped.remove(id));
    }

    /// A disk that takes nothing is no error: only what is stopped can be removed, which may be what
    /// fills it. What could not be saved is saved with the next change.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<ContainerId>) -> bool) {
        let mut inner = self.lock();
        if !change(&mut inner.stopped) && !inner.is_unsaved {
            return;
        }
        let saved = self.stopped.save(&inner.stopped.iter().map(|id| id.0.clone()).collect());
        if let Err(error) = &saved {
            let reason = crate::reconcile::describe(error);
            warn!(reason, "which containers are stopped is not on disk");
        }
        inner.is_unsaved = saved.is_err();
    }

    /// Takes back wishes that are fulfilled: of containers that are gone, of apps that have settled.
    /// `true` when what should be here is not any more what it was.
    pub fn tidy(&self, here: &BTreeSet<ContainerId>, settled: &BTreeSet<AppUuid>) -> bool {
        let mut inner = self.lock();
        let purges = inner.wishes.purge.len();
        inner.wishes.must_go.retain(|id| here.contains(id));
        if inner.force_held.is_none_or(|until| until <= Instant::now()) {
            inner.wishes.force.retain(|app| !settled.contains(app));
        }
        inner.wishes.purge.retain(|app| !settled.contains(app));
        inner.wishes.purge.len() < purges
    }
}

fn undo<T: Ord + Clone>(now: &mut BTreeSet<T>, before: &BTreeSet<T>, after: &BTreeSet<T>) {
    now.retain(|wish| before.contains(wish) || !after.contains(wish));
    now.extend(before.difference(after).cloned());
}

impl Wishes {
    /// The target as it is with these wishes.
    pub fn apply(&self, target: &Target) -> Target {
        let mut target = target.clone();
        target.override_locks = self.override_locks;
        target.forced.clone_from(&self.force);
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
