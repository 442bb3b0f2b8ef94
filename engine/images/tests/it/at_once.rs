//! Pulls, removals and collections that meet.

use minke_common_model::digest::Digest;
use minke_engine_images::{DiffId, ImageConfig, RemoveOptions, RootFs, Store};

use crate::pull::{layer, options, store};
use crate::registry::{Packing, Registry};

const ROUNDS: usize = 60;

/// Makes an image and removes it.
async fn make_and_remove(store: &Store) {
    let upper = tempfile::tempdir().unwrap();
    std::fs::write(upper.path().join("file"), "made here").unwrap();
    let made = store.commit_layer(upper.path()).await.unwrap();
    let rootfs = RootFs { diff_ids: vec![made.diff_id], ..RootFs::default() };
    let config = ImageConfig { rootfs, ..ImageConfig::default() };
    let id = store.create_image(&config, None).await.unwrap();
    store.remove(&id.to_string(), RemoveOptions::default()).await.unwrap();
    store.gc().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_while_another_is_removed_and_the_rest_collected() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let layers = ["a", "b"].map(|name| (layer(name, 20_000), Packing::Gzip));
    registry.put_image("app", "v1", "amd64", &layers);
    let name = registry.reference("app:v1");
    let (pulled, shown) = (store.clone(), name.familiar());
    let pulling = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            let options = options();
            let pull = || pulled.pull(&name, &options, |_| {});
            let (one, two) = tokio::join!(pull(), pull());
            let id = one.unwrap();
            assert_eq!(two.unwrap(), id);
            for dir in pulled.lower_dirs(&id).unwrap() {
                assert!(dir.join("data").is_dir(), "{}", dir.display());
            }
            pulled.remove(&shown, RemoveOptions::default()).await.unwrap();
        }
    });
    while !pulling.is_finished() {
        make_and_remove(&store).await;
    }
    pulling.await.unwrap();
    assert!(store.layer_size(&DiffId(Digest::of(&layers[0].0))) == 0);
}
