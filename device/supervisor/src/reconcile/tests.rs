//! The whole loop against an engine in memory that refuses what a real one refuses.

pub(crate) mod world;

use std::collections::BTreeSet;

use minke_engine_client::FakeFault;
use proptest::prelude::*;

use super::*;
use crate::locks;
use crate::state::ContainerStatus;
use world::{HOST, World, bare_device, device, image, weather};

#[tokio::test(start_paused = true)]
async fn a_release_is_installed_in_order_and_updated() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let running =
        |names: [&str; 3]| names.map(|name| (name.to_owned(), "running".to_owned())).to_vec();
    assert_eq!(world.containers().await, running(["db_102_9_c1", "once_103_9_c1", "web_101_9_c1"]));
    let history = world.engine.history();
    let at = |what: &str| {
        history
            .iter()
            .position(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{what} in {history:?}"))
    };
    let last_pull = history.iter().rposition(|line| line.starts_with("image pull")).unwrap();
    assert!(at("container create") > last_pull, "all images first: {history:?}");
    assert!(at("container start web") > at("container start db"), "{history:?}");

    world.want("c2", weather("web2"));
    world.settled().await;
    assert_eq!(world.containers().await, running(["db_102_9_c2", "once_103_9_c2", "web_101_9_c2"]));
    let later = &world.engine.history()[history.len()..];
    let stops = later.iter().filter(|line| line.starts_with("container stop")).count();
    assert_eq!(stops, 1, "only web changed: {later:?}");
    let images = world.engine.images().await.unwrap();
    assert_eq!(images.len(), 3, "the old image is gone: {images:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_changes_nothing() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let history = world.engine.history();
    let body = serde_json::to_string(&device("c1", weather("web1"))).unwrap();
    let moved = serde_json::from_str(&body.replace(HOST, "fleet.example")).unwrap();
    world.want_device(&moved);
    world.settled().await;
    assert_eq!(world.engine.history(), history);
}

#[tokio::test(start_paused = true)]
async fn what_ended_by_itself_is_not_started_again() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let id = world.id_of("once").await;
    world.engine.exit(&id, 0);
    let starts = |world: &World| {
        world.engine.history().iter().filter(|line| line.starts_with("container start")).count()
    };
    let before = starts(&world);
    let round = world.status.borrow().round;
    world.wake.notify_one();
    world.status.subscribe().wait_for(|status| status.round > round).await.unwrap();
    world.settled().await;
    assert_eq!(starts(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_lock_holds_the_update_up_and_its_end_lets_it_go_on() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let lock = world.path().join("locks/services/7/db/updates.lock");
    std::fs::write(&lock, "").unwrap();
    world.want("c2", weather("web2"));
    let app: minke_common_model::ids::AppUuid = "app1".parse().unwrap();
    let waits = |status: &Status| status.plan.waits.contains(&Wait::UpdateLock(app.clone()));
    world.status.subscribe().wait_for(waits).await.unwrap();
    let here = world.containers().await;
    assert!(
        here.iter().all(|(name, state)| name.ends_with("c1") && state == "running"),
        "{here:?}"
    );
    std::fs::remove_file(&lock).unwrap();
    world.settled().await;
    assert!(world.containers().await.iter().all(|(name, _)| name.ends_with("c2")));
    assert_eq!(
        locks::state(&world.path().join("locks"), "7".parse().unwrap()),
        crate::state::Locks::Free
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_asked_to_stop_stays_stopped_and_starts_again() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let id = world.id_of("web").await;
    let key = ("7".parse().unwrap(), "web".parse().unwrap());
    world.memory.wish(|wishes| assert!(wishes.stopped.insert(key)));
    world.wake.notify_one();
    let status_of = |status: &Status| {
        status.observed.containers.get(&ContainerId(id.clone())).map(|c| c.status)
    };
    let is_down =
        |status: &Status| matches!(status_of(status), Some(ContainerStatus::Exited { .. }));
    world.status.subscribe().wait_for(is_down).await.unwrap();
    world.memory.wish(|wishes| wishes.stopped.clear());
    world.wake.notify_one();
    let is_up = |status: &Status| status_of(status).is_some_and(ContainerStatus::is_running);
    world.status.subscribe().wait_for(is_up).await.unwrap();
    assert_eq!(world.id_of("web").await, id, "the container is kept");
}

#[tokio::test(start_paused = true)]
async fn purge_empties_the_volumes_and_brings_the_app_back() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    world.memory.wish(|wishes| assert!(wishes.purge.insert("app1".parse().unwrap())));
    world.wake.notify_one();
    let purged = |status: &Status| status.observed.containers.is_empty() && status.round > 0;
    world.status.subscribe().wait_for(purged).await.unwrap();
    let back = |status: &Status| status.observed.containers.len() == 3 && status.is_settled();
    world.status.subscribe().wait_for(back).await.unwrap();
    let history = world.engine.history();
    assert_eq!(
        history.iter().filter(|line| line.starts_with("volume destroy")).count(),
        1,
        "{history:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_tried_again_and_holds_nothing_else_up() {
    let world = World::new();
    world.engine.withdraw_image(&image("web1"));
    world.want("c1", weather("web1"));
    let failed = |status: &Status| status.failures.values().any(|failure| failure.count >= 3);
    world.status.subscribe().wait_for(failed).await.unwrap();
    let pulled = world.engine.images().await.unwrap().len();
    assert_eq!(pulled, 2, "the other images came");
    world.engine.offer_image(&image("web1"), Default::default(), &[1]);
    world.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_a_container_of_somebody_else_uses_stays_as_long_as_that() {
    let world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let mut body = minke_engine_client::wire::CreateContainer::default();
    body.config.image = image("web1");
    let by_hand = world.engine.create_container("by_hand", &body).await.unwrap();
    world.want("c2", weather("web2"));
    let status = world.settled().await;
    assert!(status.failures.is_empty(), "{:?}", status.failures);
    assert!(world.engine.image(&image("web1")).await.unwrap().is_some());

    let options = minke_engine_client::RemoveContainer { force: true, volumes: false };
    world.engine.remove_container(&by_hand, options).await.unwrap();
    let round = world.status.borrow().round;
    world.wake.notify_one();
    let is_over = |status: &Status| status.round > round && status.is_settled();
    world.status.subscribe().wait_for(is_over).await.unwrap();
    assert!(world.engine.image(&image("web1")).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_service_in_anothers_namespace_follows_when_that_is_made_anew() {
    let world = World::new();
    let mut services = weather("web1");
    services["web"]["composition"] = serde_json::json!({"network_mode": "service:db"});
    world.want("c1", services);
    world.settled().await;
    let first = world.id_of("db").await;
    world.memory.wish(|wishes| assert!(wishes.must_go.insert(ContainerId(first.clone()))));
    world.wake.notify_one();
    let is_over = |status: &Status| {
        !status.observed.containers.contains_key(&ContainerId(first.clone())) && status.is_settled()
    };
    world.status.subscribe().wait_for(is_over).await.unwrap();
    let web = world.engine.container(&world.id_of("web").await).await.unwrap().unwrap();
    let db = world.id_of("db").await;
    assert_eq!(web.host_config.network_mode, format!("container:{db}"));
    assert!(web.state.running);
}

fn handing_over(web: &str) -> serde_json::Value {
    let mut services = weather(web);
    services["web"]["composition"] = serde_json::json!({});
    services["web"]["labels"] = serde_json::json!({
        "io.balena.update.strategy": "hand-over",
        "io.balena.update.handover-timeout": "60000",
    });
    services
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_lasts_its_time_from_the_start_of_the_new_container() {
    let world = World::new();
    world.want("c1", handing_over("web1"));
    world.settled().await;
    let old = world.id_of("web").await;
    // By the engine's clock every container is years old, as on a device whose clock is set late.
    let before = Instant::now();
    world.want("c2", handing_over("web2"));
    let waits = |status: &Status| status.plan.waits.iter().any(|w| matches!(w, Wait::HandOver(_)));
    let mut status = world.status.subscribe();
    status.wait_for(|status| waits(status) || status.is_settled()).await.unwrap();
    let here = status.borrow().observed.containers.get(&ContainerId(old.clone())).cloned();
    assert!(here.is_some_and(|old| old.status.is_running()), "the old one runs beside the new");
    world.settled().await;
    assert!(before.elapsed() >= Duration::from_secs(60), "{:?}", before.elapsed());
    assert_ne!(world.id_of("web").await, old);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_every_service_may_take_its_lock_again() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    world.want("c1", weather("web1"));
    world.settled().await;
    let id = world.id_of("once").await;
    world.engine.exit(&id, 0);
    world.crash().await;
    world.lose_locks().await;
    world.boot();
    world.settled().await;
    for service in ["web", "db", "once"] {
        let dir = world.path().join("locks/services/7").join(service);
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o1777, "{service}: {mode:o}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_containers_ended_before_a_reboot_can_go() {
    let mut world = World::new();
    // The one that the engine does not start again.
    world.want("c1", serde_json::json!({"once": weather("web1")["once"]}));
    world.settled().await;
    let id = world.id_of("once").await;
    world.engine.exit(&id, 0);
    world.crash().await;
    world.lose_locks().await;
    world.want_device(&bare_device());
    world.boot();
    let is_over = |status: &Status| status.is_settled() || status.round > 500;
    world.status.subscribe().wait_for(is_over).await.unwrap();
    assert_eq!(world.containers().await, [], "{:?}", world.status.borrow().plan);
}

#[tokio::test(start_paused = true)]
async fn an_override_counts_for_an_app_that_is_to_go() {
    for is_forced in [false, true] {
        let world = World::new();
        world.want("c1", weather("web1"));
        world.settled().await;
        std::fs::write(world.path().join("locks/services/7/db/updates.lock"), "").unwrap();
        world.memory.wish(|wishes| match is_forced {
            true => assert!(wishes.force.insert("app1".parse().unwrap())),
            false => wishes.override_locks = true,
        });
        world.want_device(&bare_device());
        world.settled().await;
        assert_eq!(world.containers().await, []);
        assert!(world.memory.wishes().force.is_empty(), "the wish ends with the app");
    }
}

/// What goes wrong, and when.
#[derive(Debug, Clone)]
enum Trouble {
    Fault(FakeFault),
    Fine,
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        6 => Just(Trouble::Fine),
        1 => Just(Trouble::Fault(FakeFault::Unreachable)),
        1 => Just(Trouble::Fault(FakeFault::AnswerLost)),
        1 => Just(Trouble::Fault(FakeFault::Refused(500, "out of luck".into()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    /// Faults, crashes and new targets at any call: the end is always the last target.
    #[test]
    fn it_converges_through_faults_and_crashes(
        troubles in prop::collection::vec(any_trouble(), 0..120),
        crashes in prop::collection::vec(0..60u64, 0..4),
        updates in prop::collection::vec(any::<bool>(), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.engine.inject(troubles.into_iter().map(|trouble| match trouble {
                Trouble::Fine => None,
                Trouble::Fault(fault) => Some(fault),
            }));
            for (number, is_new) in updates.iter().enumerate() {
                world.want(&format!("c{number}"), weather(if *is_new { "web2" } else { "web1" }));
                if let Some(after) = crashes.get(number) {
                    for _ in 0..*after {
                        tokio::task::yield_now().await;
                    }
                    world.crash().await;
                    world.boot();
                }
            }
            world.settled().await;
            // It may settle with faults left over, which are not meant for the questions below.
            world.engine.calm();
            let commit = format!("c{}", updates.len() - 1);
            let here = world.containers().await;
            let names: BTreeSet<_> = here.iter().map(|(name, _)| name.clone()).collect();
            let wanted = [("db", 102), ("once", 103), ("web", 101)]
                .map(|(name, image)| format!("{name}_{image}_9_{commit}"));
            assert_eq!(names, BTreeSet::from(wanted));
            assert!(here.iter().all(|(_, state)| state == "running"), "{here:?}");
            let status = world.settled().await;
            assert!(status.observed.locks.values().all(|it| *it == crate::state::Locks::Free));
            assert_eq!(world.engine.images().await.unwrap().len(), 3, "no orphan image");
        });
    }
}
