//! Looks at the engine and the locks, and says what is there in the planner's words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minke_common_model::ids::{AppId, AppUuid};
use minke_common_model::labels;
use minke_common_model::update_strategy::UpdateStrategy;
use minke_engine_client::wire::{ContainerSummary, HostNetwork, ImageSummary, Network, Volume};
use minke_engine_client::{Engine, Error};
use tokio::time::Instant;
use tracing::warn;

use crate::compose::HASH_LABEL;
use crate::locks;
use crate::memory::Memory;
use crate::state::{
    ContainerId, ContainerStatus, ImageKey, LocalImage, Observed, ObservedContainer, ObservedImage,
    ObservedNetwork, SpecHash, Target,
};

/// What an observation needs beside the engine.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    pub lock_root: PathBuf,
    pub memory: Memory,
    /// Apps that were seen: a lock has a number, a plan has a uuid.
    app_ids: Arc<Mutex<BTreeMap<AppUuid, AppId>>>,
    /// When each container was first seen started, by a clock that nobody sets.
    started: Arc<Mutex<BTreeMap<ContainerId, Instant>>>,
}

impl Observer {
    pub fn new(lock_root: &Path, memory: Memory) -> Observer {
        Observer {
            lock_root: lock_root.to_owned(),
            memory,
            app_ids: Arc::default(),
            started: Arc::default(),
        }
    }

    /// The number of an app that was seen or is wanted.
    pub fn app_id(&self, app: &AppUuid) -> Option<AppId> {
        self.app_ids.lock().expect("no panic while it is held").get(app).copied()
    }

    /// Four calls at once; `target` only says which waits are over.
    pub async fn observe<E: Engine>(&self, engine: &E, target: &Target) -> Result<Observed, Error> {
        // Also those of others: the engine does not remove an image that one of them uses.
        let (images, containers, networks, volumes) = tokio::try_join!(
            engine.images(),
            engine.containers(&[]),
            engine.networks(),
            engine.volumes(),
        )?;
        let mut observed = Observed {
            images: images.iter().map(image).collect(),
            networks: networks.iter().filter_map(network).collect(),
            volumes: volumes.iter().filter_map(|it| volume(it, target)).collect(),
            ..Observed::default()
        };
        for summary in &containers {
            let Some((id, mut container)) = container(summary) else {
                observed.used_elsewhere.insert(LocalImage(summary.image_id.clone()));
                continue;
            };
            container.must_go = self.memory.wishes().must_go.contains(&id);
            container.was_stopped = self.memory.was_stopped(&id);
            container.has_taken_over = self.has_taken_over(&id, &container, target);
            observed.containers.insert(id, container);
        }
        self.learn(&observed, target);
        self.open_lock_directories(&observed);
        let app_ids = self.app_ids.lock().expect("no panic while it is held").clone();
        observed.locks = app_ids
            .into_iter()
            .map(|(uuid, id)| (uuid, locks::state(&self.lock_root, id)))
            .collect();
        Ok(observed)
    }

    fn learn(&self, observed: &Observed, target: &Target) {
        let mut app_ids = self.app_ids.lock().expect("no panic while it is held");
        app_ids.extend(target.apps.iter().map(|(uuid, app)| (uuid.clone(), app.id)));
        app_ids.extend(observed.containers.values().map(|c| (c.app.clone(), c.app_id)));
        let mut started = self.started.lock().expect("no panic while it is held");
        started.retain(|id, _| observed.containers.contains_key(id));
    }

    /// After a reboot the engine starts containers before this supervisor runs, and makes what they
    /// mount for root alone: a service of another user could not lock.
    fn open_lock_directories(&self, observed: &Observed) {
        for container in observed.containers.values() {
            let service = &container.service;
            if let Err(error) = locks::prepare(&self.lock_root, container.app_id, service) {
                warn!(%service, %error, "its lock directory cannot be made writable");
            }
        }
    }

