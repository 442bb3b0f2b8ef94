//! What a killed process and a full disk leave behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use minke_engine_images::{Options, Store};

use crate::pull::{count, layer, options, partial_bytes, reopen, until};
use crate::registry::{Fault, Packing, Registry};
use crate::tars::noise;

const CHILD_DIR: &str = "MINKE_TEST_CHILD_DIR";
const CHILD_REFERENCE: &str = "MINKE_TEST_CHILD_REFERENCE";

/// Not a test of its own: what the killed child runs. Does nothing when called as a test.
#[tokio::test]
async fn child_pulls() {
    let (Ok(dir), Ok(reference)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_REFERENCE))
    else {
        return;
    };
    let store = Store::open(dir, Options::default()).await.unwrap();
    let mut options = options();
    options.patience.stall = Duration::from_secs(60);
    store.pull(&reference.parse().unwrap(), &options, |_| {}).await.unwrap();
}

/// This test binary again, pulling.
struct Killed(Child);

impl Killed {
    fn start(dir: &Path, reference: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["faults::child_pulls", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir)
            .env(CHILD_REFERENCE, reference)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything below the store except what is kept on purpose.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            if found.is_dir() { bytes_below(&entry.path()) } else { found.len() }
        })
        .sum()
}

#[tokio::test]
async fn a_killed_pull_goes_on_and_leaves_no_orphan_bytes() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let small = layer("small", 30_000);
    let big = layer("big", 3_000_000);
    let layers = [(small, Packing::Gzip), (big, Packing::Gzip)];
    let placed = registry.put_image("app", "v1", "amd64", &layers);
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[1]);
    registry.fault(&path, 1, Fault::Stall(2_000_000));
    let reference = registry.reference("app:v1");
    let child = Killed::start(dir.path(), &reference.to_string());
    until(|| partial_bytes(dir.path()) >= 1_500_000 && count_layers(dir.path()) == 1).await;
    drop(child);
    assert!(bytes_below(&dir.path().join("staging")) > 0, "nothing was half-made");

    let store = reopen(dir.path()).await;
    assert!(store.images().is_empty(), "half an image is shown");
    assert_eq!(count(dir.path(), "staging"), 0);
    assert_eq!(count(dir.path(), "layers"), 1, "the whole layer is kept for the next pull");
    until(|| count(dir.path(), "trash") == 0).await;
    let kept = partial_bytes(dir.path());
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    let range = registry.seen(&path).last().unwrap().range.clone();
    assert_eq!(range, Some(format!("bytes={kept}-")));
    let small = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    assert_eq!(registry.seen(&small).len(), 1, "the whole layer was fetched again");
    assert!(store.verify().await.unwrap().damaged.is_empty());

    // Nothing is left but the image; without it, nothing.
    for name in ["partial", "pending", "staging", "trash"] {
        assert_eq!(count(dir.path(), name), 0, "{name}");
    }
    store.remove(&reference.to_string(), Default::default()).await.unwrap();
    for name in ["layers", "images", "trash"] {
        assert_eq!(count(dir.path(), name), 0, "{name}");
    }
}

fn count_layers(dir: &Path) -> usize {
    fs::read_dir(dir.join("layers")).map_or(0, Iterator::count)
}

/// A process that dies between unpacking and committing leaves a marked layer; only a dead process may.
#[tokio::test]
async fn a_marked_layer_is_taken_over_in_the_same_boot_only() {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (boot, is_taken) in [(boot.trim(), true), ("another-boot", false)] {
        let registry = Registry::start().await;
        let dir = tempfile::tempdir().unwrap();
        registry.put_image("app", "v1", "amd64", &[(layer("x", 10_000), Packing::Gzip)]);
        let store = Store::open(dir.path(), Options::default()).await.unwrap();
        let id = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
        let layer = store.image_by_id(&id).unwrap().layers()[0];
        drop(store);
        let staged = dir.path().join("staging/5");
        fs::rename(dir.path().join("layers").join(layer.hex()), &staged).unwrap();
        fs::write(staged.with_extension("complete"), format!("{boot} {layer}\n")).unwrap();
        let store = reopen(dir.path()).await;
        assert_eq!(store.lower_dirs(&id).is_ok(), is_taken);
        assert_eq!(count(dir.path(), "staging"), 0);
        assert_eq!(count(dir.path(), "layers"), usize::from(is_taken));
    }
}

