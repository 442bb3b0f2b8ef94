//! Whole updates, told one line a round.

use super::*;

fn story(device: &mut Device, target: &Target) -> String {
    let mut lines = Vec::new();
    loop {
        let plan = plan(&device.observed, target);
        if plan.steps.is_empty() {
            return lines.join("\n");
        }
        let names: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
        lines.push(names.join(" | "));
        for step in &plan.steps {
            device.apply(step, target);
        }
        device.time_passes();
    }
}

fn running(target: &Target) -> Device {
    let mut device = Device::default();
    story(&mut device, target);
    device
}

fn one(strategy: UpdateStrategy, version: u64, image: &str) -> Target {
    target(vec![target_app(
        1,
        version,
        vec![("web", TargetService { strategy, ..service(image, 1) })],
    )])
}

#[test]
fn a_first_install_makes_everything_in_order() {
    let mut web = service("web", 1);
    web.networks.insert("app1_default".into());
    web.depends_on.insert(service_name("db"), Condition::Started);
    let mut db = service("db", 1);
    db.networks.insert("app1_default".into());
    db.volumes.insert("1_data".into());
    let target = target(vec![target_app(1, 1, vec![("web", web), ("db", db)])]);
    assert_eq!(
        story(&mut Device::default(), &target),
        "pull image host/db:1 | pull image host/web:1\n\
         create network app1_default | create volume 1_data\n\
         take the update locks of app app1\n\
         create service db | create service web\n\
         start service db\n\
         start service web\n\
         release the update locks of app app1"
    );
}

#[test]
fn download_then_kill_keeps_the_old_container_until_the_image_is_here() {
    let strategy = UpdateStrategy::DownloadThenKill;
    let mut device = running(&one(strategy, 1, "v1"));
    assert_eq!(
        story(&mut device, &one(strategy, 2, "v2")),
        "pull image host/v2:1\n\
         take the update locks of app app1\n\
         stop service web\n\
         remove service web\n\
         remove image local v1 | create service web\n\
         start service web\n\
         release the update locks of app app1"
    );
}

#[test]
fn kill_then_download_and_delete_then_download_free_memory_and_disk_first() {
    let mut device = running(&one(UpdateStrategy::KillThenDownload, 1, "v1"));
    assert_eq!(
        story(&mut device, &one(UpdateStrategy::KillThenDownload, 2, "v2")),
        "take the update locks of app app1\n\
         stop service web\n\
         remove service web\n\
         pull image host/v2:1 | remove image local v1\n\
         create service web\n\
         start service web\n\
         release the update locks of app app1"
    );
    assert_eq!(
        story(&mut device, &one(UpdateStrategy::DeleteThenDownload, 3, "v3")),
        "take the update locks of app app1\n\
         stop service web\n\
         remove service web\n\
         remove image local v2\n\
         pull image host/v3:1\n\
         create service web\n\
         start service web\n\
         release the update locks of app app1"
    );
}

#[test]
fn hand_over_starts_the_new_container_before_it_stops_the_old() {
    let mut device = running(&one(UpdateStrategy::HandOver, 1, "v1"));
    assert_eq!(
        story(&mut device, &one(UpdateStrategy::HandOver, 2, "v2")),
        "pull image host/v2:1\n\
         take the update locks of app app1\n\
         create service web\n\
         start service web\n\
         stop service web\n\
         remove service web\n\
         remove image local v1 | release the update locks of app app1"
    );
}

#[test]
fn hand_over_does_not_end_while_the_new_container_waits_for_its_start() {
    let of = |version, image| {
        let mut web = TargetService { strategy: UpdateStrategy::HandOver, ..service(image, 1) };
        web.depends_on.insert(service_name("db"), Condition::Healthy);
        target(vec![target_app(1, version, vec![("web", web), ("db", service("db", 1))])])
    };
    let mut device = running(&of(1, "v1"));
    let containers = device.observed.containers.values_mut();
    for db in containers.filter(|c| c.service == service_name("db")) {
        db.status = ContainerStatus::Running { is_healthy: false };
    }
    let target = of(2, "v2");
    story(&mut device, &target);
    let mut web: Vec<_> = device
        .observed
        .containers
        .values()
        .filter(|c| c.service == service_name("web"))
        .map(|c| (c.image.0.as_str(), c.status))
        .collect();
    web.sort_unstable();
    let running = ContainerStatus::Running { is_healthy: true };
    assert_eq!(web, [("local v1", running), ("local v2", ContainerStatus::Created)]);
    let wait = Wait::Dependency { service: service_name("web"), on: service_name("db") };
    assert!(plan(&device.observed, &target).waits.contains(&wait));
}