    /// How long this process has known that a container was started; `None` for one that was not.
    fn started_for(&self, id: &ContainerId, container: &ObservedContainer) -> Option<Duration> {
        if container.status == ContainerStatus::Created {
            return None;
        }
        let mut started = self.started.lock().expect("no panic while it is held");
        Some(started.entry(id.clone()).or_insert_with(Instant::now).elapsed())
    }

    fn has_taken_over(
        &self,
        id: &ContainerId,
        container: &ObservedContainer,
        target: &Target,
    ) -> bool {
        let started_for = self.started_for(id, container);
        let service =
            target.apps.get(&container.app).and_then(|a| a.services.get(&container.service));
        let Some(service) = service.filter(|s| s.strategy == UpdateStrategy::HandOver) else {
            return false;
        };
        let said = locks::handover_complete(&self.lock_root, container.app_id, &container.service);
        started_for.is_some_and(|time| time >= service.handover_timeout)
            || said.iter().any(|path| path.symlink_metadata().is_ok())
    }
}

fn image(summary: &ImageSummary) -> (LocalImage, ObservedImage) {
    let references: BTreeSet<String> = summary
        .repo_digests
        .iter()
        .chain(&summary.repo_tags)
        .filter(|reference| !reference.contains("<none>"))
        .cloned()
        .collect();
    let keys = references.iter().map(|reference| ImageKey::of(reference)).collect();
    let is_ours = references.iter().any(|reference| is_release_image(reference));
    (LocalImage(summary.id.clone()), ObservedImage { keys, references, is_ours })
}

/// Whether a reference is a server's: `host/v2/<32 hexadecimal digits>`.
fn is_release_image(reference: &str) -> bool {
    let path = reference.split(['@']).next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default().split(':').next().unwrap_or_default();
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()) && parts.next() == Some("v2")
}

/// Reads a container of ours; `None` for one that somebody else made.
fn container(summary: &ContainerSummary) -> Option<(ContainerId, ObservedContainer)> {
    let label = |name: &str| summary.labels.get(name).map(String::as_str);
    label(labels::SUPERVISED)?;
    let network_of = match HostNetwork::parse(&summary.host_config.network_mode) {
        HostNetwork::Container(id) => Some(ContainerId(id.to_owned())),
        _ => None,
    };
    let container = ObservedContainer {
        app: label(labels::APP_UUID)?.parse().ok()?,
        app_id: label(labels::APP_ID)?.parse().ok()?,
        service: label(labels::SERVICE_NAME)?.parse().ok()?,
        service_id: label(labels::SERVICE_ID).and_then(|id| id.parse().ok()),
        hash: label(HASH_LABEL).map(|hash| SpecHash(hash.to_owned())),
        image: LocalImage(summary.image_id.clone()),
        name: summary.names.first()?.trim_start_matches('/').to_owned(),
        status: status(&summary.state, &summary.status),
        created: summary.created,
        networks: summary.network_settings.networks.keys().cloned().collect(),
        network_of,
        must_go: false,
        was_stopped: false,
        has_taken_over: false,
    };
    Some((ContainerId(summary.id.clone()), container))
}

/// Reads `running` and `Up 3 minutes (healthy)`, `exited` and `Exited (0) 2 hours ago`.
fn status(state: &str, text: &str) -> ContainerStatus {
    match state {
        "created" => ContainerStatus::Created,
        "exited" => {
            let code = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            let code = code.and_then(|(code, _)| code.parse().ok()).unwrap_or(-1);
            ContainerStatus::Exited { code }
        }
        "dead" | "removing" => ContainerStatus::Dead,
        // It ended and waits for its next try: the text says nothing of its health.
        "restarting" => ContainerStatus::Running { is_healthy: false },
        _ => {
            let is_unwell = text.contains("(unhealthy)") || text.contains("(health: starting)");
            ContainerStatus::Running { is_healthy: !is_unwell }
        }
    }
}

