//! Pulls whose caller goes away while a thread still unpacks.

use std::path::Path;
use std::sync::Arc;

use minke_common_model::image_reference::ImageReference;
use minke_engine_images::Store;

use crate::pull::{assert_bare, count, options, partial_bytes, store, until};
use crate::registry::{Packing, Placed, Registry};
use crate::tars::Tar;

/// Small to fetch and slow to unpack.
fn many_files() -> Vec<u8> {
    (0..1500).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), b"x")).end()
}

fn place(registry: &Registry) -> (ImageReference, Placed) {
    let placed = registry.put_image("app", "v1", "amd64", &[(many_files(), Packing::Gzip)]);
    (registry.reference("app:v1"), placed)
}

/// Gives a pull up when all bytes of its layer are here and its files are not.
async fn give_up(store: &Store, dir: &Path, reference: &ImageReference) {
    let options = options();
    let told = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&told);
    let pull = store.pull(reference, &options, move |event| {
        if event.status == "Download complete" {
            tell.notify_one();
        }
    });
    tokio::select! {
        biased;
        () = told.notified() => {}
        result = pull => panic!("it ended first: {result:?}"),
    }
    assert!(partial_bytes(dir) > 0 && count(dir, "layers") == 0, "it was unpacked already");
}

#[tokio::test]
async fn the_next_pull_waits_for_the_thread_of_one_that_was_given_up() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (reference, placed) = place(&registry);
    give_up(&store, dir.path(), &reference).await;
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    let fetched = registry.seen(&format!("GET /v2/app/blobs/{}", placed.blobs[0]));
    assert_eq!(fetched.len(), 1, "the layer was fetched again while it was being unpacked");
    assert!(store.verify().await.unwrap().damaged.is_empty());
    for name in ["partial", "pending", "staging"] {
        assert_eq!(count(dir.path(), name), 0, "{name}");
    }
}

#[tokio::test]
async fn the_note_of_a_pull_that_was_given_up_goes_with_the_next_that_fetches_nothing() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (reference, _) = place(&registry);
    give_up(&store, dir.path(), &reference).await;
    until(|| count(dir.path(), "layers") == 1 && count(dir.path(), "staging") == 0).await;
    assert_eq!((store.images().len(), count(dir.path(), "pending")), (0, 1));
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    assert_eq!((store.images().len(), count(dir.path(), "pending")), (1, 0));
}

#[tokio::test]
async fn a_collection_beside_the_thread_of_a_pull_that_was_given_up_takes_nothing_from_it() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (reference, placed) = place(&registry);
    give_up(&store, dir.path(), &reference).await;
    store.gc().await.unwrap();
    store.pull(&reference, &options(), |_| {}).await.unwrap();
    let fetched = registry.seen(&format!("GET /v2/app/blobs/{}", placed.blobs[0]));
    assert_eq!(fetched.len(), 1, "the collection took the bytes away");
    store.remove(&reference.to_string(), Default::default()).await.unwrap();
    store.gc().await.unwrap();
    assert_bare(dir.path());
}
