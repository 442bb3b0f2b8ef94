//! A device in memory: an engine, a directory, and a supervisor that can die and come back.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use minke_common_model::target_state::DeviceTarget;
use minke_device_cloud_client::ConfigFile;
use minke_engine_client::wire::ContainerSummary;
use minke_engine_client::{Engine, FakeEngine};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::super::{Reconciler, Status};
use crate::compose::{build_target, tests::facts};
use crate::memory::Memory;
use crate::narrate::Narrator;
use crate::observe::Observer;
use crate::perform::{Performer, Progress};
use crate::state::{ContainerId, Target};

pub(crate) const HOST: &str = "10.0.0.1:8080";

/// See the module.
pub(crate) struct World {
    pub dir: tempfile::TempDir,
    pub engine: FakeEngine,
    pub planned: watch::Sender<Option<Arc<Target>>>,
    pub status: watch::Sender<Status>,
    pub wake: Arc<Notify>,
    pub memory: Memory,
    pub followed: watch::Sender<BTreeSet<ContainerId>>,
    pub task: Option<tokio::task::JoinHandle<()>>,
}

pub(crate) fn image(name: &str) -> String {
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

pub(crate) fn device(commit: &str, services: Value) -> DeviceTarget {
    let body = json!({"aabb": {"name": "d", "config": {}, "apps": {"app1": {"id": 7, "name": "weather",
        "releases": {commit: {"id": 9, "services": services, "networks": {}, "volumes": {"data": {}}}}}}}});
    DeviceTarget::parse(body.to_string().as_bytes(), &"aabb".parse().unwrap()).unwrap().device
}

/// A device that should run nothing.
pub(crate) fn bare_device() -> DeviceTarget {
    let body = json!({"aabb": {"name": "d", "config": {}, "apps": {}}}).to_string();
    DeviceTarget::parse(body.as_bytes(), &"aabb".parse().unwrap()).unwrap().device
}

impl World {
    pub fn new() -> World {
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
            followed: watch::channel(BTreeSet::new()).0,
            task: None,
        };
        world.boot();
        world
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a supervisor that knows only what is on disk and in the engine.
    pub fn boot(&mut self) {
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
            followed: self.followed.subscribe(),
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

    pub async fn crash(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// What a reboot does to the directory of the locks: it comes back empty, and the engine makes
    /// what running containers mount, for root alone.
    pub async fn lose_locks(&self) {
        let root = self.path().join("locks");
        std::fs::remove_dir_all(&root).unwrap();
        for container in self.engine.containers(&[]).await.unwrap() {
            if container.state == "running" {
                let service = &container.labels["io.balena.service-name"];
                let dir = root.join("services/7").join(service);
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }

    pub fn want(&self, commit: &str, services: Value) {
        self.want_device(&device(commit, services));
    }

    pub fn want_device(&self, device: &DeviceTarget) {
        let mut facts = facts(self.path());
        facts.lock_root = self.path().join("locks");
        let built = build_target(&facts, device);
        assert!(built.rejected.is_empty(), "{:?}", built.rejected);
        // What was published for the target before says nothing of this one.
        self.status.send_modify(|status| status.target = None);
        self.planned.send_replace(Some(Arc::new(built.target)));
    }

    pub async fn settled(&self) -> Status {
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

    pub async fn containers(&self) -> Vec<(String, String)> {
        let all = self.engine.containers(&[]).await.unwrap();
        let named =
            |c: &ContainerSummary| (c.names[0].trim_start_matches('/').to_owned(), c.state.clone());
        let mut all: Vec<_> = all.iter().map(named).collect();
        all.sort();
        all
    }

    pub async fn id_of(&self, service: &str) -> String {
        let all = self.engine.containers(&[]).await.unwrap();
        let of = |c: &&ContainerSummary| c.labels["io.balena.service-name"] == service;
        all.iter().find(of).unwrap().id.clone()
    }
}

pub(crate) fn weather(web: &str) -> Value {
    json!({
        "web": service(1, web, json!({"depends_on": ["db"], "ports": ["80:80"]})),
        "db": service(2, "db1", json!({"volumes": ["data:/data"]})),
        "once": service(3, "once", json!({"restart": "no"})),
    })
}
