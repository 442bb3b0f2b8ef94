//! Pulling from a registry that behaves and from one that does not.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minke_common_model::digest::Digest;
use minke_engine_images::{
    DiffId, Error, ErrorKind, ImageId, Options, Part, Patience, Platform, ProgressEvent,
    PullOptions, Store, chain,
};
use serde_json::json;

use crate::registry::{Fault, OCI_INDEX, Packing, Registry};
use crate::tars::{Tar, noise};

/// Fast enough for tests, slow enough for a busy machine.
pub fn options() -> PullOptions {
    let patience = Patience {
        stall: Duration::from_secs(30),
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(50),
        ..Patience::default()
    };
    PullOptions { patience, ..PullOptions::default() }
}

/// The same for a registry that stalls.
pub fn soon_bored() -> PullOptions {
    let patience = Patience { stall: Duration::from_secs(1), ..options().patience };
    PullOptions { patience, ..options() }
}

pub async fn store(dir: &Path) -> Store {
    Store::open(dir, Options::default()).await.unwrap()
}

pub fn layer(name: &str, length: usize) -> Vec<u8> {
    Tar::default().dir("data").file(&format!("data/{name}"), &noise(length, 1)).end()
}

/// No image, layer, note or half-made thing.
pub fn assert_bare(dir: &Path) {
    for name in ["images", "layers", "blobs", "partial", "pending", "staging"] {
        let left: Vec<_> = fs::read_dir(dir.join(name)).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

pub fn count(dir: &Path, name: &str) -> usize {
    fs::read_dir(dir.join(name)).unwrap().count()
}

pub fn partial_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir.join("partial")) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Waits for a condition that nobody announces.
pub async fn until(mut condition: impl FnMut() -> bool) {
    let mut looks = 0;
    while !condition() {
        looks += 1;
        assert!(looks < 12_000, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_packing_arrives_whole() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let layers = [
        (layer("gzip", 300_000), Packing::Gzip),
        (layer("zstd", 300_000), Packing::Zstd),
        (layer("plain", 300_000), Packing::Plain),
    ];
    let placed = registry.put_image("acme/app", "v1", "amd64", &layers);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |event: ProgressEvent| told.lock().unwrap().push((event.id, event.status));
    let id = store.pull(&registry.reference("acme/app:v1"), &options(), tell).await.unwrap();
    assert_eq!(id, ImageId(placed.config));
    let image = store.image(&format!("{}/acme/app:v1", registry.address)).unwrap();
    assert_eq!(image.layers().len(), 3);
    assert_eq!(image.size, 900_000);
    assert_eq!(image.digests, [registry.reference("acme/app").with_digest(placed.digest)]);
    assert_eq!(image.created(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/app".to_owned()]));
    let views = store.lower_dirs(&id).unwrap();
    assert!(views[0].join("data/plain").exists(), "the top layer comes first");
    assert_eq!(fs::read(views[2].join("data/gzip")).unwrap(), noise(300_000, 1));
    let report = store.verify().await.unwrap();
    assert_eq!((report.layers, report.damaged.len()), (3, 0));
    for left in ["partial", "pending", "staging", "blobs"] {
        assert_eq!(count(dir.path(), left), 0, "{left}");
    }
    let lines = lines.lock().unwrap().clone();
    assert_eq!(lines[0], (Some("v1".to_owned()), "Pulling from acme/app".to_owned()));
    let short: Vec<String> = placed.blobs.iter().map(|b| b.hex()[..12].to_owned()).collect();
    for id in &short {
        let mut of: Vec<&str> = lines
            .iter()
            .filter(|(of, status)| of.as_ref() == Some(id) && status != "Downloading")
            .map(|(_, status)| status.as_str())
            .collect();
        of.dedup();
        assert_eq!(
            of,
            [
                "Pulling fs layer",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
                "Pull complete"
            ]
        );
    }
    let last: Vec<&str> = lines[lines.len() - 2..].iter().map(|(_, s)| s.as_str()).collect();
    assert_eq!(last[0], format!("Digest: {}", placed.digest));
    assert!(last[1].starts_with("Status: Downloaded newer image for 127.0.0.1:"));
}

#[tokio::test]
async fn a_second_pull_fetches_nothing_and_shared_layers_are_not_fetched() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let base = (layer("base", 100_000), Packing::Gzip);
    registry.put_image("app", "v1", "amd64", std::slice::from_ref(&base));
    let top = (layer("top", 1000), Packing::Gzip);
    let second = registry.put_image("app", "v2", "amd64", &[base, top]);
    let v1 = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    let blobs = registry.seen("GET /v2/app/blobs/").len();
    let again = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    assert_eq!((again, registry.seen("GET /v2/app/blobs/").len()), (v1, blobs));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let tell = move |event: ProgressEvent| told.lock().unwrap().push(event.status);
    store.pull(&registry.reference("app:v2"), &options(), tell).await.unwrap();
    assert!(lines.lock().unwrap().contains(&"Already exists".to_owned()));
    assert_eq!(registry.seen(&format!("GET /v2/app/blobs/{}", second.blobs[0])).len(), 1);
    assert_eq!(store.images().len(), 2);
}

#[tokio::test]
async fn two_pulls_at_once_fetch_each_blob_once() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 400_000), Packing::Gzip)]);
    let reference = registry.reference("app:v1");
    let pull = || async { store.pull(&reference, &options(), |_| {}).await.unwrap() };
    let (one, two) = tokio::join!(pull(), pull());
    assert_eq!(one, two);
    assert_eq!(registry.seen(&format!("GET /v2/app/blobs/{}", placed.blobs[0])).len(), 1);
}

