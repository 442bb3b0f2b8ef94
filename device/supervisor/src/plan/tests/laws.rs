//! What holds for every device and every target.

use super::*;

/// More rounds than any update of four services in two apps can take.
const ROUNDS: usize = 40;

fn config() -> ProptestConfig {
    ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
}

/// Works until nothing is left, showing each round to `look`.
fn work(
    device: &mut Device,
    target: &Target,
    mut look: impl FnMut(&Device, &Plan) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    for _ in 0..ROUNDS {
        let plan = plan(&device.observed, target);
        look(device, &plan)?;
        if plan.is_converged() {
            return Ok(());
        }
        for step in &plan.steps {
            device.apply(step, target);
        }
        device.time_passes();
    }
    Err(TestCaseError::fail(format!(
        "no end after {ROUNDS} rounds: {:?}",
        plan(&device.observed, target)
    )))
}

/// The device is what the target says, looked at without the planner's eyes.
fn assert_reached(device: &Device, target: &Target) -> Result<(), TestCaseError> {
    for (uuid, app) in &target.apps {
        let here: Vec<_> = device.observed.containers_of(uuid).map(|(_, c)| c).collect();
        let wanted = if app.purge { 0 } else { app.services.len() };
        prop_assert_eq!(here.len(), wanted);
        for container in here {
            let service = &app.services[&container.service];
            prop_assert_eq!(container.hash.as_ref(), Some(&service.hash));
            prop_assert_eq!(&container.name, &service.container_name);
            let is_host =
                |c: &ObservedContainer| Some(&c.service) == service.shares_network_of.as_ref();
            let mut of_app = device.observed.containers_of(uuid);
            let host = of_app.find(|(_, c)| is_host(c)).map(|(id, _)| id);
            prop_assert_eq!(container.network_of.as_ref(), host);
            if !service.running {
                prop_assert!(!container.status.is_running());
            }
            let ended_by_itself = !container.was_stopped
                && matches!(container.status, ContainerStatus::Exited { .. });
            prop_assert!(!service.running || container.status.is_running() || ended_by_itself);
        }
        for (key, network) in &app.networks {
            let here = device.observed.networks.get(key).and_then(|n| n.hash.as_ref());
            prop_assert_eq!(here, Some(&network.hash));
        }
    }
    let known = |app: &AppUuid| target.apps.contains_key(app);
    prop_assert!(device.observed.containers.values().all(|c| known(&c.app)));
    prop_assert!(device.observed.volumes.values().all(known));
    prop_assert!(device.observed.locks.is_empty(), "{:?}", device.observed.locks);
    for image in device.observed.images.values().filter(|image| image.is_ours) {
        prop_assert!(target.wants_image(image), "garbage: {image:?}");
    }
    Ok(())
}

