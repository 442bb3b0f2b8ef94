//! Pulls from a registry: by name, through the mirror that stands for docker.io, and not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use minke_common_model::digest::Digest;

use crate::support::{Site, clis, image_config, image_layer};

/// What a registry answers, by the path below `/v2/`: media type and bytes.
pub type Content = BTreeMap<String, (String, Vec<u8>)>;

/// The SHA-256 of some bytes as an image's parts are called.
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Puts an image of these layers, as they are, into a registry.
pub fn put_image(
    content: &mut Content,
    repository: &str,
    tag: &str,
    config: &[u8],
    layers: &[Vec<u8>],
) {
    let blob = |bytes: &[u8], kind: &str| {
        format!(r#"{{"mediaType":"{kind}","size":{},"digest":"{}"}}"#, bytes.len(), digest(bytes))
    };
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let rows: Vec<String> =
        layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
        blob(config, "application/vnd.oci.image.config.v1+json"),
        rows.join(","),
    )
    .into_bytes();
    let name = |kind: &str, reference: &str| format!("{repository}/{kind}/{reference}");
    for reference in [tag.to_owned(), digest(&manifest)] {
        content.insert(name("manifests", &reference), (MANIFEST.to_owned(), manifest.clone()));
    }
    for bytes in layers.iter().map(Vec::as_slice).chain([config]) {
        let entry = ("application/octet-stream".to_owned(), bytes.to_vec());
        content.insert(name("blobs", &digest(bytes)), entry);
    }
}

/// A registry with the test image as `library/busybox:latest` and `team/app:v1`.
pub fn content() -> Content {
    let layer = image_layer();
    let config = image_config(&layer);
    let mut content = Content::new();
    for (repository, tag) in [("library/busybox", "latest"), ("team/app", "v1")] {
        put_image(&mut content, repository, tag, &config, std::slice::from_ref(&layer));
    }
    content
}

async fn answer(
    State(content): State<Arc<Content>>,
    Path(path): Path<String>,
) -> impl IntoResponse {
    match content.get(&path) {
        Some((kind, bytes)) => {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            headers.insert("docker-content-digest", digest(bytes).parse().unwrap());
            (StatusCode::OK, headers, bytes.clone()).into_response()
        }
        None => {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            (StatusCode::NOT_FOUND, body).into_response()
        }
    }
}

/// Serves a registry from a thread of the site's namespace; its address.
pub fn serve(content: Content) -> String {
    let routes = Router::new()
        .route("/v2/", get(async || "{}"))
        // It takes manifests of what it has and forgets them.
        .route("/v2/{*path}", get(answer).put(async || StatusCode::CREATED))
        .with_state(Arc::new(content));
    serve_routes(routes)
}

/// Serves these routes from a thread of the site's namespace; their address.
pub fn serve_routes(routes: Router) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().to_string()).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

#[test]
fn an_image_is_pulled_by_name_and_run() {
    let site = Site::empty(&[]);
    let registry = serve(content());
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let name = format!("{registry}/team/app:v1");
        let pulled = cli(&["pull", &name]).ok();
        assert!(
            pulled.contains("Pull complete") && pulled.contains("Downloaded newer image"),
            "{pulled}"
        );
        assert!(cli(&["pull", &name]).ok().contains("Image is up to date"));
        assert_eq!(cli(&["run", "--rm", &name, "echo", "pulled"]).ok(), "pulled\n");
        let by_digest = cli(&["inspect", "-f", "{{index .RepoDigests 0}}", &name]).ok();
        assert!(
            by_digest.trim().starts_with(&format!("{registry}/team/app@sha256:")),
            "{by_digest}"
        );
        let missing = cli(&["pull", &format!("{registry}/team/app:nosuch")]);
        assert!(missing.code == 1 && missing.stderr.contains("manifest unknown"), "{missing:?}");
        cli(&["rmi", &name]).ok();
    }
}

#[test]
fn a_mirror_stands_for_docker_io_and_run_pulls_what_is_missing() {
    // The namespace has to exist before the registry's thread, and the daemon is told its address.
    let mut site = Site::empty(&[]);
    let registry = serve(content());
    site.stop_engine();
    site.restart_with(&["--registry-mirror", &format!("http://{registry}")]);
    for docker in clis() {
        let run = site.cli(&docker, &["run", "--rm", "busybox", "echo", "through the mirror"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "through the mirror\n"), "{run:?}");
        assert!(run.stderr.contains("Unable to find image"), "{run:?}");
        site.cli(&docker, &["rmi", "busybox"]).ok();
    }
}

#[test]
fn a_push_of_all_tags_sends_each_of_the_repository() {
    let site = Site::empty(&[]);
    let registry = serve(content());
    let [repository, other] = ["app", "apps"].map(|name| format!("{registry}/team/{name}"));
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let name = |tag: &str| format!("{repository}:{tag}");
        cli(&["pull", &name("v1")]).ok();
        cli(&["tag", &name("v1"), &name("v2")]).ok();
        cli(&["tag", &name("v1"), &format!("{other}:v3")]).ok();
        let pushed = cli(&["push", "-a", &repository]).ok();
        for (says, times) in [("v1: digest:", 1), ("v2: digest:", 1), ("v3:", 0), ("refers to", 1)]
        {
            assert_eq!(pushed.matches(says).count(), times, "{says}: {pushed}");
        }
        let one = cli(&["push", &name("v2")]).ok();
        assert!(one.contains("v2: digest:") && !one.contains("v1:"), "{one}");
        let none = cli(&["push", "-a", &format!("{registry}/team/none")]);
        assert!(none.code == 1 && none.stderr.contains("does not exist locally"), "{none:?}");
        cli(&["rmi", &name("v1"), &name("v2"), &format!("{other}:v3")]).ok();
    }
}

#[test]
fn a_removal_has_an_event_of_the_image_and_none_of_its_layers() {
    let site = Site::empty(&[]);
    let registry = serve(content());
    let name = format!("{registry}/team/app:v1");
    site.docker(&["pull", &name]).ok();
    let id = site.docker(&["inspect", "-f", "{{.Id}}", &name]).ok();
    let removed = site.docker(&["rmi", &name]).ok();
    assert_eq!(removed.matches("Deleted: ").count(), 2, "an image and its layer: {removed}");
    let now = (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH))
        .map_or(0, |since| since.as_secs() + 1)
        .to_string();
    let events = ["events", "--since", "1h", "--until", &now, "--filter", "event=delete"];
    let told = site.docker(&[&events[..], &["--format", "{{.Actor.ID}}"]].concat()).ok();
    assert_eq!(told, id);
}
