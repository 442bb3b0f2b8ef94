//! The phases of one app.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};

use minke_common_model::ids::{AppUuid, ServiceName};
use minke_common_model::update_strategy::UpdateStrategy;

use super::Plan;
use crate::state::{
    Condition, ContainerId, ContainerStatus, LocalImage, Locks, NetworkKey, Observed,
    ObservedContainer, SpecHash, Target, TargetApp, TargetService,
};
use crate::step::{Step, Wait};

type Containers<'a> = BTreeMap<&'a ContainerId, &'a ObservedContainer>;

/// What is here of one app, sorted by whether it is wanted.
struct Sorted<'a> {
    /// The one container of each service that is as it should be.
    wanted: BTreeMap<&'a ServiceName, (&'a ContainerId, &'a ObservedContainer)>,
    /// The containers that are to go, by service.
    unwanted: BTreeMap<&'a ServiceName, Containers<'a>>,
}

/// Plans the next phase of an app that should be here.
pub(super) fn advance(
    observed: &Observed,
    target: &Target,
    uuid: &AppUuid,
    app: &TargetApp,
) -> Plan {
    let sorted = sort(observed, uuid, app);
    let images: BTreeMap<&ServiceName, &LocalImage> = wanted_services(app)
        .filter_map(|(name, service)| Some((name, observed.image(&service.image)?.0)))
        .collect();
    let missing: Vec<_> =
        wanted_services(app).filter(|(name, _)| !images.contains_key(name)).collect();
    if !missing.is_empty() {
        return fetch::fetch(observed, target, uuid, app, &sorted, &missing);
    }

    let mut guarded = Plan::default();
    let mut free = Plan::default();
    for (service, containers) in &sorted.unwanted {
        if hands_over(observed, app, &sorted, service) {
            guarded.merge(make_way(app, &sorted, service, containers));
        } else {
            guarded.merge(retire(containers));
        }
    }
    free.merge(networks(observed, uuid, app));
    free.merge(volumes(observed, uuid, app));
    for (name, service) in wanted_services(app) {
        match sorted.wanted.get(name) {
            None if can_create(observed, target, app, &sorted, name) => {
                guarded.merge(create(&sorted, uuid, name, service, images[name]));
            }
            None => {}
            Some((id, container)) => {
                let part = settle(app, &sorted, name, service, id, container);
                if needs_no_lock(container, service) { &mut free } else { &mut guarded }
                    .merge(part);
            }
        }
    }
    let mut plan = guard(observed, target, uuid, guarded);
    plan.merge(free);
    if plan.is_converged() {
        plan.merge(release(observed, uuid));
    }
    plan
}

/// Plans the next phase of an app that should not be here: its data goes with it.
pub(super) fn remove(observed: &Observed, target: &Target, uuid: &AppUuid) -> Plan {
    let containers: Containers = observed.containers_of(uuid).collect();
    if !containers.is_empty() {
        return guard(observed, target, uuid, retire(&containers));
    }
    let mut plan = Plan::default();
    for (network, of) in &observed.networks {
        if of.app.as_ref() == Some(uuid) {
            plan.steps.insert(Step::RemoveNetwork(network.clone()));
        }
    }
    for (volume, of) in &observed.volumes {
        if of == uuid {
            plan.steps.insert(Step::RemoveVolume(volume.clone()));
        }
    }
    if plan.is_converged() {
        plan.merge(release(observed, uuid));
    }
    plan
}

/// Makes a network that is not here; replaces one that is another.
pub(super) fn ensure_network(observed: &Observed, key: &NetworkKey, hash: &SpecHash) -> Plan {
    match observed.networks.get(key) {
        None => Plan::of(Step::CreateNetwork(key.clone())),
        Some(network) if network.hash.as_ref() == Some(hash) => Plan::default(),
        Some(_) => remove_network(observed, key),
    }
}