fn network(network: &Network) -> Option<(String, ObservedNetwork)> {
    let label = |name: &str| network.labels.get(name).map(String::as_str);
    let is_ours = label(labels::SUPERVISED).is_some() || label(labels::APP_ID).is_some();
    if !is_ours {
        return None;
    }
    // balena's own supervisor says the app only in the name.
    let prefix = network.name.split_once('_').map(|(app, _)| app);
    let app = label(labels::APP_UUID).or(prefix).and_then(|app| app.parse().ok());
    let hash = label(HASH_LABEL).map(|hash| SpecHash(hash.to_owned()));
    Some((network.name.clone(), ObservedNetwork { app, hash }))
}

fn volume(volume: &Volume, target: &Target) -> Option<(String, AppUuid)> {
    let labelled = volume.labels.get(labels::APP_UUID).and_then(|app| app.parse().ok());
    // One that somebody made by hand, with the name that a release uses, is used.
    let named = || {
        let mut apps = target.apps.iter();
        apps.find(|(_, app)| app.volumes.contains_key(&volume.name)).map(|(uuid, _)| uuid.clone())
    };
    Some((volume.name.clone(), labelled.or_else(named)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_are_understood() {
        assert_eq!(status("created", "Created"), ContainerStatus::Created);
        assert_eq!(
            status("exited", "Exited (137) 2 hours ago"),
            ContainerStatus::Exited { code: 137 }
        );
        let running = |is_healthy| ContainerStatus::Running { is_healthy };
        assert_eq!(status("running", "Up 3 minutes"), running(true));
        assert_eq!(status("running", "Up 3 minutes (healthy)"), running(true));
        assert_eq!(status("running", "Up 1 second (health: starting)"), running(false));
        assert_eq!(status("restarting", "Restarting (1) 2 seconds ago"), running(false));
    }

    fn summary(service: &str, state: &str, text: &str) -> ContainerSummary {
        let labels = [
            (labels::SUPERVISED, "true"),
            (labels::APP_UUID, "app1"),
            (labels::APP_ID, "1"),
            (labels::SERVICE_NAME, service),
            (HASH_LABEL, "v1 1"),
        ];
        ContainerSummary {
            id: service.to_owned(),
            names: vec![format!("/{service}_1")],
            image_id: "v1".to_owned(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            state: state.to_owned(),
            status: text.to_owned(),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn a_service_waits_for_one_that_crashes_over_and_over_to_be_healthy() {
        use crate::plan::tests::{service, service_name, target, target_app};
        use crate::state::Condition;
        use crate::step::{Step, Wait};
        let here = [
            summary("db", "restarting", "Restarting (1) 2 seconds ago"),
            summary("web", "created", "Created"),
        ];
        let mut observed = Observed::default();
        observed.containers.extend(here.iter().filter_map(container));
        let keys = BTreeSet::from([ImageKey("v1".to_owned())]);
        let image = ObservedImage { keys, ..ObservedImage::default() };
        observed.images.insert(LocalImage("v1".to_owned()), image);
        let planned = |condition| {
            let mut web = service("v1", 1);
            web.depends_on.insert(service_name("db"), condition);
            let app = target_app(1, 1, vec![("web", web), ("db", service("v1", 1))]);
            crate::plan::plan(&observed, &target(vec![app]))
        };
        let wait = Wait::Dependency { service: service_name("web"), on: service_name("db") };
        let blocked = planned(Condition::Healthy);
        assert_eq!((blocked.steps, blocked.waits), (BTreeSet::new(), BTreeSet::from([wait])));
        // It was started, which is all that others ask for.
        let start =
            Step::StartContainer { id: ContainerId("web".into()), service: service_name("web") };
        assert_eq!(planned(Condition::Started).steps, BTreeSet::from([start]));
    }

    #[test]
    fn only_images_of_releases_are_cleaned_up() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(is_release_image(&format!("10.0.0.1:80/v2/{hex}@sha256:12")));
        assert!(is_release_image(&format!("registry2.example/v2/{hex}:latest")));
        assert!(!is_release_image("busybox:latest"));
        assert!(!is_release_image(&format!("example/{hex}")));
    }
}
