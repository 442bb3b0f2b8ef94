//! A device in memory: the planner's only contact with cause and effect.

use std::collections::BTreeSet;

use minke_common_model::ids::{AppUuid, ServiceName};

use crate::state::*;
use crate::step::Step;

pub(crate) fn app_uuid(number: u64) -> AppUuid {
    format!("app{number}").parse().unwrap()
}

pub(crate) fn service_name(name: &str) -> ServiceName {
    name.parse().unwrap()
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Device {
    pub observed: Observed,
    pub clock: i64,
    /// The directories of locks: without one nothing can be locked.
    pub lock_directories: BTreeSet<(AppUuid, ServiceName)>,
}

impl Device {
    pub fn pull(&mut self, key: &ImageKey, is_ours: bool) {
        let image = self.observed.images.entry(LocalImage(format!("local {key}"))).or_default();
        image.keys.insert(key.clone());
        image.is_ours = is_ours;
    }

    /// Every container has had the time of a hand-over, also one that still waits for its start.
    pub fn time_passes(&mut self) {
        self.clock += 1;
        for container in self.observed.containers.values_mut() {
            container.has_taken_over = true;
        }
    }

    /// Locks are forgotten, and their directories: the engine makes those of what it starts.
    pub fn reboot(&mut self) {
        self.observed.locks.clear();
        let containers = self.observed.containers.values();
        let running = containers.filter(|container| container.status.is_running());
        self.lock_directories = running.map(|c| (c.app.clone(), c.service.clone())).collect();
    }

    fn take_locks(&mut self, app: &AppUuid, services: &BTreeSet<ServiceName>, force: bool) {
        let directories = services.iter().map(|service| (app.clone(), service.clone()));
        self.lock_directories.extend(directories);
        let has_directory = self.lock_directories.iter().any(|(of, _)| of == app);
        if has_directory && (self.observed.locks_of(app) != Locks::Theirs || force) {
            self.observed.locks.insert(app.clone(), Locks::Ours);
        }
    }

    /// Does a step; panics where a real engine would refuse.
    pub fn apply(&mut self, step: &Step, target: &Target) {
        let observed = &mut self.observed;
        match step {
            Step::PullImage { image, .. } => self.pull(image, true),
            Step::RemoveImage(image) => {
                assert!(!observed.uses_image(image), "a container uses {image:?}");
                observed.images.remove(image);
            }
            Step::CreateNetwork(key) => {
                let (app, hash) = target
                    .apps
                    .iter()
                    .find_map(|(uuid, app)| {
                        Some((Some(uuid.clone()), app.networks.get(key)?.hash.clone()))
                    })
                    .or_else(|| Some((None, target.system_networks.get(key)?.hash.clone())))
                    .expect("a network that the target names");
                observed.networks.insert(key.clone(), ObservedNetwork { app, hash: Some(hash) });
            }
            Step::RemoveNetwork(key) => {
                let is_used = observed.containers.values().any(|c| c.networks.contains(key));
                assert!(!is_used, "a container is in {key}");
                observed.networks.remove(key);
            }
            Step::CreateVolume { app, volume } => {
                observed.volumes.insert(volume.clone(), app.clone());
            }
            Step::RemoveVolume(key) => {
                observed.volumes.remove(key);
            }
            Step::TakeLocks { app, services, force } => self.take_locks(app, services, *force),
            Step::ReleaseLocks(app) => {
                observed.locks.remove(app);
            }
            Step::CreateContainer { app, service, image, network_of } => {
                self.create(target, app, service, image, network_of.as_ref());
            }
            Step::StartContainer { id, .. } => {
                let container = observed.containers.get_mut(id).expect("a container");
                container.status = ContainerStatus::Running { is_healthy: true };
            }
            Step::StopContainer { id, .. } => {
                let container = observed.containers.get_mut(id).expect("a container");
                container.status = ContainerStatus::Exited { code: 143 };
                container.was_stopped = true;
            }
            Step::RemoveContainer { id, .. } => {
                let container = observed.containers.remove(id).expect("a container");
                assert!(!container.status.is_running(), "it runs");
            }
            Step::RenameContainer { id, name, .. } => {
                let app = observed.containers[id].app.clone();
                let mut others = observed.containers.iter().filter(|(other, _)| *other != id);
                let is_taken = others.any(|(_, c)| c.app == app && &c.name == name);
                assert!(!is_taken, "{name} is taken");
                observed.containers.get_mut(id).expect("a container").name = name.clone();
            }
        }
    }

    fn create(
        &mut self,
        target: &Target,
        app: &AppUuid,
        service: &ServiceName,
        image: &LocalImage,
        network_of: Option<&ContainerId>,
    ) {
        let wanted = &target.apps[app].services[service];
        let observed = &mut self.observed;
        assert!(observed.images.contains_key(image), "its image is absent");
        assert!(network_of.is_none_or(|other| observed.containers.contains_key(other)));
        for network in &wanted.networks {
            assert!(observed.networks.contains_key(network), "its network is absent");
        }
        let name = wanted.container_name.clone();
        let is_taken = observed.containers.values().any(|c| c.app == *app && c.name == name);
        assert!(!is_taken, "{name} is taken");
        // Ids follow from what is made, so that the order of steps does not show.
        let id = format!("{app} {name} {} {}", wanted.hash.0, self.clock);
        let container = ObservedContainer {
            app: app.clone(),
            app_id: target.apps[app].id,
            service: service.clone(),
            service_id: Some(wanted.id),
            hash: Some(wanted.hash.clone()),
            image: image.clone(),
            name,
            status: ContainerStatus::Created,
            created: self.clock,
            networks: wanted.networks.clone(),
            network_of: network_of.cloned(),
            must_go: false,
            was_stopped: false,
            has_taken_over: false,
        };
        observed.containers.insert(ContainerId(id), container);
        self.lock_directories.insert((app.clone(), service.clone()));
    }
}