/// The services that should have a container.
fn wanted_services(app: &TargetApp) -> impl Iterator<Item = (&ServiceName, &TargetService)> {
    app.services.iter().filter(|_| !app.purge)
}

fn sort<'a>(observed: &'a Observed, uuid: &'a AppUuid, app: &TargetApp) -> Sorted<'a> {
    let mut sorted = Sorted { wanted: BTreeMap::new(), unwanted: BTreeMap::new() };
    let mut here: Vec<_> = observed.containers_of(uuid).collect();
    // Which container of a service is wanted has to be known before those in its namespace are.
    here.sort_by_key(|(_, container)| hosts_of(app, &container.service));
    for (id, container) in here {
        let service = app.services.get(&container.service).filter(|_| !app.purge);
        let is_wanted = service.is_some_and(|service| {
            is_as_wanted(container, service) && is_in_its_place(container, service, &sorted)
        });
        let displaced = if is_wanted {
            match sorted.wanted.get(&container.service) {
                // Of two that are equal, the one that runs stays, then the newer.
                Some((_, other)) if rank(other) >= rank(container) => Some((id, container)),
                _ => sorted.wanted.insert(&container.service, (id, container)),
            }
        } else {
            Some((id, container))
        };
        if let Some((id, container)) = displaced {
            sorted.unwanted.entry(&container.service).or_default().insert(id, container);
        }
    }
    sorted
}

fn is_as_wanted(container: &ObservedContainer, service: &TargetService) -> bool {
    container.hash.as_ref() == Some(&service.hash)
        && !container.must_go
        && container.status != ContainerStatus::Dead
}

/// How many services' namespaces lead from that of a service to one that a container has to itself.
fn hosts_of(app: &TargetApp, name: &ServiceName) -> usize {
    let host_of = |name: &ServiceName| app.services.get(name)?.shares_network_of.clone();
    // There is no cycle, so a chain is at most as long as there are services.
    std::iter::successors(host_of(name), host_of).take(app.services.len()).count()
}

/// Whether a container is in the namespace where its service should be. That of a container which was
/// made anew is another, and that of one that is gone lets nobody in.
fn is_in_its_place(
    container: &ObservedContainer,
    service: &TargetService,
    sorted: &Sorted,
) -> bool {
    match (&service.shares_network_of, &container.network_of) {
        (None, of) => of.is_none(),
        (Some(host), Some(of)) => sorted.wanted.get(host).is_some_and(|(id, _)| *id == of),
        (Some(_), None) => false,
    }
}

fn rank(container: &ObservedContainer) -> (bool, i64) {
    (container.status.is_running(), container.created)
}

/// Stops, then removes.
fn retire(containers: &Containers) -> Plan {
    let steps = containers.iter().map(|(id, container)| {
        let (id, service) = ((*id).clone(), container.service.clone());
        match container.status.is_running() {
            true => Step::StopContainer { id, service },
            false => Step::RemoveContainer { id, service },
        }
    });
    Plan { steps: steps.collect(), ..Plan::default() }
}

/// Whether the old containers of a service stay until its new one has taken over. Not where a
/// network has to be made anew, which cannot be while they are in it.
fn hands_over(observed: &Observed, app: &TargetApp, sorted: &Sorted, name: &ServiceName) -> bool {
    let Some(service) = app.services.get(name).filter(|_| !app.purge) else { return false };
    let old = &sorted.unwanted[name];
    let was_asked_to_go = old.values().any(|container| container.must_go);
    let is_stale = |key: &NetworkKey| {
        let here = observed.networks.get(key).map(|network| network.hash.as_ref());
        let wanted = app.networks.get(key).map(|network| &network.hash);
        here.is_some() && wanted.is_some() && here.flatten() != wanted
    };
    service.strategy == UpdateStrategy::HandOver
        && service.running
        && !was_asked_to_go
        && !old.values().flat_map(|container| &container.networks).any(is_stale)
}