#[tokio::test]
async fn an_index_gives_the_platform_asked_for() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut entries = Vec::new();
    let mut ids = Vec::new();
    for (architecture, variant) in [("amd64", None), ("arm64", Some("v8")), ("arm", Some("v7"))] {
        let tar = layer(architecture, 1000);
        let placed = registry.put_image("app", architecture, architecture, &[(tar, Packing::Gzip)]);
        let mut platform = json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        entries.push(json!({"digest": placed.digest, "size": 500, "platform": platform,
            "mediaType": crate::registry::DOCKER_MANIFEST}));
        ids.push(ImageId(placed.config));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    let digest = registry.put_manifest("app", "multi", OCI_INDEX, &index);
    let reference = registry.reference("app:multi");
    for (platform, id) in ["linux/amd64", "linux/arm64", "linux/arm/v7"].iter().zip(&ids) {
        let options = PullOptions { platform: Platform::parse(platform), ..options() };
        assert_eq!(store.pull(&reference, &options, |_| {}).await.unwrap(), *id);
    }
    // The digest of the name is the index's.
    let last = store.image_by_id(&ids[2]).unwrap();
    assert_eq!(last.digests, [registry.reference("app").with_digest(digest)]);
    let riscv = PullOptions { platform: Platform::parse("linux/riscv64"), ..options() };
    let error = store.pull(&reference, &riscv, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
    assert!(error.to_string().contains("linux/arm/v7"), "{error}");
    let lone = registry.reference("app:arm");
    let error = store.pull(&lone, &riscv, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Platform { .. }));
}

#[tokio::test]
async fn passing_failures_are_waited_out() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 100_000), Packing::Gzip)]);
    let retry_after = vec![("retry-after", "1".to_owned())];
    registry.fault("/manifests/v1", 2, Fault::Status(429, retry_after));
    registry.fault(&placed.config.to_string(), 2, Fault::Status(503, Vec::new()));
    registry.fault(&placed.blobs[0].to_string(), 2, Fault::Status(500, Vec::new()));
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    assert_eq!(registry.seen("/manifests/v1").len(), 3);
    registry.fault("/manifests/v1", 100, Fault::Status(503, Vec::new()));
    let error = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("503"), "{}", chain(&error));
}

