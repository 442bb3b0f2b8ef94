//! The whole loop against an engine in memory that refuses what a real one refuses.

use std::collections::BTreeSet;
use std::path::Path;

use minke_common_model::target_state::DeviceTarget;
use minke_device_cloud_client::ConfigFile;
use minke_engine_client::{FakeEngine, FakeFault};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::compose::{build_target, tests::facts};
use crate::locks;
use crate::memory::Memory;
use crate::perform::Progress;
use crate::state::ContainerStatus;

const HOST: &str = "10.0.0.1:8080";

/// A device in memory: an engine, a directory, and a supervisor that can die and come back.
struct World {
    dir: tempfile::TempDir,
    engine: FakeEngine,
    planned: watch::Sender<Option<Arc<Target>>>,
    status: watch::Sender<Status>,
    wake: Arc<Notify>,
    memory: Memory,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn image(name: &str) -> String {
    let hex = format!("{:0<32}", hex(name));
    format!("{HOST}/v2/{hex}@sha256:{:0<64}", self::hex(name))
}

fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn service(id: u64, image: &str, composition: Value) -> Value {
    json!({"id": id, "image_id": id + 100, "image": self::image(image), "environment": {}, "labels": {},
        "composition": composition})
}

fn device(commit: &str, services: Value) -> DeviceTarget {
    let body = json!({"aabb": {"name": "d", "config": {}, "apps": {"app1": {"id": 7, "name": "weather",
        "releases": {commit: {"id": 9, "services": services, "networks": {}, "volumes": {"data": {}}}}}}}});
    DeviceTarget::parse(body.to_string().as_bytes(), &"aabb".parse().unwrap()).unwrap().device
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let engine = FakeEngine::new();
        for name in ["web1", "web2", "db1", "once"] {
            engine.offer_image(&image(name), Default::default(), &[1000, 2000]);
        }
        let memory = Memory::open(dir.path());
        let mut world = World {
            dir,
            engine,
            planned: watch::channel(None).0,
            status: watch::channel(Status::default()).0,
            wake: Arc::new(Notify::new()),
            memory,
            task: None,
        };
        world.boot();
        world
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a supervisor that knows only what is on disk and in the engine.
    fn boot(&mut self) {
        self.memory = Memory::open(self.path());
        let observer = Observer::new(&self.path().join("locks"), self.memory.clone());
        let performer = Performer {
            engine: self.engine.clone(),
            uuid: "aabb".parse().unwrap(),
            config: ConfigFile::open(&self.path().join("config.json")).unwrap(),
            lock_root: self.path().join("locks"),
            memory: self.memory.clone(),
            observer: observer.clone(),
            progress: watch::channel(Progress::new()).0,
        };
        self.status.send_replace(Status::default());
        let reconciler = Reconciler {
            engine: self.engine.clone(),
            observer,
            performer,
            narrator: Narrator::default(),
            target: self.planned.subscribe(),
            wake: self.wake.clone(),
            status: self.status.clone(),
        };
        self.task = Some(tokio::spawn(reconciler.run()));
    }

    async fn crash(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    fn want(&self, commit: &str, services: Value) {
        self.want_device(&device(commit, services));
    }

    fn want_device(&self, device: &DeviceTarget) {
        let mut facts = facts(self.path());
        facts.lock_root = self.path().join("locks");
        let built = build_target(&facts, device);
        assert!(built.rejected.is_empty(), "{:?}", built.rejected);
        // What was published for the target before says nothing of this one.
        self.status.send_modify(|status| status.target = None);
        self.planned.send_replace(Some(Arc::new(built.target)));
    }

    async fn settled(&self) -> Status {
        let mut status = self.status.subscribe();
        let wanted = self.planned.borrow().clone();
        let settled = status.wait_for(|status| {
            let is_current = match (&status.target, &wanted) {
                (Some(now), Some(wanted)) => now.apps.keys().eq(wanted.apps.keys()),
                _ => false,
            };
            is_current && status.is_settled()
        });
        match tokio::time::timeout(Duration::from_secs(3600), settled).await {
            Ok(settled) => settled.unwrap().clone(),
            Err(_) => panic!("it never settled: {:?}", self.status.borrow().plan),
        }
    }

    async fn containers(&self) -> Vec<(String, String)> {
        let all = self.engine.containers(&[]).await.unwrap();
        let named = |c: &minke_engine_client::wire::ContainerSummary| {
            (c.names[0].trim_start_matches('/').to_owned(), c.state.clone())
        };
        let mut all: Vec<_> = all.iter().map(named).collect();
        all.sort();
        all
    }

    async fn id_of(&self, service: &str) -> String {
        let all = self.engine.containers(&[]).await.unwrap();
        let of = |c: &&minke_engine_client::wire::ContainerSummary| {
            c.labels["io.balena.service-name"] == service
        };
        all.iter().find(of).unwrap().id.clone()
    }
}

fn weather(web: &str) -> Value {
    json!({
        "web": service(1, web, json!({"depends_on": ["db"], "ports": ["80:80"]})),
        "db": service(2, "db1", json!({"volumes": ["data:/data"]})),
        "once": service(3, "once", json!({"restart": "no"})),
    })
}

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