/// Retires the old containers of a hand-over when the new one says so; renames one that has the
/// new one's name.
fn make_way(app: &TargetApp, sorted: &Sorted, name: &ServiceName, old: &Containers) -> Plan {
    match sorted.wanted.get(name) {
        // One that still waits for its start has taken nothing over, whatever a file or a clock says.
        Some((_, new)) if new.status != ContainerStatus::Created => match new.has_taken_over {
            true => retire(old),
            false => Plan::waiting(Wait::HandOver(name.clone())),
        },
        _ => {
            let taken = &app.services[name].container_name;
            let in_the_way = old.iter().filter(|(_, container)| &container.name == taken);
            let steps = in_the_way.map(|(id, container)| Step::RenameContainer {
                id: (*id).clone(),
                service: container.service.clone(),
                name: format!("old_{}", id.0),
            });
            Plan { steps: steps.collect(), ..Plan::default() }
        }
    }
}

/// Makes the networks of the release; those of other releases go when nothing is in them.
fn networks(observed: &Observed, uuid: &AppUuid, app: &TargetApp) -> Plan {
    let mut plan = Plan::default();
    for (key, wanted) in &app.networks {
        plan.merge(ensure_network(observed, key, &wanted.hash));
    }
    for (key, network) in &observed.networks {
        if network.app.as_ref() == Some(uuid) && !app.networks.contains_key(key) {
            plan.merge(remove_network(observed, key));
        }
    }
    plan
}

/// Removes a network that no container is in. Those that are in it are being replaced: their own
/// specification names the network's.
fn remove_network(observed: &Observed, key: &NetworkKey) -> Plan {
    let is_used = observed.containers.values().any(|c| c.networks.contains(key));
    if is_used { Plan::default() } else { Plan::of(Step::RemoveNetwork(key.clone())) }
}

/// Makes the volumes of the release; removes some only for a purge.
fn volumes(observed: &Observed, uuid: &AppUuid, app: &TargetApp) -> Plan {
    let mut plan = Plan::default();
    if app.purge {
        if observed.containers_of(uuid).next().is_none() {
            let ours = observed.volumes.iter().filter(|(_, of)| *of == uuid);
            plan.steps.extend(ours.map(|(key, _)| Step::RemoveVolume(key.clone())));
        }
        return plan;
    }
    for key in app.volumes.keys().filter(|key| !observed.volumes.contains_key(*key)) {
        plan.steps.insert(Step::CreateVolume { app: uuid.clone(), volume: key.clone() });
    }
    plan
}

/// Whether all that the container of a service needs is here and its place is empty.
fn can_create(
    observed: &Observed,
    target: &Target,
    app: &TargetApp,
    sorted: &Sorted,
    name: &ServiceName,
) -> bool {
    let service = &app.services[name];
    let is_free = match sorted.unwanted.get(name) {
        None => true,
        Some(old) if service.strategy == UpdateStrategy::HandOver => {
            old.values().all(|c| c.name != service.container_name && !c.must_go)
        }
        Some(_) => false,
    };
    let has_network = |key: &NetworkKey| {
        let wanted = app.networks.get(key).or_else(|| target.system_networks.get(key));
        let here = observed.networks.get(key).and_then(|network| network.hash.as_ref());
        wanted.is_some_and(|wanted| here == Some(&wanted.hash))
    };
    let has_volume = |key| observed.volumes.contains_key(key);
    is_free && service.networks.iter().all(has_network) && service.volumes.iter().all(has_volume)
}

fn create(
    sorted: &Sorted,
    uuid: &AppUuid,
    name: &ServiceName,
    service: &TargetService,
    image: &LocalImage,
) -> Plan {
    let network_of = match &service.shares_network_of {
        None => None,
        Some(other) => match sorted.wanted.get(other) {
            Some((id, _)) => Some((*id).clone()),
            None => return Plan::default(),
        },
    };
    Plan::of(Step::CreateContainer {
        app: uuid.clone(),
        service: name.clone(),
        image: image.clone(),
        network_of,
    })
}

