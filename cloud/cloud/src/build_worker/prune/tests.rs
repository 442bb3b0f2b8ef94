//! On a real engine and registry. No step of the images runs a container.

use std::process::Command;

use axum::body::Bytes;
use futures_util::StreamExt;
use minke_cloud_blobs::{DirBlobs, DirOptions};
use minke_cloud_builder::WorkerOptions;
use minke_cloud_registry::{Auth, Registry};
use tokio::net::TcpListener;

use super::*;

/// A pruner of an engine of its own, and a registry of which everybody may have everything.
struct Site {
    dir: tempfile::TempDir,
    pruner: Pruner,
    registry: String,
}

/// The program beside which this test was built.
fn device_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let beside = own.ancestors().map(|folder| folder.join("minke-device"));
    beside.into_iter().find(|path| path.is_file()).expect("minke-device is built with the tests")
}

async fn registry(dir: &Path) -> String {
    let blobs = DirBlobs::open(dir, &DirOptions::default()).unwrap();
    let routes = minke_cloud_registry::router(Registry::new(blobs.into(), Auth::Open));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address.to_string()
}

impl Site {
    async fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (data, projects) = (dir.path().join("engine"), dir.path().join("projects"));
        std::fs::create_dir(&projects).unwrap();
        let worker = Worker::spawn(WorkerOptions {
            device_binary: device_binary(),
            data: data.clone(),
            socket: dir.path().join("engine.sock"),
            registry_mirror: None,
            insecure_registries: Vec::new(),
        });
        let worker = Arc::new(worker.await.unwrap());
        worker.ready(READY).await.unwrap();
        let keep = Keep { unused: Duration::ZERO, cache: 1 << 40 };
        let pruner = Pruner { worker, gate: Gate::new(projects), data, keep };
        let registry = registry(&dir.path().join("blobs")).await;
        Site { dir, pruner, registry }
    }

    /// Builds a recipe whose context has one file; the new image's id.
    async fn build(&self, recipe: &str, file: &str) -> String {
        let folder = tempfile::tempdir_in(&self.dir).unwrap();
        std::fs::write(folder.path().join("Dockerfile"), recipe).unwrap();
        std::fs::write(folder.path().join(file), file.repeat(100_000)).unwrap();
        let tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "."]).output();
        let context = Bytes::from(tar.unwrap().stdout);
        let context = futures_util::stream::once(async { Ok(context) }).boxed();
        let built = self.pruner.worker.client().build(&Default::default(), context, |_| {}).await;
        built.unwrap().unwrap()
    }

    /// Adds a file to an image, or to nothing; the new image's id.
    async fn add(&self, base: &str, file: &str) -> String {
        self.build(&format!("FROM {base}\nCOPY {file} /{file}\n"), file).await
    }

    /// Puts an image into the registry; its name there, and the one with its digest.
    async fn publish(&self, name: &str) -> (String, String) {
        let id = self.add("scratch", name).await;
        let name = format!("{}/{name}", self.registry);
        let client = self.pruner.worker.client();
        client.tag(&id, &name).await.unwrap();
        let mut digest = None;
        client
            .push(&format!("{name}:latest"), &Default::default(), |line| {
                let said = line.aux.as_ref().and_then(|aux| aux["Digest"].as_str());
                digest = said.map(str::to_owned).or(digest.take());
            })
            .await
            .unwrap();
        client.delete_built_image(&name).await.unwrap();
        let by_digest = format!("{name}@{}", digest.unwrap());
        (name, by_digest)
    }

    /// What the records of the cache say, sorted.
    async fn cached(&self) -> Vec<String> {
        let records = self.pruner.worker.client().build_cache().await.unwrap();
        let mut said: Vec<String> = records.into_iter().map(|it| it.description).collect();
        said.sort();
        said
    }

    /// All names of images, sorted, and how many images there are.
    async fn images(&self) -> (Vec<String>, usize) {
        let images = self.pruner.worker.client().list_all_images().await.unwrap();
        let mut names: Vec<String> = images.iter().flat_map(|it| it.repo_tags.clone()).collect();
        names.sort();
        (names, images.len())
    }

    async fn end(self) {
        self.pruner.worker.stop().await;
    }
}

#[tokio::test]
async fn what_no_build_used_for_long_goes_and_what_one_stands_on_stays() {
    let site = Site::new().await;
    // Another engine's images: no step that was made here is one of them.
    let other = Site::new().await;
    let used = other.publish("used").await.0;
    let unused = other.publish("unused").await.0;
    let lent = other.publish("lent").await.0;
    let by_digest = other.publish("pinned").await.1;

    site.add(&used, "old").await;
    site.add(&unused, "other").await;
    site.build(&format!("FROM scratch\nCOPY --from={by_digest} /pinned /p\n"), "none").await;
    let then = SystemTime::now();
    site.add(&used, "new").await;
    site.build(&format!("FROM scratch\nCOPY --from={lent} /lent /l\n"), "none").await;

    site.pruner.cache(then).await.unwrap();
    let cached = site.cached().await;
    let is_new = |it: &String| it.contains("/new") || it.contains("/lent");
    assert!(cached.len() == 2 && cached.iter().all(is_new), "{cached:?}");
    site.pruner.images_between_pushes(Some(then)).await.unwrap().unwrap();
    // Of the one without a name it is not known when it was used; two are what steps made.
    let kept = vec![format!("{lent}:latest"), format!("{used}:latest")];
    assert_eq!(site.images().await, (kept.clone(), 5));

    // While a push runs no image with a name goes.
    let project = tempfile::tempdir_in(site.dir.path().join("projects")).unwrap();
    site.pruner.make_room(u64::MAX).await.unwrap();
    assert!(site.cached().await.is_empty());
    assert_eq!(site.images().await, (kept, 3));
    project.close().unwrap();
    site.pruner.make_room(u64::MAX).await.unwrap();
    assert_eq!(site.images().await, (Vec::new(), 0));
    other.end().await;
    site.end().await;
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_for_room_and_for_the_limit() {
    let mut site = Site::new().await;
    for name in ["one", "two", "three"] {
        site.add("scratch", name).await;
    }
    site.add("scratch", "one").await;
    site.pruner.make_room(1).await.unwrap();
    let cached = site.cached().await;
    assert!(cached.len() == 2 && !cached.iter().any(|it| it.contains("/two")), "{cached:?}");
    // One of them is larger than this.
    site.pruner.keep.cache = 400_000;
    site.pruner.cache(SystemTime::UNIX_EPOCH).await.unwrap();
    let cached = site.cached().await;
    assert!(cached.len() == 1 && cached[0].contains("/one"), "{cached:?}");
    site.end().await;
}

#[tokio::test]
async fn a_server_prunes_when_it_starts() {
    let site = Site::new().await;
    let id = site.add("scratch", "left").await;
    site.pruner.worker.client().tag(&id, "named").await.unwrap();
    let running = tokio::spawn(site.pruner.clone().run());
    let until = Instant::now() + Duration::from_secs(60);
    while site.images().await.1 > 0 {
        assert!(Instant::now() < until, "{:?}", site.images().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    assert!(site.cached().await.is_empty());
    site.end().await;
}

#[test]
fn little_room_is_a_tenth_of_a_small_disk_and_five_gigabytes_of_a_large_one() {
    assert_eq!(missing(100, 1000), 0);
    assert_eq!(missing(99, 1000), 101);
    assert_eq!(missing(LITTLE, 1 << 50), 0);
    assert_eq!(missing(LITTLE - 1, 1 << 50), LITTLE + 1);
    let (free, total) = room(Path::new("/")).unwrap();
    assert!(free <= total && total > 0);
}
