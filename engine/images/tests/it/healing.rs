//! A flipped byte in any file of the store is found, and what it spoiled is brought back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use minke_engine_images::{ErrorKind, ImageConfig, Options, Part, RootFs, Store};

use crate::pull::{layer, options, reopen};
use crate::registry::{Packing, Registry};
use crate::tars::{Tar, noise};

/// Every regular file below `dir` that is not empty.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() && entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Alters one bit and leaves everything else of the file as it was, its time too.
pub fn flip(path: &Path, at: u64) {
    let before = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let at = (at % bytes.len() as u64) as usize;
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    let time = std::time::UNIX_EPOCH
        + std::time::Duration::new(before.mtime() as u64, before.mtime_nsec() as u32);
    file.set_modified(time).unwrap();
}

fn replaced() -> Vec<u8> {
    // The first contents of `f` are kept beside the view: a later entry replaces them.
    let tar = Tar::default().dir("d").file("d/f", &noise(5000, 3)).file("d/f", &noise(4000, 4));
    tar.hardlink("d/g", "d/f").end()
}

/// A store with an image of two layers under two names, compressed layers kept.
async fn filled(registry: &Registry, dir: &Path) -> Store {
    let layers = [(layer("x", 50_000), Packing::Gzip), (replaced(), Packing::Gzip)];
    registry.put_image("app", "v1", "amd64", &layers);
    let keeping = Options { keep_blobs: true, ..Options::default() };
    let store = Store::open(dir, keeping).await.unwrap();
    let id = store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
    store.tag(&id, &"other:name".parse().unwrap()).await.unwrap();
    store
}

#[tokio::test]
async fn a_flipped_byte_in_any_file_is_found_and_repaired_while_the_store_is_open() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&registry, dir.path()).await;
    let before = store.images();
    let all = files(dir.path());
    assert!(all.len() >= 12, "{all:?}");
    for (number, file) in all.iter().enumerate() {
        flip(file, number as u64 * 7919);
        let report = store.verify().await.unwrap();
        assert_eq!(report.damaged.len(), 1, "{}: {:?}", file.display(), report.damaged);
        let is_part = !report.damaged[0].images.is_empty();
        assert_eq!(store.images().is_empty(), is_part, "{}", file.display());
        let repairs = store.repair(&report.damaged, &options(), |_| {}).await.unwrap();
        assert_eq!(repairs[0].failure, None, "{}", file.display());
        assert_eq!(store.verify().await.unwrap().damaged, [], "{}", file.display());
        assert_eq!(store.images().len(), 1, "{}", file.display());
        assert_eq!(store.images()[0].tags, before[0].tags, "{}", file.display());
    }
}

#[tokio::test]
async fn a_flipped_byte_in_any_file_of_a_closed_store_is_found_and_repaired() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&registry, dir.path()).await;
    let before = store.images();
    drop(store);
    for (number, file) in files(dir.path()).iter().enumerate() {
        // Compressed layers are a part of stores that keep them only.
        if file.parent().is_some_and(|parent| parent.ends_with("blobs")) || !file.exists() {
            continue;
        }
        flip(file, number as u64 * 104_729 + 3);
        let store = reopen(dir.path()).await;
        let report = store.verify().await.unwrap();
        // What can be made again without a registry is right as soon as the store is open.
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(report.damaged.is_empty(), matches!(name, "version" | "info"), "{name}");
        let repairs = store.repair(&report.damaged, &options(), |_| {}).await.unwrap();
        assert!(repairs.iter().all(|repair| repair.failure.is_none()), "{name}: {repairs:?}");
        assert_eq!(store.verify().await.unwrap().damaged, [], "{name}");
        assert_eq!(store.images().len(), 1, "{name}");
        assert_eq!(store.images()[0].digests, before[0].digests, "{name}");
        // The names that the last change brought may be lost with the index itself, not the image.
        if name != "index" {
            assert_eq!(store.images()[0].tags, before[0].tags, "{name}");
        }
        store.tag(&before[0].id, &"other:name".parse().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_image_is_not_there_until_it_is_pulled_again_and_can_be_removed() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&registry, dir.path()).await;
    let (id, reference) = (store.images()[0].id, registry.reference("app:v1"));
    let manifest = dir.path().join("layers").join(store.images()[0].layers()[0].hex());
    assert_eq!(store.check(&id).await.unwrap(), []);
    flip(&manifest.join("manifest"), 40);
    let damaged = store.check(&id).await.unwrap();
    assert!(damaged.len() == 1 && damaged[0].images == [id], "{damaged:?}");
    let error = store.image_by_id(&id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(store.images().is_empty() && store.image(&reference.to_string()).is_err());
    // Nothing of it is collected: the rest need not be fetched again.
    store.gc().await.unwrap();
    let fetched = registry.seen("GET /v2/app/blobs/").len();
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    assert_eq!(registry.seen("GET /v2/app/blobs/").len(), fetched + 1);
    assert_eq!(store.check(&id).await.unwrap(), []);
    flip(&manifest.join("manifest"), 40);
    assert_eq!(store.check(&id).await.unwrap().len(), 1);
    for name in [reference.to_string(), "other:name".to_owned()] {
        store.remove(&name, Default::default()).await.unwrap();
    }
    drop(store);
    let store = reopen(dir.path()).await;
    store.gc().await.unwrap();
    crate::pull::assert_bare(dir.path());
}

#[tokio::test]
async fn what_was_made_here_is_found_damaged_and_said_to_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("made"), noise(9000, 1)).unwrap();
    let made = store.commit_layer(upper.path()).await.unwrap();
    let rootfs = RootFs { diff_ids: vec![made.diff_id], ..RootFs::default() };
    let config = ImageConfig { os: "linux".into(), rootfs, ..ImageConfig::default() };
    let id = store.create_image(&config, None).await.unwrap();
    store.tag(&id, &"mine".parse().unwrap()).await.unwrap();
    flip(&store.lower_dirs(&id).unwrap()[0].join("made"), 100);
    let report = store.verify().await.unwrap();
    assert_eq!(report.damaged[0].part, Part::Layer(made.diff_id));
    let repairs = store.repair(&report.damaged, &options(), |_| {}).await.unwrap();
    let failure = repairs[0].failure.as_deref().unwrap();
    assert!(failure.contains("made here"), "{failure}");
    // Making it again repairs it.
    let again = store.commit_layer(upper.path()).await.unwrap();
    assert_eq!(again.diff_id, made.diff_id);
    assert_eq!(store.image("mine").unwrap().id, id);
    assert_eq!(store.verify().await.unwrap().damaged, []);
}
