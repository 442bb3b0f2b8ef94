//! What the device says of its apps: a pure view of what the loop saw and does.

use std::collections::{BTreeMap, BTreeSet};

use minke_common_model::ids::{AppUuid, Commit};
use minke_common_model::reported_state::{
    AppReport, ReleaseReport, ServiceReport, ServiceStatus, UpdateStatus,
};
use minke_common_model::target_state::{AppTarget, DeviceTarget};

use crate::perform::Progress;
use crate::reconcile::Status;
use crate::state::{ContainerStatus, ObservedContainer, TargetApp, TargetService};
use crate::step::{Step, Wait};

#[cfg(test)]
mod tests;

/// The release that each app was last brought to in full.
pub(crate) type Applied = BTreeMap<AppUuid, Commit>;

/// Everything a report is made from.
pub(crate) struct View<'a> {
    pub device: &'a DeviceTarget,
    pub rejected: &'a BTreeSet<AppUuid>,
    pub status: &'a Status,
    pub progress: &'a Progress,
    pub applied: &'a Applied,
}

impl View<'_> {
    /// The `apps` of a report.
    pub fn apps(&self) -> BTreeMap<AppUuid, AppReport> {
        let apps = self.device.apps.iter().filter(|(_, app)| !app.is_host);
        apps.map(|(uuid, app)| (uuid.clone(), self.app(uuid, app))).collect()
    }

    fn app(&self, uuid: &AppUuid, app: &AppTarget) -> AppReport {
        let mut report =
            AppReport { release_uuid: self.applied.get(uuid).cloned(), releases: BTreeMap::new() };
        let planned = self.planned(uuid, app);
        if let Some((commit, release)) = app.release() {
            let mut services = BTreeMap::new();
            for (name, wanted) in &release.services {
                let service = planned.and_then(|app| app.services.get(name));
                let (status, download_progress) = match service {
                    Some(service) => self.service(uuid, service),
                    None => (ServiceStatus::Downloading, Some(0.0)),
                };
                let image = wanted.image.clone();
                let status = status.as_str().to_owned();
                services.insert(name.clone(), ServiceReport { image, status, download_progress });
            }
            let update_status = Some(self.update_status(uuid, planned));
            report.releases.insert(commit.clone(), ReleaseReport { update_status, services });
        }
        self.add_others(uuid, app, planned, &mut report);
        report
    }

    /// What the loop looked at the device for. `None` while that is another release: a target is here
    /// before the loop has looked, and what was true of the last release says nothing of this one.
    fn planned(&self, uuid: &AppUuid, app: &AppTarget) -> Option<&TargetApp> {
        let planned = self.status.target.as_ref()?.apps.get(uuid)?;
        let commit = planned.release.as_ref().map(|release| &release.commit);
        (commit == app.release().map(|(commit, _)| commit)).then_some(planned)
    }

    /// Where a service of the target stands.
    fn service(&self, uuid: &AppUuid, service: &TargetService) -> (ServiceStatus, Option<f64>) {
        let observed = &self.status.observed;
        if observed.image(&service.image).is_none() {
            let percent = self.progress.get(&service.image).copied().unwrap_or(0);
            return (ServiceStatus::Downloading, Some(f64::from(percent)));
        }
        let mut containers = observed.containers_of(uuid).filter(|(_, container)| {
            container.hash.as_ref() == Some(&service.hash) && !container.must_go
        });
        let status = match containers.next() {
            Some((id, container)) => self.container(&id.0, container),
            None if self.is_being_made(service) => ServiceStatus::Installing,
            None => ServiceStatus::Downloaded,
        };
        (status, None)
    }

    fn is_being_made(&self, wanted: &TargetService) -> bool {
        self.status.under_way.iter().any(|step| match step {
            Step::CreateContainer { service, .. } => {
                wanted.container_name.starts_with(&format!("{service}_"))
            }
            _ => false,
        })
    }

    fn container(&self, id: &str, container: &ObservedContainer) -> ServiceStatus {
        let doing = self.status.under_way.iter().find_map(|step| match step {
            Step::StartContainer { id: of, .. } if of.0 == id => Some(ServiceStatus::Starting),
            Step::StopContainer { id: of, .. } if of.0 == id => Some(ServiceStatus::Stopping),
            Step::RemoveContainer { id: of, .. } if of.0 == id => Some(ServiceStatus::Stopping),
            _ => None,
        });
        doing.unwrap_or(match container.status {
            ContainerStatus::Created => ServiceStatus::Installed,
            ContainerStatus::Running { .. } => ServiceStatus::Running,
            ContainerStatus::Exited { .. } if container.was_stopped => ServiceStatus::Stopped,
            ContainerStatus::Exited { .. } => ServiceStatus::Exited,
            ContainerStatus::Dead => ServiceStatus::Dead,
        })
    }

    fn update_status(&self, uuid: &AppUuid, planned: Option<&TargetApp>) -> UpdateStatus {
        if self.rejected.contains(uuid) {
            return UpdateStatus::Rejected;
        }
        let Some(app) = planned else { return UpdateStatus::Downloading };
        let observed = &self.status.observed;
        if app.services.values().any(|service| observed.image(&service.image).is_none()) {
            return UpdateStatus::Downloading;
        }
        let plan = &self.status.plan;
        if plan.waits.contains(&Wait::UpdateLock(uuid.clone())) {
            return UpdateStatus::Downloaded;
        }
        match plan.unsettled.contains(uuid) {
            true => UpdateStatus::ApplyingChanges,
            false => UpdateStatus::Done,
        }
    }

    /// Containers of other releases, which are on their way out.
    fn add_others(
        &self,
        uuid: &AppUuid,
        app: &AppTarget,
        planned: Option<&TargetApp>,
        report: &mut AppReport,
    ) {
        let observed = &self.status.observed;
        for (id, container) in observed.containers_of(uuid) {
            let wanted = planned.and_then(|app| app.services.get(&container.service));
            let is_wanted = wanted.is_some_and(|s| container.hash.as_ref() == Some(&s.hash));
            let Some(commit) = commit_of(&container.name) else { continue };
            let is_target = app.release().is_some_and(|(target, _)| *target == commit);
            if is_wanted || is_target {
                continue;
            }
            let image = observed.images.get(&container.image);
            let Some(image) = image.and_then(|image| image.references.first().cloned()) else {
                continue;
            };
            let status = self.container(&id.0, container).as_str().to_owned();
            let service = ServiceReport { image, status, download_progress: None };
            let release = report.releases.entry(commit).or_default();
            release.services.insert(container.service.clone(), service);
        }
    }
}

