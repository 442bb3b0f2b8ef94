//! What the device has (`Observed`) and what it should have (`Target`), as the planner sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minke_common_model::ids::{AppId, AppUuid, Commit, ReleaseId, ServiceId, ServiceName};
use minke_common_model::update_strategy::UpdateStrategy;
use minke_engine_client::wire::{CreateContainer, CreateNetwork, CreateVolume};

/// What an image is, whichever server it came from: its digest, or its path and tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey(pub String);

impl ImageKey {
    /// Reads a reference `host/path@digest` or `host/path:tag`; the host never counts.
    pub fn of(reference: &str) -> ImageKey {
        if let Some((_, digest)) = reference.rsplit_once('@') {
            return ImageKey(digest.to_owned());
        }
        let path = match reference.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
            _ => reference,
        };
        let is_tagged = path.rsplit('/').next().is_some_and(|name| name.contains(':'));
        ImageKey(if is_tagged { path.to_owned() } else { format!("{path}:latest") })
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Equal for two containers, or two networks, that need not be made anew to become each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecHash(pub String);

/// The engine's id of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

/// The engine's id of an image: the digest of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalImage(pub String);

/// The engine's name of a network, e.g. `<app uuid>_default`.
pub type NetworkKey = String;
/// The engine's name of a volume, e.g. `<app id>_data`.
pub type VolumeKey = String;

/// What a dependency must have done before the service that names it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It was started once.
    Started,
    /// Its health check succeeds.
    Healthy,
    /// It ran to its end with exit code 0.
    Completed,
}

/// One service as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetService {
    pub id: ServiceId,
    /// Where to pull from, the host included.
    pub reference: String,
    pub image: ImageKey,
    pub hash: SpecHash,
    /// Name of the container; changes with the release alone.
    pub container_name: String,
    pub running: bool,
    pub strategy: UpdateStrategy,
    /// How long a hand-over waits for the new container's word.
    pub handover_timeout: Duration,
    pub depends_on: BTreeMap<ServiceName, Condition>,
    pub networks: BTreeSet<NetworkKey>,
    pub volumes: BTreeSet<VolumeKey>,
    /// The service whose network namespace this one lives in.
    pub shares_network_of: Option<ServiceName>,
    /// All of the create request but the image and the shared namespace.
    pub body: Arc<CreateContainer>,
}

/// A network as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetNetwork {
    pub hash: SpecHash,
    pub body: Arc<CreateNetwork>,
}

/// The release an app should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRelease {
    pub commit: Commit,
    pub id: ReleaseId,
}

/// One app as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetApp {
    pub id: AppId,
    pub name: String,
    pub release: Option<TargetRelease>,
    pub services: BTreeMap<ServiceName, TargetService>,
    pub networks: BTreeMap<NetworkKey, TargetNetwork>,
    pub volumes: BTreeMap<VolumeKey, Arc<CreateVolume>>,
    /// Containers and volumes go, then this is cleared and they come back empty.
    pub purge: bool,
    /// The services' own locks are removed, not waited for.
    pub force: bool,
}

/// Everything that should be on the device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Target {
    pub apps: BTreeMap<AppUuid, TargetApp>,
    /// Apps whose target breaks a rule: what runs of them goes on.
    pub untouched: BTreeSet<AppUuid>,
    /// Networks of the supervisor's own.
    pub system_networks: BTreeMap<NetworkKey, TargetNetwork>,
    /// No app's locks count, also those of apps that are to go.
    pub override_locks: bool,
    /// Apps that people forced; of those that are to go the locks do not count either.
    pub forced: BTreeSet<AppUuid>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerStatus {
    /// Made and never started.
    Created,
    Running {
        is_healthy: bool,
    },
    /// Ended: by itself, or because this supervisor stopped it.
    Exited {
        code: i64,
    },
    /// Cannot be started again.
    Dead,
}

impl ContainerStatus {
    /// Whether a process of it may be alive.
    pub fn is_running(self) -> bool {
        matches!(self, ContainerStatus::Running { .. })
    }
}

