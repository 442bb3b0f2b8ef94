//! From a target that the server sent to what is reported of it, with every part between.

use std::sync::atomic::AtomicBool;

use minke_common_model::reported_state::UpdateStatus;
use minke_common_model::target_state::DeviceTarget;
use minke_device_cloud_client::Target as Fetched;
use minke_engine_client::Engine;

use super::*;
use crate::compose::tests::facts;
use crate::reconcile::tests::world::{World, device, image, weather};
use crate::run::targeting::Targeting;

/// The ends of a supervisor that the server sees.
struct Ends {
    targets: watch::Sender<Option<Arc<Fetched>>>,
    reported: watch::Receiver<DeviceReport>,
    /// No pull tells how far it is, but who waits for that has to be able to.
    _progress: watch::Sender<Progress>,
}

/// Puts what is around the loop of `world` together.
fn supervise(world: &World) -> Ends {
    let config = ConfigFile::open(&world.path().join("config.json")).unwrap();
    let mut facts = facts(world.path());
    facts.lock_root = world.path().join("locks");
    let keys = facts.api_keys.clone();
    let (targets, latest) = watch::channel(None);
    let (progress, told) = watch::channel(Progress::new());
    let (view, _) = watch::channel(Arc::default());
    let (report, reported) = watch::channel(DeviceReport::default());
    let reporting = Reporting {
        keys,
        config: config.clone(),
        versions: SoftwareVersions {
            supervisor: String::new(),
            os_version: String::new(),
            os_variant: String::new(),
        },
        data: world.path().to_owned(),
        listen_port: 0,
        status: world.status.subscribe(),
        progress: told,
        view: view.subscribe(),
        report,
    };
    let targeting = Targeting {
        facts,
        config,
        latest,
        view,
        planned: world.planned.clone(),
        memory: world.memory.clone(),
        logs_wanted: Arc::new(AtomicBool::new(true)),
        narrator: Default::default(),
        wake: world.wake.clone(),
        told: Default::default(),
    };
    tokio::spawn(reporting.run());
    tokio::spawn(targeting.run());
    Ends { targets, reported, _progress: progress }
}

fn fetched(device: DeviceTarget) -> Option<Arc<Fetched>> {
    Some(Arc::new(Fetched { device, ..Fetched::default() }))
}

fn status_of(report: &DeviceReport, commit: &str) -> Option<UpdateStatus> {
    report.apps.as_ref()?.get("app1")?.releases.get(commit)?.update_status
}

#[tokio::test(start_paused = true)]
async fn a_release_is_reported_as_done_only_when_it_runs() {
    let world = World::new();
    let Ends { targets, mut reported, _progress } = supervise(&world);
    let is_done = |report: &DeviceReport| status_of(report, "c1") == Some(UpdateStatus::Done);
    targets.send_replace(fetched(device("c1", weather("web1"))));
    reported.wait_for(is_done).await.unwrap();

    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while reported.changed().await.is_ok() {
            if let Some(status) = status_of(&reported.borrow_and_update(), "c2") {
                let _ = say.send(status);
            }
        }
    });
    world.engine.withdraw_image(&image("web2"));
    targets.send_replace(fetched(device("c2", weather("web2"))));
    let has_failed = |status: &Status| !status.failures.is_empty();
    world.status.subscribe().wait_for(has_failed).await.unwrap();
    world.engine.offer_image(&image("web2"), Default::default(), &[1000]);
    let mut statuses = Vec::new();
    while statuses.last() != Some(&UpdateStatus::Done) {
        statuses.push(said.recv().await.unwrap());
    }
    statuses.dedup();
    let expected = [UpdateStatus::Downloading, UpdateStatus::ApplyingChanges, UpdateStatus::Done];
    assert_eq!(statuses, expected);
    let here = world.engine.containers(&[]).await.unwrap();
    let is_new = |name: &String| name.ends_with("_c2");
    assert!(here.iter().all(|it| it.state == "running" && it.names.iter().all(is_new)));
}
