//! Does one step. Makes no choices: the step says what, the target says with which values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use minke_common_model::ids::{AppUuid, DeviceUuid, ServiceName};
use minke_common_model::update_strategy::UpdateStrategy;
use minke_device_cloud_client::ConfigFile;
use minke_engine_client::wire::{CreateContainer, RegistryAuth};
use minke_engine_client::{Engine, PullImage, RemoveContainer};
use tokio::sync::watch;

use crate::compose::HASH_LABEL;
use crate::locks;
use crate::memory::Memory;
use crate::observe::Observer;
use crate::state::{ContainerId, ImageKey, LocalImage, Target};
use crate::step::Step;

/// How long the log of a container that ended may be read before it is removed.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Percent of each pull that is going on.
pub(crate) type Progress = BTreeMap<ImageKey, u8>;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PerformError {
    #[error(transparent)]
    Engine(#[from] minke_engine_client::Error),
    #[error("the update locks of app {app}")]
    Locks { app: AppUuid, source: std::io::Error },
    #[error("the directory of the locks of service {service}")]
    LockDirectory { service: ServiceName, source: std::io::Error },
    #[error("the target does not name it any more")]
    Gone,
}

/// Everything that steps need; clones share it.
#[derive(Clone)]
pub(crate) struct Performer<E> {
    pub engine: E,
    pub uuid: DeviceUuid,
    pub config: ConfigFile,
    pub lock_root: PathBuf,
    pub memory: Memory,
    pub observer: Observer,
    pub progress: watch::Sender<Progress>,
    /// Containers whose log is being read.
    pub followed: watch::Receiver<BTreeSet<ContainerId>>,
}

impl<E: Engine> Performer<E> {
    /// Does `step` of a plan for `target`.
    pub async fn perform(&self, step: &Step, target: &Target) -> Result<(), PerformError> {
        let engine = &self.engine;
        match step {
            Step::PullImage { image, reference } => self.pull(image, reference).await,
            Step::RemoveImage(image) => self.remove_image(image).await,
            Step::CreateNetwork(key) => {
                let in_apps = target.apps.values().find_map(|app| app.networks.get(key));
                let network = in_apps
                    .or_else(|| target.system_networks.get(key))
                    .ok_or(PerformError::Gone)?;
                engine.create_network(&network.body).await?;
                Ok(())
            }
            Step::RemoveNetwork(key) => absent_is_fine(engine.remove_network(key).await),
            Step::CreateVolume { app, volume } => {
                let app = target.apps.get(app).ok_or(PerformError::Gone)?;
                let body = app.volumes.get(volume).ok_or(PerformError::Gone)?;
                engine.create_volume(body).await?;
                Ok(())
            }
            Step::RemoveVolume(key) => absent_is_fine(engine.remove_volume(key, false).await),
            Step::TakeLocks { app, services, force } => self.take_locks(app, services, *force),
            Step::ReleaseLocks(app) => match self.observer.app_id(app) {
                None => Ok(()),
                Some(id) => locks::release(&self.lock_root, id)
                    .map_err(|source| PerformError::Locks { app: app.clone(), source }),
            },
            Step::CreateContainer { app, service, image, network_of } => {
                self.create(target, app, service, image, network_of.as_ref()).await
            }
            Step::StartContainer { id, .. } => {
                engine.start_container(&id.0).await?;
                self.memory.forget(id);
                Ok(())
            }
            Step::StopContainer { id, .. } => {
                self.memory.stopping(id);
                absent_is_fine(engine.stop_container(&id.0, None).await)
            }
            Step::RemoveContainer { id, .. } => {
                // Its last words go with it; but an engine that is slow to end a log holds up nothing.
                let mut followed = self.followed.clone();
                let read = followed.wait_for(|followed| !followed.contains(id));
                let _ = tokio::time::timeout(LAST_WORDS, read).await;
                let options = RemoveContainer { force: false, volumes: true };
                absent_is_fine(engine.remove_container(&id.0, options).await)?;
                self.memory.forget(id);
                Ok(())
            }
            Step::RenameContainer { id, name, .. } => {
                absent_is_fine(engine.rename_container(&id.0, name).await)
            }
        }
    }

    async fn pull(&self, key: &ImageKey, reference: &str) -> Result<(), PerformError> {
        let password = self.config.get().device_api_key.unwrap_or_default();
        let host = reference.split('/').next().unwrap_or_default();
        let auth = RegistryAuth {
            username: format!("d_{}", self.uuid),
            password,
            serveraddress: host.to_owned(),
            ..RegistryAuth::default()
        };
        let pull =
            PullImage { reference: reference.to_owned(), auth: Some(auth), ..PullImage::default() };
        // Also when this future is dropped, the pull is over.
        let _guard = ProgressGuard { progress: self.progress.clone(), key: key.clone() };
        let told = self.progress.clone();
        self.engine
            .pull_image(&pull, move |state| {
                let percent = state.percent();
                told.send_if_modified(|all| all.insert(key.clone(), percent) != Some(percent));
            })
            .await?;
        Ok(())
    }

    async fn remove_image(&self, image: &LocalImage) -> Result<(), PerformError> {
        let Some(details) = self.engine.image(&image.0).await? else { return Ok(()) };
        for name in details.repo_digests.iter().chain(&details.repo_tags) {
            absent_is_fine(self.engine.remove_image(name, false).await)?;
        }
        absent_is_fine(self.engine.remove_image(&image.0, false).await)
    }

    fn take_locks(
        &self,
        app: &AppUuid,
        services: &BTreeSet<ServiceName>,
        force: bool,
    ) -> Result<(), PerformError> {
        let Some(id) = self.observer.app_id(app) else { return Ok(()) };
        // "No" is not a failure: the next look sees whose the locks are.
        locks::take(&self.lock_root, id, services, force)
            .map(drop)
            .map_err(|source| PerformError::Locks { app: app.clone(), source })
    }

    async fn create(
        &self,
        target: &Target,
        app: &AppUuid,
        name: &ServiceName,
        image: &LocalImage,
        network_of: Option<&ContainerId>,
    ) -> Result<(), PerformError> {
        let app = target.apps.get(app).ok_or(PerformError::Gone)?;
        let service = app.services.get(name).ok_or(PerformError::Gone)?;
        let directory = |source| PerformError::LockDirectory { service: name.clone(), source };
        locks::prepare(&self.lock_root, app.id, name).map_err(directory)?;
        if service.strategy == UpdateStrategy::HandOver {
            for path in locks::handover_complete(&self.lock_root, app.id, name) {
                // What an earlier container said does not count for this one.
                let _ = std::fs::remove_file(path);
            }
        }
        let mut body: CreateContainer = (*service.body).clone();
        // By name where the name is known, for people who look at the engine; the server may have
        // moved since the image came.
        let known = self.engine.image(&service.reference).await?;
        let is_same = known.is_some_and(|known| known.id == image.0);
        body.config.image = if is_same { service.reference.clone() } else { image.0.clone() };
        if let Some(other) = network_of {
            body.host_config.network_mode = format!("container:{}", other.0);
        }
        match self.engine.create_container(&service.container_name, &body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => {
                // An earlier try whose answer was lost is as good as this one.
                let there = self.engine.container(&service.container_name).await?;
                let hash = there.and_then(|it| it.config.labels.get(HASH_LABEL).cloned());
                if hash.as_deref() == Some(&service.hash.0) { Ok(()) } else { Err(error.into()) }
            }
            Err(error) => Err(error.into()),
        }
    }
}

struct ProgressGuard {
    progress: watch::Sender<Progress>,
    key: ImageKey,
}

impl Drop for ProgressGuard {
    fn drop(&mut self) {
        self.progress.send_if_modified(|all| all.remove(&self.key).is_some());
    }
}

fn absent_is_fine(result: Result<(), minke_engine_client::Error>) -> Result<(), PerformError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}