/// The commit in a container's name `<service>_<image id>_<release id>_<commit>`.
pub(crate) fn commit_of(name: &str) -> Option<Commit> {
    let mut parts = name.rsplitn(4, '_');
    let (commit, release, image) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    (is_number(release) && is_number(image)).then(|| commit.parse().ok()).flatten()
}

/// Brings `applied` up to date: an app that has settled runs its target release.
pub(crate) fn note_applied(status: &Status, applied: &mut Applied) {
    let Some(target) = status.target.as_ref().filter(|_| status.engine_error.is_none()) else {
        return;
    };
    applied.retain(|uuid, _| target.apps.contains_key(uuid) || target.untouched.contains(uuid));
    for (uuid, app) in &target.apps {
        let Some(release) = &app.release else {
            applied.remove(uuid);
            continue;
        };
        if !status.plan.unsettled.contains(uuid) {
            applied.insert(uuid.clone(), release.commit.clone());
        } else if !applied.contains_key(uuid) {
            // A supervisor that was started in the middle of an update: what all containers say.
            let mut commits: BTreeSet<Commit> = BTreeSet::new();
            for (_, container) in status.observed.containers_of(uuid) {
                commits.extend(commit_of(&container.name));
            }
            if commits.len() == 1 {
                applied.extend(commits.into_iter().map(|commit| (uuid.clone(), commit)));
            }
        }
    }
}