/// Brings a container that is as it should be to its name and to running or not.
fn settle(
    app: &TargetApp,
    sorted: &Sorted,
    name: &ServiceName,
    service: &TargetService,
    id: &ContainerId,
    container: &ObservedContainer,
) -> Plan {
    if container.name != service.container_name {
        let is_taken = sorted.unwanted.values().flat_map(BTreeMap::values);
        if is_taken.into_iter().any(|other| other.name == service.container_name) {
            return Plan::default();
        }
        return Plan::of(Step::RenameContainer {
            id: id.clone(),
            service: name.clone(),
            name: service.container_name.clone(),
        });
    }
    let (id, service_name) = (id.clone(), name.clone());
    match (container.status, service.running) {
        (ContainerStatus::Running { .. }, false) => {
            Plan::of(Step::StopContainer { id, service: service_name })
        }
        (ContainerStatus::Created, true) => start(app, sorted, name, service, id),
        // One that ended by itself is the engine's to start again, by its restart policy.
        (ContainerStatus::Exited { .. }, true) if container.was_stopped => {
            start(app, sorted, name, service, id)
        }
        _ => Plan::default(),
    }
}

/// Starting again what ran before disturbs nobody.
fn needs_no_lock(container: &ObservedContainer, service: &TargetService) -> bool {
    container.name == service.container_name && !container.status.is_running()
}

fn start(
    app: &TargetApp,
    sorted: &Sorted,
    name: &ServiceName,
    service: &TargetService,
    id: ContainerId,
) -> Plan {
    let blocking: BTreeSet<Wait> = service
        .depends_on
        .iter()
        .filter(|(on, condition)| !is_met(app, sorted, on, **condition))
        .map(|(on, _)| Wait::Dependency { service: name.clone(), on: on.clone() })
        .collect();
    if blocking.is_empty() {
        return Plan::of(Step::StartContainer { id, service: name.clone() });
    }
    Plan { waits: blocking, ..Plan::default() }
}

fn is_met(app: &TargetApp, sorted: &Sorted, on: &ServiceName, condition: Condition) -> bool {
    let is_asked_to_run = app.services.get(on).is_some_and(|service| service.running);
    if !is_asked_to_run {
        return true;
    }
    let Some((_, container)) = sorted.wanted.get(on) else { return false };
    match (condition, container.status) {
        (_, ContainerStatus::Created | ContainerStatus::Dead) => false,
        (Condition::Started, _) => true,
        (Condition::Healthy, status) => status == ContainerStatus::Running { is_healthy: true },
        (Condition::Completed, status) => status == ContainerStatus::Exited { code: 0 },
    }
}

/// Lets disruptive steps through when the app's locks are held by this supervisor.
fn guard(observed: &Observed, target: &Target, uuid: &AppUuid, plan: Plan) -> Plan {
    if plan.steps.is_empty() {
        return plan;
    }
    let force = target.breaks_locks(uuid);
    match observed.locks_of(uuid) {
        Locks::Ours => plan,
        Locks::Theirs if !force => Plan::waiting(Wait::UpdateLock(uuid.clone())),
        Locks::Free | Locks::Theirs => {
            let here = observed.containers_of(uuid).map(|(_, container)| &container.service);
            let wanted = target.apps.get(uuid).into_iter().flat_map(|app| app.services.keys());
            let services = here.chain(wanted).cloned().collect();
            Plan::of(Step::TakeLocks { app: uuid.clone(), services, force })
        }
    }
}

fn release(observed: &Observed, uuid: &AppUuid) -> Plan {
    match observed.locks_of(uuid) {
        Locks::Ours => Plan::of(Step::ReleaseLocks(uuid.clone())),
        Locks::Free | Locks::Theirs => Plan::default(),
    }
}