#[tokio::test]
async fn broken_connections_go_on_where_they_broke() {
    for fault in [Fault::Cut(150_000), Fault::Stall(150_000)] {
        let registry = Registry::start().await;
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let placed =
            registry.put_image("app", "v1", "amd64", &[(layer("x", 600_000), Packing::Gzip)]);
        let path = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
        registry.fault(&path, 2, fault);
        store.pull(&registry.reference("app:v1"), &soon_bored(), |_| {}).await.unwrap();
        let ranges: Vec<_> = registry.seen(&path).into_iter().map(|seen| seen.range).collect();
        assert_eq!(ranges.len(), 3);
        assert_eq!(ranges[0], None);
        let from = |range: &Option<String>| -> u64 {
            let text = range.as_ref().unwrap().strip_prefix("bytes=").unwrap();
            text.strip_suffix('-').unwrap().parse().unwrap()
        };
        assert!(from(&ranges[1]) > 0 && from(&ranges[2]) > from(&ranges[1]), "{ranges:?}");
        assert!(store.verify().await.unwrap().damaged.is_empty());
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_and_a_wrong_range_is_refused() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 600_000), Packing::Gzip)]);
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    registry.fault(&path, 1, Fault::Cut(200_000));
    registry.fault(&path, 1, Fault::WrongRange);
    let error = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap_err();
    assert!(chain(&error).contains("range"), "{}", chain(&error));
    registry.fault(&path, 1, Fault::NoRange);
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    assert!(store.verify().await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn lies_leave_nothing_behind() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 200_000), Packing::Gzip)]);
    let reference = registry.reference("app:v1");
    let by_digest = registry.reference("app").with_digest(placed.digest);
    let blob = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    let other = crate::tars::gzip(&layer("y", 200_000));
    let lies = [
        ("the blob is altered", blob.clone(), Fault::Corrupt, &reference),
        ("the blob is another one", blob, Fault::Instead(other), &reference),
        ("the configuration is altered", placed.config.to_string(), Fault::Corrupt, &reference),
        ("the manifest of a digest", "/manifests/".to_owned(), Fault::Corrupt, &by_digest),
        (
            "the manifest is no JSON",
            "/manifests/v1".to_owned(),
            Fault::Instead(b"<html>".to_vec()),
            &reference,
        ),
        (
            "the manifest is endless",
            "/manifests/v1".to_owned(),
            Fault::Instead(vec![b' '; 5 << 20]),
            &reference,
        ),
    ];
    for (what, part, fault, reference) in lies {
        registry.fault(&part, 1, fault);
        let store = store(dir.path()).await;
        let result = store.pull(reference, &options(), |_| {}).await;
        assert!(result.is_err(), "{what}");
        assert!(store.images().is_empty(), "{what}");
        store.gc().await.unwrap();
        drop(store);
        assert_bare(dir.path());
        registry.clear_faults();
    }
}

