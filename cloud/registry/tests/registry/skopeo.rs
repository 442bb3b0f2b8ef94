//! A real client: images travel through the registry and come out with the same digests.

use std::path::Path;
use std::process::Command;

use minke_cloud_blobs::Digest;
use serde_json::{Value, json};

use crate::fixture::{OCI_INDEX, OCI_MANIFEST, Server, descriptor, image};

async fn skopeo(arguments: Vec<String>) -> String {
    let run = move || {
        let mut command = Command::new("skopeo");
        let output = command.arg("--insecure-policy").args(&arguments).output();
        (output.expect("skopeo is installed"), arguments)
    };
    let (output, arguments) = tokio::task::spawn_blocking(run).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Writes `bytes` into an OCI layout.
fn store(layout: &Path, bytes: &[u8]) {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
}

fn empty_tar(fill: u8) -> Vec<u8> {
    // No entry, only the end mark; the padding makes layers differ.
    [vec![0; 10240], vec![0; 512 * usize::from(fill)]].concat()
}

/// An OCI layout with an index of two architectures, called `multi`; answers the index.
fn layout(path: &Path) -> Value {
    let mut manifests = Vec::new();
    for (fill, architecture) in [(0, "amd64"), (1, "arm64")] {
        let layer = empty_tar(fill);
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
        })
        .to_string();
        let manifest = image(config.as_bytes(), &[&layer]).to_string();
        for bytes in [layer.as_slice(), config.as_bytes(), manifest.as_bytes()] {
            store(path, bytes);
        }
        let mut entry = descriptor(OCI_MANIFEST, manifest.as_bytes());
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    store(path, index.to_string().as_bytes());
    let mut top = descriptor(OCI_INDEX, index.to_string().as_bytes());
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "multi"});
    let top = json!({"schemaVersion": 2, "manifests": [top]});
    std::fs::write(path.join("index.json"), top.to_string()).unwrap();
    std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    index
}

#[tokio::test]
async fn skopeo_pushes_and_pulls_images_and_indexes() {
    let server = Server::open().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let index = layout(&from);
    let (from, to, host) = (from.display(), to.display(), server.address);
    let image = format!("docker://{host}/library/thing");
    skopeo(words(&format!(
        "copy --all --preserve-digests --dest-tls-verify=false oci:{from}:multi {image}:multi"
    )))
    .await;
    skopeo(words(&format!(
        "copy --all --preserve-digests --src-tls-verify=false {image}:multi oci:{to}:back"
    )))
    .await;
    let back = std::fs::read(dir.path().join("to/index.json")).unwrap();
    let back: Value = serde_json::from_slice(&back).unwrap();
    let expected = Digest::of(index.to_string().as_bytes()).to_string();
    assert_eq!(back["manifests"][0]["digest"], expected.as_str());

    // As Docker's schema 2, compressed by skopeo on the way, and into a second repository.
    skopeo(words(&format!(
        "copy --format v2s2 --dest-compress --dest-tls-verify=false --src-tls-verify=false \
         {image}:multi docker://{host}/second:v2s2"
    )))
    .await;
    let raw =
        skopeo(words(&format!("inspect --raw --tls-verify=false docker://{host}/second:v2s2")));
    let raw: Value = serde_json::from_str(&raw.await).unwrap();
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    let tags = skopeo(words(&format!("list-tags --tls-verify=false {image}"))).await;
    assert_eq!(serde_json::from_str::<Value>(&tags).unwrap()["Tags"], json!(["multi"]));
    skopeo(words(&format!("delete --tls-verify=false docker://{host}/second:v2s2"))).await;
    assert_eq!(server.get("/v2/second/manifests/v2s2").await.status, 404);
}