#[test]
fn a_release_that_never_ran_makes_room_for_the_next() {
    let strategy = UpdateStrategy::DownloadThenKill;
    let mut device = running(&one(strategy, 1, "v1"));
    device.observed.locks.insert(app_uuid(1), Locks::Theirs);
    assert_eq!(story(&mut device, &one(strategy, 2, "v2")), "pull image host/v2:1");
    assert_eq!(
        story(&mut device, &one(strategy, 3, "v3")),
        "pull image host/v3:1 | remove image local v2"
    );
}

#[test]
fn an_app_that_is_to_go_is_locked_by_the_services_that_are_here() {
    let mut device = running(&one(UpdateStrategy::DownloadThenKill, 1, "v1"));
    for container in device.observed.containers.values_mut() {
        container.status = ContainerStatus::Exited { code: 0 };
    }
    device.reboot();
    let taken = Step::TakeLocks {
        app: app_uuid(1),
        services: BTreeSet::from([service_name("web")]),
        force: false,
    };
    assert_eq!(plan(&device.observed, &Target::default()).steps, BTreeSet::from([taken]));
}

#[test]
fn a_release_that_changes_nothing_else_only_renames() {
    let strategy = UpdateStrategy::DownloadThenKill;
    let mut device = running(&one(strategy, 1, "v1"));
    assert_eq!(
        story(&mut device, &one(strategy, 2, "v1")),
        "take the update locks of app app1\n\
         rename service web to web_2\n\
         release the update locks of app app1"
    );
}

#[test]
fn a_change_of_network_replaces_the_network_after_its_services_left() {
    let of = |revision: u32| {
        let mut web = service("v1", revision);
        web.networks.insert("app1_default".into());
        let mut app = target_app(1, 1, vec![("web", web)]);
        app.networks.insert("app1_default".into(), network(revision));
        target(vec![app])
    };
    let mut device = running(&of(1));
    assert_eq!(
        story(&mut device, &of(2)),
        "take the update locks of app app1\n\
         stop service web\n\
         remove service web\n\
         remove network app1_default\n\
         create network app1_default\n\
         create service web\n\
         start service web\n\
         release the update locks of app app1"
    );
}

#[test]
fn a_dependency_must_be_healthy_or_done_where_that_is_asked() {
    for (condition, bad, good) in [
        (
            Condition::Healthy,
            ContainerStatus::Running { is_healthy: false },
            ContainerStatus::Running { is_healthy: true },
        ),
        (
            Condition::Completed,
            ContainerStatus::Exited { code: 1 },
            ContainerStatus::Exited { code: 0 },
        ),
    ] {
        let mut web = service("web", 1);
        web.depends_on.insert(service_name("db"), condition);
        let target = target(vec![target_app(1, 1, vec![("web", web), ("db", service("db", 1))])]);
        let mut device = Device::default();
        let set_db = |device: &mut Device, status| {
            let mut containers = device.observed.containers.values_mut();
            containers.find(|c| c.service == service_name("db")).unwrap().status = status;
        };
        for _ in 0..4 {
            for step in plan(&device.observed, &target).steps {
                device.apply(&step, &target);
            }
        }
        set_db(&mut device, bad);
        let blocked = plan(&device.observed, &target);
        let on = (service_name("web"), service_name("db"));
        assert_eq!(
            blocked,
            Plan {
                unsettled: BTreeSet::from([app_uuid(1)]),
                ..Plan::waiting(Wait::Dependency { service: on.0, on: on.1 })
            }
        );
        set_db(&mut device, good);
        assert!(story(&mut device, &target).starts_with("start service web"));
    }
}

#[test]
fn purge_empties_the_volumes_and_nothing_else_does() {
    let mut web = service("v1", 1);
    web.volumes.insert("1_data".into());
    let with = target(vec![target_app(1, 1, vec![("web", web)])]);
    let without = one(UpdateStrategy::DownloadThenKill, 2, "v1");
    let mut device = running(&with);
    story(&mut device, &without);
    assert!(device.observed.volumes.contains_key("1_data"), "dropping it from compose keeps it");
    story(&mut device, &with);
    let mut purging = with.clone();
    purging.apps.values_mut().for_each(|app| app.purge = true);
    story(&mut device, &purging);
    assert!(device.observed.volumes.is_empty() && device.observed.containers.is_empty());
    story(&mut device, &with);
    assert_eq!(device.observed.containers.len(), 1);
}