#[tokio::test]
async fn a_layer_with_another_diff_id_is_refused() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let good = layer("x", 1000);
    registry.put_image("app", "good", "amd64", &[(good, Packing::Gzip)]);
    // A configuration that names one layer, a manifest that brings another.
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"something else")]}});
    let config = config.to_string().into_bytes();
    let size = config.len();
    let config = registry.put_blob("app", config);
    let blob = crate::tars::gzip(&layer("y", 1000));
    let blob_size = blob.len();
    let blob = registry.put_blob("app", blob);
    let manifest = json!({"schemaVersion": 2, "config": {"size": size, "digest": config},
        "layers": [{"size": blob_size, "digest": blob}]});
    registry.put_manifest("app", "bad", crate::registry::DOCKER_MANIFEST, &manifest);
    let error = store.pull(&registry.reference("app:bad"), &options(), |_| {}).await.unwrap_err();
    assert!(chain(&error).contains("has digest"), "{}", chain(&error));
    assert!(store.images().is_empty());
    let mut two = manifest;
    two["layers"] = json!([]);
    registry.put_manifest("app", "none", crate::registry::DOCKER_MANIFEST, &two);
    let error = store.pull(&registry.reference("app:none"), &options(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::LayerCount { manifest: 0, config: 1 }));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let error = store.pull(&registry.reference("no:thing"), &options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(chain(&error).contains("manifest unknown"), "{}", chain(&error));
    let nobody = "127.0.0.1:1/app".parse().unwrap();
    let error = store.pull(&nobody, &options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_pull_that_is_dropped_keeps_what_came_and_goes_on_later() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let opened = store(dir.path()).await;
    let placed = registry.put_image("app", "v1", "amd64", &[(layer("x", 800_000), Packing::Gzip)]);
    let path = format!("GET /v2/app/blobs/{}", placed.blobs[0]);
    registry.fault(&path, 1, Fault::Stall(400_000));
    let reference = registry.reference("app:v1");
    {
        let options = options();
        let pull = opened.pull(&reference, &options, |_| {});
        tokio::select! {
            result = pull => panic!("it ended: {result:?}"),
            () = until(|| partial_bytes(dir.path()) > 100_000) => {}
        }
    }
    // The store is closed when the thread that unpacked has seen that nobody wants it.
    drop(opened);
    let reopened = reopen(dir.path()).await;
    assert_eq!(count(dir.path(), "partial"), 1);
    assert_eq!(count(dir.path(), "layers"), 0);
    reopened.pull(&reference, &options(), |_| {}).await.unwrap();
    let seen = registry.seen(&path);
    let range = seen.last().unwrap().range.clone().expect("it began anew");
    assert_ne!(range, "bytes=0-");
    assert!(reopened.verify().await.unwrap().damaged.is_empty());
    assert_eq!(count(dir.path(), "partial"), 0);
}

/// Opens a store as soon as the last user of it is gone.
pub async fn reopen(dir: &Path) -> Store {
    reopen_with(dir, Options::default()).await
}

pub async fn reopen_with(dir: &Path, options: Options) -> Store {
    let opening = async {
        loop {
            match Store::open(dir, options.clone()).await {
                Err(Error::Locked(_)) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opening).await.expect("still locked")
}

#[tokio::test]
async fn damage_is_found_and_repaired_by_the_next_pull() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let opened = store(dir.path()).await;
    registry.put_image("app", "v1", "amd64", &[(layer("x", 100_000), Packing::Gzip)]);
    let reference = registry.reference("app:v1");
    let id = opened.pull(&reference, &options(), |_| {}).await.unwrap();
    let file = opened.lower_dirs(&id).unwrap()[0].join("data/x");
    fs::write(&file, noise(100_000, 2)).unwrap();
    let layer: DiffId = opened.image_by_id(&id).unwrap().layers()[0];
    let report = opened.verify().await.unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(
        (&report.damaged[0].part, &*report.damaged[0].images),
        (&Part::Layer(layer), &[id][..])
    );
    assert!(report.damaged[0].why.contains("data/x"), "{:?}", report.damaged);
    assert!(opened.image("app:v1").is_err() && opened.images().is_empty(), "it is still shown");
    assert!(matches!(opened.lower_dirs(&id), Err(Error::MissingLayer(_))));
    // It stays marked over a restart.
    drop(opened);
    let opened = store(dir.path()).await;
    assert!(matches!(opened.lower_dirs(&id), Err(Error::MissingLayer(_))));
    opened.pull(&reference, &options(), |_| {}).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), noise(100_000, 1));
    assert!(opened.verify().await.unwrap().damaged.is_empty());
    opened.lower_dirs(&id).unwrap();
    drop(opened);
    store(dir.path()).await.lower_dirs(&id).unwrap();
}

#[tokio::test]
async fn writes_are_within_their_budget() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let layers: Vec<_> =
        (0..3).map(|n| (layer(&n.to_string(), 200_000 + n), Packing::Gzip)).collect();
    let sent: u64 = layers.iter().map(|(tar, _)| crate::tars::gzip(tar).len() as u64).sum();
    registry.put_image("app", "v1", "amd64", &layers);
    let reference = registry.reference("app:v1");
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    let writes = store.writes();
    // A layer: one sync of the file system, one of the directory it appears in. An image: its
    // configuration and the index, each a file and its directory.
    assert_eq!((writes.syncfs, writes.fsyncs), (3, 3 + 4));
    let size = 600_003 + sent;
    assert!(writes.bytes < size + 10_000, "{} for {size}", writes.bytes);
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    assert_eq!(store.writes(), writes, "a pull of what is here writes nothing");
}

/// The futures of the API go into servers that move them between threads.
#[test]
fn futures_can_be_sent() {
    fn is_send<T: Send>(_: impl FnOnce(&'static Store) -> T) {}
    let reference: &'static _ = Box::leak(Box::new("app".parse().unwrap()));
    let options: &'static PullOptions = Box::leak(Box::default());
    is_send(move |store| store.pull(reference, options, |_| {}));
    is_send(move |store| store.push(reference, Box::leak(Box::default()), |_| {}));
    is_send(|store| store.load(std::io::empty(), |_| {}));
    is_send(|store| store.save(&[], std::io::sink()));
    is_send(|store| store.prune(true, |_| true));
    is_send(|store| store.commit_layer(Path::new("/")));
}