#[tokio::test]
async fn spoiled_kept_bytes_are_thrown_away_and_fetched_again() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let layers = [(layer("x", 500_000), Packing::Gzip)];
    let placed = registry.put_image("app", "v1", "amd64", &layers);
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    // As a power cut leaves a file whose length is on disk but whose bytes are not.
    let partial = dir.path().join("partial").join(placed.blobs[0].hex());
    fs::write(&partial, vec![0; 200_000]).unwrap();
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    assert!(store.verify().await.unwrap().damaged.is_empty());
    assert!(!partial.exists());
}

#[tokio::test]
async fn collection_drops_what_a_broken_off_pull_left() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let placed = registry.put_image(
        "app",
        "v1",
        "amd64",
        &[(layer("a", 10_000), Packing::Gzip), (layer("b", 500_000), Packing::Gzip)],
    );
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[1]);
    registry.fault(&path, 100, Fault::Cut(100_000));
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let error = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await;
    // It may even succeed piece by piece: each connection brings some.
    registry.clear_faults();
    if error.is_err() {
        store.gc().await.unwrap();
        crate::pull::assert_bare(dir.path());
    }
    registry.fault(&path, 100, Fault::Status(404, Vec::new()));
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path(), Options::default()).await.unwrap();
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap_err();
    until(|| count(other.path(), "staging") == 0).await;
    assert_eq!(count(other.path(), "pending"), 1);
    store.gc().await.unwrap();
    crate::pull::assert_bare(other.path());
}

#[tokio::test]
async fn leftovers_and_a_damaged_index_are_survived() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    registry.put_image("app", "v1", "amd64", &[(layer("x", 10_000), Packing::Gzip)]);
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let id = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    drop(store);
    // What other programs' crashes are known to leave: half views, unnamed layers, stray files.
    let layers = dir.path().join("layers");
    fs::create_dir_all(layers.join("ab".repeat(32)).join("fs/usr/lib")).unwrap();
    fs::write(layers.join("ab".repeat(32)).join("fs/usr/lib/big"), noise(300_000, 5)).unwrap();
    fs::create_dir_all(dir.path().join("staging/7/fs/half")).unwrap();
    fs::write(dir.path().join("images").join("cd".repeat(32)), "{}").unwrap();
    fs::write(dir.path().join("partial").join("ef".repeat(32)), "bytes").unwrap();
    for name in ["index", "index.previous"] {
        fs::write(dir.path().join(name), "garbage").unwrap();
    }
    let store = reopen(dir.path()).await;
    let found: Vec<_> = store.images().into_iter().map(|image| (image.id, image.tags)).collect();
    assert_eq!(found, [(id, Vec::new())], "the image is found again, without its name");
    store.lower_dirs(&id).unwrap();
    assert_eq!(count(dir.path(), "layers"), 1);
    for name in ["staging", "partial"] {
        assert_eq!(count(dir.path(), name), 0, "{name}");
    }
    until(|| count(dir.path(), "trash") == 0).await;
    // Pulling again brings the name back without fetching a layer.
    let fetched = registry.seen("GET /v2/app/blobs/").len();
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    assert_eq!(registry.seen("GET /v2/app/blobs/").len(), fetched);
    assert_eq!(store.images()[0].tags.len(), 1);
}

#[tokio::test]
async fn only_one_process_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    assert!(Store::open(dir.path(), Options::default()).await.is_err());
    let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "others can reach set-user-id programs of images");
    drop(store);
    fs::write(dir.path().join("version"), "minke-images 99\n").unwrap();
    let error = Store::open(dir.path(), Options::default()).await.err().unwrap();
    assert!(error.to_string().contains("minke-images 99"), "{error}");
}
