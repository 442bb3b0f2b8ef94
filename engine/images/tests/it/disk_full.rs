//! A real file system that has no room: before, while and after a pull.

use std::fs;
use std::path::Path;

use minke_engine_images::{ErrorKind, Options, Store, chain};

use crate::disk::Disk;
use crate::pull::{count, layer, options, reopen};
use crate::registry::{Packing, Registry};
use crate::tars::Tar;

/// A few kilobytes to fetch, megabytes to unpack.
fn swelling() -> Vec<u8> {
    (0..40).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), &[n; 100_000])).end()
}

fn entries(dir: &Path) -> Vec<usize> {
    ["partial", "staging", "trash", "layers"].map(|name| count(dir, name)).to_vec()
}

#[tokio::test]
async fn a_pull_that_cannot_fit_is_refused_with_numbers_before_anything_is_fetched() {
    let registry = Registry::start().await;
    let disk = Disk::new(16);
    let store = Store::open(disk.path.join("images"), Options::default()).await.unwrap();
    let placed =
        registry.put_image("app", "big", "amd64", &[(layer("b", 20_000_000), Packing::Gzip)]);
    let error = store.pull(&registry.reference("app:big"), &options(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let text = chain(&error);
    let fits = text.contains("at least 42.") && text.contains("MB are free");
    assert!(fits && text.contains("app:big"), "{text}");
    assert!(registry.seen(&format!("/blobs/{}", placed.blobs[0])).is_empty());
    assert_eq!(entries(&disk.path.join("images")), [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_disk_that_fills_at_any_point_of_a_pull_tears_nothing_and_gets_its_bytes_back() {
    let registry = Registry::start().await;
    let disk = Disk::new(24);
    let dir = disk.path.join("images");
    let mut store = Store::open(&dir, Options::default()).await.unwrap();
    registry.put_image("app", "small", "amd64", &[(layer("s", 100_000), Packing::Gzip)]);
    let small = store.pull(&registry.reference("app:small"), &options(), |_| {}).await.unwrap();
    let parts = [(swelling(), Packing::Gzip), (layer("t", 300_000), Packing::Gzip)];
    registry.put_image("app", "next", "amd64", &parts);
    let next = registry.reference("app:next");
    let mut phases = Vec::new();
    // From no room for a note to room for all but the last files.
    for leave in [0u64, 8 << 10, 40 << 10, 400 << 10, 800 << 10, 2 << 20, 4 << 20, 4400 << 10] {
        let fill = disk.fill(leave);
        let pulled = store.pull(&next, &options(), |_| {}).await;
        if let Err(error) = &pulled {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{leave}: {}", chain(error));
            phases.push(chain(error));
            assert_eq!(store.images().len(), 1, "{leave}");
        }
        fs::remove_file(fill).unwrap();
        // As after a crash: nothing but what a later pull goes on from.
        drop(store);
        store = reopen(&dir).await;
        assert_eq!(store.image_by_id(&small).unwrap().tags.len(), 1);
        assert_eq!(store.verify().await.unwrap().damaged, [], "{leave}");
        let _ = store.remove(&next.to_string(), Default::default()).await;
        store.gc().await.unwrap();
        assert_eq!(entries(&dir), [0, 0, 0, 1], "{leave}");
    }
    assert!(phases.len() >= 5, "{phases:#?}");
    let early = phases.iter().filter(|text| text.contains("not enough space")).count();
    assert!(early >= 1 && early < phases.len(), "{phases:#?}");
    store.pull(&next, &options(), |_| {}).await.unwrap();
    // Names cannot be changed without a free block, and are as before.
    let fill = disk.fill(0);
    let name = "other:name".parse().unwrap();
    let tagged = store.tag(&small, &name).await;
    fs::remove_file(fill).unwrap();
    if let Err(error) = tagged {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", chain(&error));
        assert!(store.image("other:name").is_err());
    }
    store.tag(&small, &name).await.unwrap();
    drop(store);
    assert_eq!(reopen(&dir).await.image("other:name").unwrap().id, small);
}

#[tokio::test]
async fn a_long_download_is_made_sure_on_its_way() {
    let registry = Registry::start().await;
    let layers = [(layer("x", 400_000), Packing::Gzip)];
    registry.put_image("app", "v1", "amd64", &layers);
    let mut syncs = Vec::new();
    for settle in [std::time::Duration::ZERO, Options::default().settle] {
        let dir = tempfile::tempdir().unwrap();
        let options_of_store = Options { settle, ..Options::default() };
        let store = Store::open(dir.path(), options_of_store).await.unwrap();
        store.pull(&registry.reference("app:v1"), &options(), |_| {}).await.unwrap();
        syncs.push(store.writes().fsyncs);
    }
    // A pull that is quick pays for nothing of this; see the budget of writes.
    assert!(syncs[0] > syncs[1] + 3 && syncs[1] == 5, "{syncs:?}");
}