#[test]
fn what_lives_in_the_namespace_of_a_container_is_made_anew_with_it() {
    let mut web = service("web", 1);
    web.depends_on.insert(service_name("vpn"), Condition::Started);
    web.shares_network_of = Some(service_name("vpn"));
    let target = target(vec![target_app(1, 1, vec![("web", web), ("vpn", service("vpn", 1))])]);
    let id_of = |device: &Device, service: &str| {
        let mut containers = device.observed.containers.iter();
        containers.find(|(_, c)| c.service == service_name(service)).unwrap().0.clone()
    };
    let mut device = running(&target);
    let first = id_of(&device, "vpn");
    device.observed.containers.get_mut(&first).unwrap().must_go = true;
    assert_eq!(
        story(&mut device, &target),
        "take the update locks of app app1\n\
         stop service vpn | stop service web\n\
         remove service vpn | remove service web\n\
         create service vpn\n\
         create service web | start service vpn\n\
         start service web\n\
         release the update locks of app app1"
    );
    let second = id_of(&device, "vpn");
    assert_ne!(second, first);
    let web = &device.observed.containers[&id_of(&device, "web")];
    assert_eq!(web.network_of.as_ref(), Some(&second));

    // Also where somebody removed it by hand.
    device.observed.containers.remove(&second);
    story(&mut device, &target);
    let web = &device.observed.containers[&id_of(&device, "web")];
    assert_eq!(web.network_of, Some(id_of(&device, "vpn")));
    assert!(web.status.is_running());
}

#[test]
fn what_runs_while_an_image_cannot_be_pulled_is_stopped_and_started_as_asked() {
    let of = |version, image, is_db_wanted| {
        let mut web = service(image, 1);
        web.depends_on.insert(service_name("db"), Condition::Started);
        let db = TargetService { running: is_db_wanted, ..service("db", 1) };
        target(vec![target_app(1, version, vec![("web", web), ("db", db)])])
    };
    let without_pulls = |device: &mut Device, target: &Target| {
        let mut lines = Vec::new();
        loop {
            let mut steps = plan(&device.observed, target).steps;
            steps.retain(|step| !matches!(step, Step::PullImage { .. }));
            if steps.is_empty() {
                return lines.join("\n");
            }
            lines.extend(steps.iter().map(ToString::to_string));
            steps.iter().for_each(|step| device.apply(step, target));
            device.time_passes();
        }
    };
    let mut device = running(&of(1, "v1", true));
    assert_eq!(without_pulls(&mut device, &of(2, "v2", true)), "");
    assert_eq!(
        without_pulls(&mut device, &of(2, "v2", false)),
        "take the update locks of app app1\n\
         stop service db\n\
         release the update locks of app app1"
    );
    assert_eq!(without_pulls(&mut device, &of(2, "v2", true)), "start service db");
    device.observed.locks.insert(app_uuid(1), Locks::Theirs);
    assert_eq!(without_pulls(&mut device, &of(2, "v2", false)), "");
    assert!(device.observed.containers.values().all(|c| c.status.is_running()));
}

#[test]
fn what_an_update_that_was_given_up_had_stopped_runs_while_the_next_is_pulled() {
    let strategy = UpdateStrategy::DownloadThenKill;
    let mut device = running(&one(strategy, 1, "v1"));
    let second = one(strategy, 2, "v2");
    device.pull(&ImageKey("v2".to_owned()), true);
    for _ in 0..2 {
        for step in plan(&device.observed, &second).steps {
            device.apply(&step, &second);
        }
    }
    assert!(device.observed.containers.values().all(|c| !c.status.is_running()));
    assert_eq!(
        story(&mut device, &one(strategy, 3, "v3")),
        "pull image host/v3:1 | remove image local v2 | release the update locks of app app1 | start service web\n\
         take the update locks of app app1\n\
         stop service web\n\
         remove service web\n\
         remove image local v1 | create service web\n\
         start service web\n\
         release the update locks of app app1"
    );
}
