use std::collections::BTreeMap;

use minke_common_model::ids::{AppId, ReleaseId, ServiceId, ServiceName};
use minke_common_model::update_strategy::UpdateStrategy;
use proptest::prelude::*;

use super::*;
use crate::state::*;

mod laws;
mod stories;
mod world;

pub(crate) use world::{Device, app_uuid, service_name};

/// A release with one service per entry: `(name, version)`.
pub(crate) fn target_app(
    number: u64,
    version: u64,
    services: Vec<(&str, TargetService)>,
) -> TargetApp {
    let services: BTreeMap<ServiceName, TargetService> = services
        .into_iter()
        .map(|(name, mut service)| {
            service.container_name = format!("{name}_{version}");
            (service_name(name), service)
        })
        .collect();
    let networks = services.values().flat_map(|service| service.networks.iter().cloned());
    let volumes = services.values().flat_map(|service| service.volumes.iter().cloned());
    TargetApp {
        id: AppId::new(number),
        name: format!("app{number}"),
        release: Some(TargetRelease {
            commit: format!("c{version}").parse().unwrap(),
            id: ReleaseId::new(version),
        }),
        networks: networks.map(|key| (key, network(1))).collect(),
        volumes: volumes.map(|key| (key, Default::default())).collect(),
        services,
        purge: false,
        force: false,
    }
}

fn network(revision: u32) -> TargetNetwork {
    TargetNetwork { hash: SpecHash(format!("n{revision}")), body: Default::default() }
}

pub(crate) fn service(image: &str, revision: u32) -> TargetService {
    TargetService {
        id: ServiceId::new(1),
        reference: format!("host/{image}:1"),
        image: ImageKey(image.to_owned()),
        hash: SpecHash(format!("{image} {revision}")),
        container_name: String::new(),
        running: true,
        strategy: UpdateStrategy::DownloadThenKill,
        handover_timeout: Default::default(),
        depends_on: BTreeMap::new(),
        networks: BTreeSet::new(),
        volumes: BTreeSet::new(),
        shares_network_of: None,
        body: Default::default(),
    }
}

pub(crate) fn target(apps: Vec<TargetApp>) -> Target {
    let apps = apps.into_iter().map(|app| (app_uuid(app.id.get()), app)).collect();
    Target { apps, ..Target::default() }
}

fn any_strategy() -> impl Strategy<Value = UpdateStrategy> {
    prop::sample::select(vec![
        UpdateStrategy::DownloadThenKill,
        UpdateStrategy::KillThenDownload,
        UpdateStrategy::DeleteThenDownload,
        UpdateStrategy::HandOver,
    ])
}

prop_compose! {
    fn any_service()(
        image in prop::sample::select(vec!["v1", "v2", "v3"]),
        revision in 1..3u32,
        strategy in any_strategy(),
        running in prop::bool::weighted(0.9),
        network in prop::option::of(prop::sample::select(vec!["net-a", "net-b"])),
        volume in prop::option::of(prop::sample::select(vec!["vol-a", "vol-b"])),
    ) -> TargetService {
        TargetService {
            strategy,
            running,
            networks: network.map(str::to_owned).into_iter().collect(),
            volumes: volume.map(str::to_owned).into_iter().collect(),
            ..service(image, revision)
        }
    }
}

const NAMES: [&str; 4] = ["api", "db", "page", "sensor"];

prop_compose! {
    /// Services depend only on those before them in the alphabet, so there is no cycle.
    fn any_app(number: u64)(
        version in 1..4u64,
        network_revision in 1..3u32,
        parts in prop::collection::btree_map(
            0..NAMES.len(),
            (any_service(), prop::option::of((0..NAMES.len(), any_condition())), any::<bool>()),
            0..4,
        ),
        has_release in prop::bool::weighted(0.95),
        purge in prop::bool::weighted(0.05),
    ) -> TargetApp {
        let named: BTreeSet<usize> = parts.keys().copied().collect();
        let services = parts.into_iter().map(|(at, (mut service, on, shares))| {
            // Names on the engine are the app's own.
            service.networks = service.networks.iter().map(|n| format!("{number}_{n}")).collect();
            service.volumes = service.volumes.iter().map(|n| format!("{number}_{n}")).collect();
            service.hash.0 += &format!(" {:?} n{network_revision}", service.networks);
            if let Some((on, condition)) = on.filter(|(on, _)| *on < at && named.contains(on)) {
                service.depends_on.insert(service_name(NAMES[on]), condition);
                if shares && service.networks.is_empty() {
                    service.shares_network_of = Some(service_name(NAMES[on]));
                }
            }
            (NAMES[at], service)
        });
        let mut app = target_app(number, version, services.collect());
        for network in app.networks.values_mut() {
            *network = self::network(network_revision);
        }
        if !has_release {
            app.release = None;
            app.services.clear();
            app.networks.clear();
            app.volumes.clear();
        }
        app.purge = purge;
        app
    }
}

fn any_condition() -> impl Strategy<Value = Condition> {
    // The world of these tests has no health and no end by itself but where a test says so.
    Just(Condition::Started)
}

prop_compose! {
    pub(crate) fn any_target()(
        one in any_app(1),
        two in prop::option::weighted(0.6, any_app(2)),
    ) -> Target {
        target([Some(one), two].into_iter().flatten().collect())
    }
}

prop_compose! {
    /// What is left of up to three targets that were worked on and given up, somewhere in the
    /// middle of a round, plus containers that ended by themselves or were removed by hand, perhaps
    /// after a reboot.
    pub(crate) fn any_device()(
        targets in prop::collection::vec((any_target(), 0..30usize), 0..4),
        done in prop::collection::vec(any::<bool>(), 64),
        ended in prop::collection::vec(any::<bool>(), 16),
        removed in prop::collection::vec(prop::bool::weighted(0.1), 16),
        spare in prop::collection::vec(prop::sample::select(vec!["v1", "v9"]), 0..2),
        foreign in any::<bool>(),
        reboots in any::<bool>(),
    ) -> Device {
        let mut device = Device::default();
        let mut done = done.into_iter().cycle();
        for (target, rounds) in &targets {
            for _ in 0..*rounds {
                for step in plan(&device.observed, target).steps {
                    if done.next() == Some(true) {
                        device.apply(&step, target);
                    }
                }
                device.time_passes();
            }
        }
        for (container, ended) in device.observed.containers.values_mut().zip(ended) {
            if ended && container.status.is_running() {
                container.status = ContainerStatus::Exited { code: 0 };
            }
        }
        let mut removed = removed.into_iter();
        device.observed.containers.retain(|_, _| removed.next() != Some(true));
        for image in spare {
            device.pull(&ImageKey(image.to_owned()), true);
        }
        if foreign {
            device.pull(&ImageKey("foreign".to_owned()), false);
        }
        if reboots {
            device.reboot();
        }
        device
    }
}
