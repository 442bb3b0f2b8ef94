//! Decides what can be done now. Pure: everything it knows is an argument.
//!
//! Per app, the first phase that has work is planned:
//!
//! ```text
//!   pull every image ─> [locks] retire old containers ─> networks, volumes
//!                               ─> create ─> start in order ─> release locks
//! ```
//!
//! A kill-first strategy retires its service before the pull; hand-over retires it after the start.
//! A pull may take days: meanwhile what is here is stopped, and started again, as it is asked for.
//! Images that nobody uses or wants go at once, whatever else is held up: a disk that is full of them
//! would never take the pull that everything waits for.

mod app;

use std::collections::BTreeSet;

use minke_common_model::ids::AppUuid;

use crate::state::{Observed, Target};
use crate::step::{Step, Wait};

#[cfg(test)]
pub(crate) mod tests;

/// Steps that are safe now, in any order, and what the rest waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: BTreeSet<Step>,
    pub waits: BTreeSet<Wait>,
    /// Apps that are not yet what they should be.
    pub unsettled: BTreeSet<AppUuid>,
}

impl Plan {
    /// Nothing to do and nothing to wait for.
    pub fn is_converged(&self) -> bool {
        self.steps.is_empty() && self.waits.is_empty()
    }

    pub(crate) fn of(step: Step) -> Plan {
        Plan { steps: BTreeSet::from([step]), ..Plan::default() }
    }

    pub(crate) fn waiting(wait: Wait) -> Plan {
        Plan { waits: BTreeSet::from([wait]), ..Plan::default() }
    }

    pub(crate) fn merge(&mut self, other: Plan) {
        self.steps.extend(other.steps);
        self.waits.extend(other.waits);
        self.unsettled.extend(other.unsettled);
    }
}

/// Plans the next round; an empty plan means `observed` matches `target`.
pub fn plan(observed: &Observed, target: &Target) -> Plan {
    let mut plan = Plan::default();
    for (network, wanted) in &target.system_networks {
        plan.merge(app::ensure_network(observed, network, &wanted.hash));
    }
    for (uuid, wanted) in &target.apps {
        let mut part = app::advance(observed, target, uuid, wanted);
        if !part.is_converged() {
            part.unsettled.insert(uuid.clone());
        }
        plan.merge(part);
    }
    for uuid in abandoned(observed, target) {
        let mut part = app::remove(observed, target, &uuid);
        part.unsettled.insert(uuid);
        plan.merge(part);
    }
    plan.merge(reclaim(observed, target));
    plan
}

/// Apps that have something here and that nobody wants any more.
fn abandoned(observed: &Observed, target: &Target) -> BTreeSet<AppUuid> {
    let containers = observed.containers.values().map(|container| &container.app);
    let networks = observed.networks.values().filter_map(|network| network.app.as_ref());
    let volumes = observed.volumes.values();
    let locked = observed
        .locks
        .iter()
        .filter(|(_, locks)| **locks == crate::state::Locks::Ours)
        .map(|l| l.0);
    containers
        .chain(networks)
        .chain(volumes)
        .chain(locked)
        .filter(|app| !target.apps.contains_key(*app) && !target.untouched.contains(*app))
        .cloned()
        .collect()
}

/// Removes the images of ours that no container uses and no service wants.
fn reclaim(observed: &Observed, target: &Target) -> Plan {
    let garbage = observed.images.iter().filter(|(id, image)| {
        image.is_ours && !observed.uses_image(id) && !target.wants_image(image)
    });
    let steps = garbage.map(|(id, _)| Step::RemoveImage(id.clone())).collect();
    Plan { steps, ..Plan::default() }
}
