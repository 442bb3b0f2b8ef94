//! One thing that can be done, and one reason to wait.

use std::collections::BTreeSet;
use std::fmt;

use minke_common_model::ids::{AppUuid, ServiceName};

use crate::state::{ContainerId, ImageKey, LocalImage, NetworkKey, VolumeKey};

/// One thing that can be done to the device. Doing it twice leaves the device as doing it once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    PullImage {
        image: ImageKey,
        reference: String,
    },
    RemoveImage(LocalImage),
    CreateNetwork(NetworkKey),
    RemoveNetwork(NetworkKey),
    CreateVolume {
        app: AppUuid,
        volume: VolumeKey,
    },
    RemoveVolume(VolumeKey),
    TakeLocks {
        app: AppUuid,
        /// All that have a lock: those that are wanted and those that are here.
        services: BTreeSet<ServiceName>,
        force: bool,
    },
    ReleaseLocks(AppUuid),
    CreateContainer {
        app: AppUuid,
        service: ServiceName,
        image: LocalImage,
        /// The container whose network namespace it joins.
        network_of: Option<ContainerId>,
    },
    StartContainer {
        id: ContainerId,
        service: ServiceName,
    },
    StopContainer {
        id: ContainerId,
        service: ServiceName,
    },
    RemoveContainer {
        id: ContainerId,
        service: ServiceName,
    },
    RenameContainer {
        id: ContainerId,
        service: ServiceName,
        name: String,
    },
}

/// Why what is left cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// A service of the app holds its update lock.
    UpdateLock(AppUuid),
    /// A dependency has not done what it must.
    Dependency { service: ServiceName, on: ServiceName },
    /// The new container has not taken over from the old.
    HandOver(ServiceName),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PullImage { reference, .. } => write!(f, "pull image {reference}"),
            Step::RemoveImage(image) => write!(f, "remove image {}", image.0),
            Step::CreateNetwork(network) => write!(f, "create network {network}"),
            Step::RemoveNetwork(network) => write!(f, "remove network {network}"),
            Step::CreateVolume { volume, .. } => write!(f, "create volume {volume}"),
            Step::RemoveVolume(volume) => write!(f, "remove volume {volume}"),
            Step::TakeLocks { app, .. } => write!(f, "take the update locks of app {app}"),
            Step::ReleaseLocks(app) => write!(f, "release the update locks of app {app}"),
            Step::CreateContainer { service, .. } => write!(f, "create service {service}"),
            Step::StartContainer { service, .. } => write!(f, "start service {service}"),
            Step::StopContainer { service, .. } => write!(f, "stop service {service}"),
            Step::RemoveContainer { service, .. } => write!(f, "remove service {service}"),
            Step::RenameContainer { service, name, .. } => {
                write!(f, "rename service {service} to {name}")
            }
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::UpdateLock(app) => write!(f, "the update lock of app {app}"),
            Wait::Dependency { service, on } => write!(f, "service {on}, which {service} needs"),
            Wait::HandOver(service) => write!(f, "service {service} to take over"),
        }
    }
}
