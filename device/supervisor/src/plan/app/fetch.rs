//! What is done for an app while images of its release are missing.

use minke_common_model::ids::{AppUuid, ServiceName};
use minke_common_model::update_strategy::UpdateStrategy;

use super::{Sorted, guard, rank, release, retire, wanted_services};
use crate::plan::{Plan, reclaim};
use crate::state::{
    ContainerId, ContainerStatus, Observed, ObservedContainer, Target, TargetApp, TargetService,
};
use crate::step::Step;

/// Pulls what is missing; services that go first, go. A pull may take days, and what runs meanwhile can
/// be stopped and started again.
pub(super) fn fetch(
    observed: &Observed,
    target: &Target,
    uuid: &AppUuid,
    app: &TargetApp,
    sorted: &Sorted,
    missing: &[(&ServiceName, &TargetService)],
) -> Plan {
    let mut plan = Plan::default();
    for (name, service) in missing {
        let old = sorted.unwanted.get(name);
        let part = match (service.strategy, old) {
            (UpdateStrategy::KillThenDownload | UpdateStrategy::DeleteThenDownload, Some(old)) => {
                guard(observed, target, uuid, retire(old))
            }
            (UpdateStrategy::DeleteThenDownload, None) => reclaim(observed, target),
            _ => Plan::default(),
        };
        if part.is_converged() {
            let (image, reference) = (service.image.clone(), service.reference.clone());
            plan.merge(Plan::of(Step::PullImage { image, reference }));
        } else {
            plan.merge(part);
        }
    }
    let stops = stop(observed, uuid, app);
    let is_calm = stops.is_converged() && !missing.iter().any(|(_, service)| goes_first(service));
    plan.merge(guard(observed, target, uuid, stops));
    plan.merge(resume(observed, uuid, app, missing));
    if is_calm {
        // The services may need their locks before the last image is here.
        plan.merge(release(observed, uuid));
    }
    plan
}

fn goes_first(service: &TargetService) -> bool {
    matches!(
        service.strategy,
        UpdateStrategy::KillThenDownload | UpdateStrategy::DeleteThenDownload
    )
}

/// Stops what should not run, of whichever release it is.
fn stop(observed: &Observed, uuid: &AppUuid, app: &TargetApp) -> Plan {
    let is_unasked = |container: &ObservedContainer| {
        container.status.is_running()
            && app.services.get(&container.service).is_some_and(|service| !service.running)
    };
    let containers = observed.containers_of(uuid).filter(|(_, container)| is_unasked(container));
    let steps = containers.map(|(id, container)| Step::StopContainer {
        id: id.clone(),
        service: container.service.clone(),
    });
    Plan { steps: steps.collect(), ..Plan::default() }
}

/// Starts again what this supervisor stopped, where nothing else of the service runs. It ran before,
/// so neither the images of this release nor the dependencies that it names are asked for.
fn resume(
    observed: &Observed,
    uuid: &AppUuid,
    app: &TargetApp,
    missing: &[(&ServiceName, &TargetService)],
) -> Plan {
    let mut plan = Plan::default();
    for (name, service) in wanted_services(app).filter(|(_, service)| service.running) {
        if goes_first(service) && missing.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let of_service = observed.containers_of(uuid).filter(|(_, it)| it.service == *name);
        let started = of_service.filter(|(_, it)| it.status != ContainerStatus::Created);
        let last = started.max_by_key(|(_, container)| rank(container));
        if let Some((id, _)) = last.filter(|(_, container)| can_resume(observed, container)) {
            plan.steps.insert(Step::StartContainer { id: id.clone(), service: name.clone() });
        }
    }
    plan
}

fn can_resume(observed: &Observed, container: &ObservedContainer) -> bool {
    let runs = |id: &ContainerId| {
        observed.containers.get(id).is_some_and(|container| container.status.is_running())
    };
    container.was_stopped
        && matches!(container.status, ContainerStatus::Exited { .. })
        && container.network_of.as_ref().is_none_or(runs)
}
