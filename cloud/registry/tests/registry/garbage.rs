//! What a collection takes and what it leaves.

use std::time::Duration;

use minke_cloud_blobs::Digest;
use minke_cloud_registry::gc::{Collected, GcError, GcOptions};

use crate::fixture::{Server, image};
use crate::http::request;

/// Everything is old enough at once.
fn at_once() -> GcOptions {
    GcOptions { grace: Duration::ZERO, stale_upload: Duration::ZERO }
}

#[tokio::test]
async fn only_what_nothing_names_is_taken() {
    let server = Server::open().await;
    let kept = server.push_image("a", "v1", b"kept").await;
    server.push_image("a", "v2", b"dropped").await;
    server.push_blob("a", b"stray").await;
    request("POST", "/v2/a/blobs/uploads/").send(server.address).await;
    let dropped = Digest::of(image(b"{}", &[b"dropped"]).to_string().as_bytes());
    let path = format!("/v2/a/manifests/{dropped}");
    assert_eq!(request("DELETE", &path).send(server.address).await.status, 202);

    let young = server.registry.collect_garbage(&GcOptions::default()).await.unwrap();
    assert_eq!(young, Collected::default());
    let collected = server.registry.collect_garbage(&at_once()).await.unwrap();
    // Two layers and the manifest; the manifest was never linked as a layer.
    assert_eq!((collected.blobs, collected.links, collected.uploads), (3, 2, 1));
    assert_eq!(server.head_blob("a", b"kept").await, 200);
    assert_eq!(server.get("/v2/a/manifests/v1").await.text(), kept.to_string());
    for gone in [b"dropped".as_slice(), b"stray"] {
        assert_eq!(server.head_blob("a", gone).await, 404);
    }
    let again = server.registry.collect_garbage(&at_once()).await.unwrap();
    assert_eq!(again, Collected::default());
}

#[tokio::test]
async fn a_blob_that_two_repositories_have_stays_while_one_needs_it() {
    let server = Server::open().await;
    server.push_image("a", "v1", b"shared").await;
    server.push_image("b", "v1", b"shared").await;
    server.registry.delete_repository(&"a".parse().unwrap()).await.unwrap();
    server.registry.collect_garbage(&at_once()).await.unwrap();
    assert_eq!(server.head_blob("b", b"shared").await, 200);
    server.registry.delete_repository(&"b".parse().unwrap()).await.unwrap();
    let collected = server.registry.collect_garbage(&at_once()).await.unwrap();
    // Layer, config and manifest.
    assert_eq!(collected.blobs, 3);
}

#[tokio::test]
async fn a_damaged_manifest_stops_the_collection_before_it_takes_anything() {
    let server = Server::open().await;
    let manifest = server.push_image("a", "v1", b"layer").await;
    server.push_blob("a", b"stray").await;
    let hex = Digest::of(manifest.to_string().as_bytes()).hex();
    let file = server.dir.path().join(format!("objects/blobs/sha256/{}/{hex}", &hex[..2]));
    std::fs::write(file, b"{\"schemaVersion\":").unwrap();
    let stopped = server.registry.collect_garbage(&at_once()).await;
    assert!(matches!(stopped, Err(GcError::Damaged { .. })), "{stopped:?}");
    for blob in [b"layer".as_slice(), b"stray"] {
        assert_eq!(server.head_blob("a", blob).await, 200);
    }
}

/// Pushes go on while collections run without any grace. A push may be told that a blob is
/// missing, and then sends it again; an image whose manifest was accepted is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_image_is_whole_whatever_was_collected_meanwhile() {
    let server = std::sync::Arc::new(Server::open().await);
    let collector = {
        let server = server.clone();
        tokio::spawn(async move {
            loop {
                server.registry.collect_garbage(&at_once()).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let pushers: Vec<_> = (0..4)
        .map(|pusher| {
            let server = server.clone();
            tokio::spawn(async move {
                let (mut refused, repo) = (0, format!("repo-{}", pusher % 2));
                for number in 0..15 {
                    let layer = format!("layer {}", number % 5);
                    let manifest = image(b"{}", &[layer.as_bytes()]);
                    loop {
                        server.push_blob(&repo, b"{}").await;
                        server.push_blob(&repo, layer.as_bytes()).await;
                        let put = server.push_manifest(&repo, "latest", &manifest).await;
                        if put.status == 201 {
                            break;
                        }
                        assert_eq!(put.code(), "MANIFEST_BLOB_UNKNOWN");
                        refused += 1;
                    }
                    let digest = Digest::of(manifest.to_string().as_bytes());
                    let read = server.get(&format!("/v2/{repo}/manifests/{digest}")).await;
                    assert_eq!(read.status, 200);
                    assert_eq!(server.head_blob(&repo, layer.as_bytes()).await, 200);
                    assert_eq!(server.head_blob(&repo, b"{}").await, 200);
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for pusher in pushers {
        refused += pusher.await.unwrap();
    }
    collector.abort();
    println!("{refused} manifests were refused because a blob had been collected");
}