/// One container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    pub app: AppUuid,
    pub app_id: AppId,
    pub service: ServiceName,
    pub service_id: Option<ServiceId>,
    /// `None` for a container that another supervisor made.
    pub hash: Option<SpecHash>,
    pub image: LocalImage,
    pub name: String,
    pub status: ContainerStatus,
    /// Seconds since 1970.
    pub created: i64,
    pub networks: BTreeSet<NetworkKey>,
    /// The container whose network namespace it was made for, which may be gone.
    pub network_of: Option<ContainerId>,
    /// Somebody asked for a new one in its place.
    pub must_go: bool,
    /// It ended because this supervisor stopped it, or somebody asked to start it again: so it may be started.
    pub was_stopped: bool,
    /// The one that it replaces may go: it said so, or has had its time. Of one that was never started
    /// this says nothing.
    pub has_taken_over: bool,
}

/// One image in the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedImage {
    pub keys: BTreeSet<ImageKey>,
    pub references: BTreeSet<String>,
    /// Pulled by a supervisor: only those are cleaned up.
    pub is_ours: bool,
}

/// A network in the engine that a supervisor made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNetwork {
    /// `None` for one of the supervisor's own.
    pub app: Option<AppUuid>,
    pub hash: Option<SpecHash>,
}

/// Who holds the update locks of an app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locks {
    #[default]
    Free,
    /// This supervisor holds all of them.
    Ours,
    /// A service of the app holds at least one.
    Theirs,
}

/// Everything of ours that is on the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub images: BTreeMap<LocalImage, ObservedImage>,
    /// Images of containers that somebody else made.
    pub used_elsewhere: BTreeSet<LocalImage>,
    pub containers: BTreeMap<ContainerId, ObservedContainer>,
    pub networks: BTreeMap<NetworkKey, ObservedNetwork>,
    pub volumes: BTreeMap<VolumeKey, AppUuid>,
    /// An app that is not here has free locks.
    pub locks: BTreeMap<AppUuid, Locks>,
}

impl Observed {
    /// The engine's image that is `key`, if it is here.
    pub fn image(&self, key: &ImageKey) -> Option<(&LocalImage, &ObservedImage)> {
        self.images.iter().find(|(_, image)| image.keys.contains(key))
    }

    /// Whether a container needs this image, be it one of ours or not.
    pub fn uses_image(&self, image: &LocalImage) -> bool {
        self.used_elsewhere.contains(image)
            || self.containers.values().any(|container| &container.image == image)
    }

    /// The containers of one app.
    pub fn containers_of<'a>(
        &'a self,
        app: &'a AppUuid,
    ) -> impl Iterator<Item = (&'a ContainerId, &'a ObservedContainer)> {
        self.containers.iter().filter(move |(_, container)| &container.app == app)
    }

    /// Who holds the locks of an app.
    pub fn locks_of(&self, app: &AppUuid) -> Locks {
        self.locks.get(app).copied().unwrap_or_default()
    }
}

impl Target {
    /// Whether the services' own locks of an app are removed, not waited for.
    pub fn breaks_locks(&self, app: &AppUuid) -> bool {
        let is_forced = self.override_locks || self.forced.contains(app);
        self.apps.get(app).map_or(is_forced, |app| app.force)
    }

    /// Whether some service should run this image.
    pub fn wants_image(&self, image: &ObservedImage) -> bool {
        self.apps
            .values()
            .flat_map(|app| app.services.values())
            .any(|service| image.keys.contains(&service.image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_reference_never_counts() {
        let moved = ["10.0.0.1:8080/v2/ab@sha256:12", "fleet.example/v2/ab@sha256:12"];
        assert_eq!(ImageKey::of(moved[0]), ImageKey::of(moved[1]));
        assert_eq!(ImageKey::of("localhost/v2/ab"), ImageKey::of("a.b:80/v2/ab:latest"));
        assert_ne!(ImageKey::of("a.b/v2/ab:1"), ImageKey::of("a.b/v2/ab:2"));
        assert_eq!(ImageKey::of("busybox"), ImageKey::of("docker.io/busybox:latest"));
    }
}
