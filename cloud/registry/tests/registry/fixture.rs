//! A registry on a port of its own, and images small enough to write by hand.

use std::net::SocketAddr;
use std::path::Path;

use minke_cloud_blobs::{Digest, DirBlobs, DirOptions};
use minke_cloud_registry::{Auth, Registry, router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::http::{Answer, request};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub struct Server {
    pub registry: Registry,
    pub address: SocketAddr,
    pub dir: TempDir,
}

impl Server {
    pub async fn open() -> Self {
        Self::start(Auth::Open).await
    }

    pub async fn start(auth: Auth) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (registry, address) = serve(dir.path(), auth).await;
        Self { registry, address, dir }
    }

    pub async fn push_blob(&self, repo: &str, bytes: &[u8]) -> Answer {
        let path = format!("/v2/{repo}/blobs/uploads/?digest={}", Digest::of(bytes));
        request("POST", &path).body(bytes).send(self.address).await
    }

    pub async fn push_manifest(&self, repo: &str, reference: &str, manifest: &Value) -> Answer {
        let path = format!("/v2/{repo}/manifests/{reference}");
        let kind = manifest["mediaType"].as_str().unwrap();
        let body = manifest.to_string();
        request("PUT", &path).header("content-type", kind).body(body).send(self.address).await
    }

    /// Pushes an image of one layer under `tag`; answers the manifest.
    pub async fn push_image(&self, repo: &str, tag: &str, layer: &[u8]) -> Value {
        for blob in [b"{}".as_slice(), layer] {
            assert_eq!(self.push_blob(repo, blob).await.status, 201);
        }
        let manifest = image(b"{}", &[layer]);
        let answer = self.push_manifest(repo, tag, &manifest).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        manifest
    }

    pub async fn get(&self, path: &str) -> Answer {
        request("GET", path).send(self.address).await
    }

    pub async fn head_blob(&self, repo: &str, bytes: &[u8]) -> u16 {
        let path = format!("/v2/{repo}/blobs/{}", Digest::of(bytes));
        request("HEAD", &path).send(self.address).await.status
    }
}

/// Serves the store in `dir`, which an earlier registry may have left.
pub async fn serve(dir: &Path, auth: Auth) -> (Registry, SocketAddr) {
    let blobs = DirBlobs::open(dir, &DirOptions::default()).unwrap();
    let registry = Registry::new(blobs.into(), auth);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(registry.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (registry, address)
}

pub fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

pub fn image(config: &[u8], layers: &[&[u8]]) -> Value {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    })
}
