//! A build goes on while what builds left is pruned from under it, on a real engine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use minke_cloud_builder::{Worker, WorkerOptions};
use minke_common_model::digest::Digest;
use minke_engine_client::{BuildImage, Client};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What both builds begin with.
const FIRST: &str = "FROM base\nCOPY file /file\n";

/// A step says that it runs, and waits to be told to end.
const WAITS: &str = r#"
RUN --mount=type=cache,target=/meeting ["/bin/busybox", "sh", "-c", "\
    echo here > /meeting/here; n=0; \
    until [ -e /meeting/go ] || [ $n = 1200 ]; do /bin/busybox sleep 0.1; n=$((n+1)); done; \
    [ -e /meeting/go ] && /bin/busybox cat /file > /copy"]
COPY --from=lent /lent /lent
"#;

/// The program beside which this test was built.
fn device_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let beside = own.ancestors().map(|folder| folder.join("minke-device"));
    beside.into_iter().find(|path| path.is_file()).expect("minke-device is built with the tests")
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Brings an image of one file to the engine. What builds there have named is no other build's to use.
async fn load(socket: &Path, name: &str, path: &str, content: &[u8]) {
    let layer = tar_of(&[(path, content)]);
    let rootfs = json!({ "type": "layers", "diff_ids": [Digest::of(&layer)] });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string();
    let tags = [format!("{name}:latest")];
    let manifest = json!([{ "Config": "config", "RepoTags": tags, "Layers": ["layer"] }]);
    let manifest = manifest.to_string();
    let archive = tar_of(&[
        ("config", config.as_bytes()),
        ("layer", &layer),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let head = "POST /images/load HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", archive.len());
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    stream.write_all(&[head.as_bytes(), &archive].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("Loaded image"), "{answer}");
}

async fn build(
    client: &Client,
    name: &str,
    recipe: &str,
    files: &[(&str, &[u8])],
) -> Result<(), String> {
    let context = tar_of(&[&[("Dockerfile", recipe.as_bytes())], files].concat());
    let context = bytes::Bytes::from(context);
    let context = futures_util::stream::once(async { Ok(context) }).boxed();
    let request = BuildImage {
        tags: vec![name.to_owned()],
        network_mode: "none".to_owned(),
        ..BuildImage::default()
    };
    let mut said = String::new();
    let take = |line: &minke_engine_client::wire::ProgressLine| {
        said.extend(line.stream.as_deref());
    };
    let built = client.build(&request, context, take).await;
    built.map(drop).map_err(|error| format!("{error}\n{said}"))
}

/// The directory of the one `RUN --mount=type=cache`, once the step says that it runs.
async fn meeting(data: &Path) -> PathBuf {
    let until = Instant::now() + Duration::from_secs(100);
    loop {
        let mounts = std::fs::read_dir(data.join("build/mounts")).into_iter().flatten().flatten();
        let here = mounts.map(|it| it.path()).find(|it| it.join("here").exists());
        match here {
            Some(path) => return path,
            None => assert!(Instant::now() < until, "the step did not run"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_prune_during_a_build_takes_nothing_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("engine");
    let worker = Worker::spawn(WorkerOptions {
        device_binary: device_binary(),
        data: data.clone(),
        socket: dir.path().join("engine.sock"),
        registry_mirror: None,
        insecure_registries: Vec::new(),
    });
    let worker = worker.await.unwrap();
    worker.ready(Duration::from_secs(60)).await.unwrap();
    let client = worker.client();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    load(client.socket(), "base", "bin/busybox", &busybox).await;
    load(client.socket(), "lent", "lent", b"lent").await;
    let files: [(&str, &[u8]); 1] = [("file", b"kept")];
    build(client, "first", FIRST, &files).await.unwrap();
    client.delete_built_image("first").await.unwrap();

    let waits = format!("{FIRST}{WAITS}");
    let mut running = std::pin::pin!(build(client, "made", &waits, &files));
    let meeting = tokio::select! {
        built = &mut running => panic!("it did not wait: {built:?}"),
        meeting = meeting(&data) => meeting,
    };
    // The step that both have.
    let pruned = client.prune_builds(Some(SystemTime::now()), 0).await.unwrap();
    assert_eq!(pruned.caches_deleted.unwrap().len(), 1);
    client.prune_builds(None, 0).await.unwrap();
    assert!(client.delete_built_image("base").await.unwrap_err().is_conflict());
    std::fs::write(meeting.join("go"), "").unwrap();
    running.await.unwrap();
    assert!(meeting.join("here").exists(), "the cache of a running step went");
    let made = client.inspect_image("made").await.unwrap().unwrap();
    assert_eq!(made.root_fs.layers.len(), 4);

    // The build is over: now it goes.
    client.prune_builds(None, 0).await.unwrap();
    assert!(!meeting.exists() && client.build_cache().await.unwrap().is_empty());
    worker.stop().await;
}