/// It ran, and ended because it was stopped: its start makes nothing new run.
fn ran_before(container: &ObservedContainer) -> bool {
    container.was_stopped && matches!(container.status, ContainerStatus::Exited { .. })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_device_reaches_every_target(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |_, _| Ok(()))?;
        assert_reached(&device, &target)?;
    }

    #[test]
    fn every_step_changes_something(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                let mut after = device.clone();
                after.apply(step, &target);
                prop_assert!(after != *device, "{step} does nothing");
            }
            Ok(())
        })?;
    }

    #[test]
    fn steps_of_one_plan_commute(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            let (mut forwards, mut backwards) = (device.clone(), device.clone());
            plan.steps.iter().for_each(|step| forwards.apply(step, &target));
            plan.steps.iter().rev().for_each(|step| backwards.apply(step, &target));
            prop_assert_eq!(forwards, backwards);
            Ok(())
        })?;
    }

    #[test]
    fn lost_steps_and_changed_minds_only_delay(
        mut device in any_device(),
        targets in prop::collection::vec(any_target(), 1..4),
        done in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let mut done = done.into_iter();
        for target in &targets {
            for _ in 0..8 {
                for step in plan(&device.observed, target).steps {
                    if done.next() == Some(true) {
                        device.apply(&step, target);
                    }
                }
            }
        }
        let last = targets.last().unwrap();
        work(&mut device, last, |_, _| Ok(()))?;
        assert_reached(&device, last)?;
    }

    #[test]
    fn nothing_new_starts_before_all_images_of_its_release_are_here(
        mut device in any_device(),
        target in any_target(),
    ) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                let app = match step {
                    Step::StartContainer { id, .. } => {
                        let container = &device.observed.containers[id];
                        if ran_before(container) {
                            continue;
                        }
                        container.app.clone()
                    }
                    Step::CreateContainer { app, .. } => app.clone(),
                    _ => continue,
                };
                for service in target.apps[&app].services.values() {
                    prop_assert!(device.observed.image(&service.image).is_some(), "{step}");
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn nothing_is_touched_while_its_app_holds_a_lock(
        mut device in any_device(),
        target in any_target(),
    ) {
        let apps: BTreeSet<AppUuid> =
            device.observed.containers.values().map(|c| c.app.clone()).collect();
        device.observed.locks = apps.iter().map(|app| (app.clone(), Locks::Theirs)).collect();
        let before = device.observed.containers.clone();
        for _ in 0..ROUNDS {
            let plan = plan(&device.observed, &target);
            for step in &plan.steps {
                let is_disruptive = match step {
                    Step::StopContainer { id, .. }
                    | Step::RemoveContainer { id, .. }
                    | Step::RenameContainer { id, .. } => {
                        apps.contains(&device.observed.containers[id].app)
                    }
                    Step::CreateContainer { app, .. } | Step::TakeLocks { app, .. } => {
                        apps.contains(app)
                    }
                    _ => false,
                };
                prop_assert!(!is_disruptive, "{step}");
            }
            plan.steps.iter().for_each(|step| device.apply(step, &target));
            device.time_passes();
        }
        for (id, container) in before {
            prop_assert!(device.observed.containers.contains_key(&id), "{container:?} is gone");
        }
        let plan = plan(&device.observed, &target);
        prop_assert!(plan.steps.is_empty());
    }

    #[test]
    fn a_lock_that_does_not_count_holds_up_nothing(
        mut device in any_device(),
        mut target in any_target(),
    ) {
        let apps = device.observed.containers.values().map(|container| container.app.clone());
        device.observed.locks = apps.map(|app| (app, Locks::Theirs)).collect();
        target.override_locks = true;
        target.apps.values_mut().for_each(|app| app.force = true);
        work(&mut device, &target, |_, _| Ok(()))?;
        // An app that was as it should be was not touched, nor its locks.
        device.observed.locks.retain(|_, locks| *locks != Locks::Theirs);
        assert_reached(&device, &target)?;
    }

    #[test]
    fn images_that_nobody_wants_go_also_when_nothing_else_can_be_done(
        mut device in any_device(),
        target in any_target(),
        is_locked in any::<bool>(),
    ) {
        if is_locked {
            let apps = device.observed.containers.values().map(|container| container.app.clone());
            device.observed.locks = apps.map(|app| (app, Locks::Theirs)).collect();
        }
        for _ in 0..ROUNDS {
            for step in plan(&device.observed, &target).steps {
                // The disk is full: no pull ends.
                if !matches!(step, Step::PullImage { .. }) {
                    device.apply(&step, &target);
                }
            }
            device.time_passes();
        }
        for (id, image) in device.observed.images.iter().filter(|(_, image)| image.is_ours) {
            let is_needed = device.observed.uses_image(id) || target.wants_image(image);
            prop_assert!(is_needed, "garbage: {image:?}");
        }
    }

    #[test]
    fn what_ended_by_itself_stays_ended(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                if let Step::StartContainer { id, .. } = step {
                    let container = &device.observed.containers[id];
                    let ended = matches!(container.status, ContainerStatus::Exited { .. });
                    prop_assert!(!ended || container.was_stopped, "{step}");
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn volumes_go_only_with_their_app_or_by_purge(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                if let Step::RemoveVolume(volume) = step {
                    let app = target.apps.get(&device.observed.volumes[volume]);
                    prop_assert!(app.is_none_or(|app| app.purge), "{step}");
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn services_start_after_those_they_need(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                let Step::StartContainer { id, service } = step else { continue };
                let uuid = device.observed.containers[id].app.clone();
                let app = &target.apps[&uuid];
                let is_missing = |it: &TargetService| device.observed.image(&it.image).is_none();
                // What the release says of dependencies counts when it can be made.
                if ran_before(&device.observed.containers[id]) && app.services.values().any(is_missing) {
                    continue;
                }
                for on in app.services[service].depends_on.keys().filter(|on| app.services[*on].running) {
                    let mut of = device.observed.containers_of(&uuid).map(|(_, c)| c);
                    let is_up = of.any(|c| {
                        c.service == *on
                            && c.hash.as_ref() == Some(&app.services[on].hash)
                            && c.status != ContainerStatus::Created
                    });
                    prop_assert!(is_up, "{step} before {on}");
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn each_strategy_keeps_its_promise(mut device in any_device(), target in any_target()) {
        work(&mut device, &target, |device, plan| {
            for step in &plan.steps {
                let Step::StopContainer { id, service } = step else { continue };
                let container = &device.observed.containers[id];
                let Some(app) = target.apps.get(&container.app).filter(|app| !app.purge) else { continue };
                let Some(wanted) = app.services.get(service).filter(|wanted| wanted.running) else { continue };
                let has_image = device.observed.image(&wanted.image).is_some();
                let runs = device.observed.containers_of(&container.app).any(|(_, c)| {
                    c.service == *service
                        && c.hash.as_ref() == Some(&wanted.hash)
                        && c.status != ContainerStatus::Created
                });
                match wanted.strategy {
                    UpdateStrategy::DownloadThenKill => prop_assert!(has_image),
                    UpdateStrategy::HandOver => {
                        let is_stale = |key: &NetworkKey| {
                            app.networks.get(key).is_some_and(|network| {
                                device.observed.networks[key].hash.as_ref() != Some(&network.hash)
                            })
                        };
                        // A network that has to be made anew must be left by all of the service.
                        let of = device.observed.containers_of(&container.app);
                        let mut of = of.filter(|(_, c)| c.service == *service);
                        prop_assert!(runs || of.any(|(_, c)| c.networks.iter().any(is_stale)));
                    }
                    UpdateStrategy::KillThenDownload | UpdateStrategy::DeleteThenDownload => {}
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_app_whose_target_is_broken_goes_on(mut device in any_device(), mut target in any_target()) {
        target.apps.remove(&app_uuid(1));
        target.untouched.insert(app_uuid(1));
        let before: Vec<_> = device.observed.containers_of(&app_uuid(1)).map(|(id, c)| (id.clone(), c.clone())).collect();
        let volumes = device.observed.volumes.values().filter(|app| **app == app_uuid(1)).count();
        device.observed.locks.clear();
        work(&mut device, &target, |_, _| Ok(()))?;
        for (id, container) in before {
            let now = device.observed.containers.get(&id).map(|c| (&c.name, c.status));
            prop_assert_eq!(now, Some((&container.name, container.status)));
        }
        prop_assert_eq!(device.observed.volumes.values().filter(|app| **app == app_uuid(1)).count(), volumes);
    }
}
