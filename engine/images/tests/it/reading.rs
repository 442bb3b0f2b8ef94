//! Noticing at use what somebody wrote, and by reading again what a medium forgot.

use std::fs;
use std::time::Duration;

use minke_engine_images::{ImageId, Options, Part, Store};

use crate::disk::Disk;
use crate::healing::flip;
use crate::pull::{count, layer, options};
use crate::registry::{Packing, Registry};
use crate::tars::noise;

/// A registry with `app:v1`, of two layers.
async fn registry() -> Registry {
    let registry = Registry::start().await;
    let layers = [(layer("x", 50_000), Packing::Gzip), (layer("y", 9_000), Packing::Gzip)];
    registry.put_image("app", "v1", "amd64", &layers);
    registry
}

async fn pull(store: &Store, registry: &Registry) -> ImageId {
    store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap()
}

#[tokio::test]
async fn whatever_is_done_to_a_layers_files_shows_at_the_next_use() {
    let registry = registry().await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let id = pull(&store, &registry).await;
    let lower = store.lower_dirs(&id).unwrap().pop().unwrap();
    let file = lower.join("data/x");
    let right = fs::read(&file).unwrap();
    let damages: [&dyn Fn(); 5] = [
        // One bit; size and time as before.
        &|| flip(&file, 777),
        &|| fs::File::options().write(true).open(&file).unwrap().set_len(100).unwrap(),
        &|| fs::remove_file(&file).unwrap(),
        &|| fs::write(lower.join("data/more"), "more").unwrap(),
        &|| fs::remove_dir_all(&lower).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        assert_eq!(store.check(&id).await.unwrap(), [], "{number}");
        damage();
        let damaged = store.check(&id).await.unwrap();
        let shows = damaged.len() == 1 && damaged[0].images == [id];
        assert!(shows && matches!(damaged[0].part, Part::Layer(_)), "{number}: {damaged:?}");
        assert!(store.images().is_empty() && store.standing().damaged == 1, "{number}");
        // Known without another look.
        assert_eq!(store.check(&id).await.unwrap().len(), 1, "{number}");
        let repairs = store.repair(&damaged, &options(), |_| {}).await.unwrap();
        assert_eq!(repairs[0].failure, None, "{number}");
        assert_eq!(fs::read(&file).unwrap(), right, "{number}");
        assert!(!lower.join("data/more").exists());
    }
    assert_eq!(store.standing().damaged, 0);
}

#[tokio::test]
async fn a_layer_that_was_copied_is_read_once_and_is_right() {
    let registry = registry().await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let id = pull(&store, &registry).await;
    let stored = store.standing().read_since.unwrap();
    // The same file with another inode, as after a restore.
    let file = store.lower_dirs(&id).unwrap().pop().unwrap().join("data/x");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let folder = file.parent().unwrap();
    let folder_time = fs::metadata(folder).unwrap().modified().unwrap();
    let copy = file.with_extension("copy");
    fs::copy(&file, &copy).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, &file).unwrap();
    // The folder got another time by that, which belongs to the layer, too.
    fs::File::open(folder).unwrap().set_modified(folder_time).unwrap();
    let before = store.check(&id).await.unwrap();
    assert!(before.is_empty(), "{before:?}");
    assert!(store.standing().read_since.unwrap() >= stored);
    assert_eq!(store.check(&id).await.unwrap(), []);
}

#[tokio::test]
async fn a_bit_that_the_medium_forgot_is_found_by_reading_again_also_under_an_open_store() {
    let registry = registry().await;
    let disk = Disk::new(16);
    let every = Options { scrub: Duration::ZERO, ..Options::default() };
    let store = Store::open(disk.path.join("images"), every).await.unwrap();
    let id = pull(&store, &registry).await;
    let file = store.lower_dirs(&id).unwrap().pop().unwrap().join("data/x");
    let right = noise(50_000, 1);
    disk.forget_a_bit(&file, &right[40_000..40_064]);
    // No file was touched: that is why use alone does not see it.
    assert_eq!(store.check(&id).await.unwrap(), []);
    assert_eq!(store.scrub_due(), Some(Duration::ZERO));
    let mut damaged = Vec::new();
    for _ in 0..2 {
        damaged.extend(store.scrub().await.unwrap());
    }
    let [damage] = &damaged[..] else { panic!("{damaged:?}") };
    assert!(damage.why.contains("data/x") && damage.images == [id], "{damage:?}");
    assert_eq!(store.check(&id).await.unwrap().len(), 1);
    store.repair(&damaged, &options(), |_| {}).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), right);
    assert_eq!(store.check(&id).await.unwrap(), []);
    assert_eq!(count(&disk.path.join("images"), "replaced"), 0);
}

#[tokio::test]
async fn what_is_overdue_or_suspected_is_read_before_it_is_used() {
    let registry = registry().await;
    let disk = Disk::new(16);
    let dir = disk.path.join("images");
    let store = Store::open(&dir, Options::default()).await.unwrap();
    let id = pull(&store, &registry).await;
    assert!(store.scrub_due().unwrap() > Duration::from_secs(6 * 24 * 3600));
    let file = store.lower_dirs(&id).unwrap().pop().unwrap().join("data/x");
    disk.forget_a_bit(&file, &noise(50_000, 1)[40_000..40_064]);
    drop(store);
    let overdue = Options { overdue: Duration::ZERO, ..Options::default() };
    let store = crate::pull::reopen_with(&dir, overdue).await;
    assert_eq!(store.check(&id).await.unwrap().len(), 1);
    drop(store);
    // Marked for as long as it is not fetched again.
    let store = crate::pull::reopen_with(&dir, Options::default()).await;
    assert!(store.images().is_empty());
    let damaged = store.check(&id).await.unwrap();
    store.repair(&damaged, &options(), |_| {}).await.unwrap();
    // Something that ran on it crashed.
    disk.forget_a_bit(&file, &noise(50_000, 1)[20_000..20_064]);
    assert_eq!(store.check(&id).await.unwrap(), []);
    store.suspect(&id, Duration::from_secs(3600));
    assert_eq!(store.check(&id).await.unwrap(), [], "read an hour ago at most");
    store.suspect(&id, Duration::ZERO);
    assert_eq!(store.check(&id).await.unwrap().len(), 1);
}
