//! What is refused before anything is recorded: by status for callers, in the streamed array for
//! projects, each with the words an author can act on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minke_cloud_builder::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Rows in memory; counts what is recorded.
struct Rows {
    fleet: Fleet,
    releases: AtomicUsize,
    outcomes: Mutex<Vec<Status>>,
    /// Somebody cancelled the release, and it was said to them.
    cancelled: AtomicBool,
}

impl Releases for Rows {
    fn fleet<'a>(
        &'a self,
        credential: &'a Credential,
        slug: &'a str,
    ) -> BoxFuture<'a, Result<Fleet, ReleaseError>> {
        Box::pin(async move {
            match (credential.bearer.as_str(), slug == self.fleet.slug) {
                ("good", true) => Ok(self.fleet.clone()),
                ("good", false) => Err(ReleaseError::NoFleet(slug.to_owned())),
                _ => Err(ReleaseError::Unauthorized),
            }
        })
    }

    fn create_release<'a>(
        &'a self,
        _fleet: &'a Fleet,
        release: NewRelease,
    ) -> BoxFuture<'a, Result<ReleaseRow, ReleaseError>> {
        self.releases.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(ReleaseRow { id: 1, commit: release.commit }) })
    }

    fn create_image<'a>(
        &'a self,
        _fleet: &'a Fleet,
        _release: &'a ReleaseRow,
        _image: NewImage,
    ) -> BoxFuture<'a, Result<ImageRow, ReleaseError>> {
        Box::pin(async { Ok(ImageRow { id: 1, location: "v2/00".into() }) })
    }

    fn update_image<'a>(
        &'a self,
        _image: &'a ImageRow,
        _update: ImageUpdate,
    ) -> BoxFuture<'a, Result<(), ReleaseError>> {
        Box::pin(async { Ok(()) })
    }

    fn finish_release<'a>(
        &'a self,
        _fleet: &'a Fleet,
        _release: &'a ReleaseRow,
        outcome: Outcome,
    ) -> BoxFuture<'a, Result<bool, ReleaseError>> {
        self.outcomes.lock().unwrap().push(outcome.status);
        Box::pin(async { Ok(!self.cancelled.load(Ordering::SeqCst)) })
    }

    fn is_cancelled<'a>(
        &'a self,
        _release: &'a ReleaseRow,
    ) -> BoxFuture<'a, Result<bool, ReleaseError>> {
        Box::pin(async { Ok(false) })
    }

    fn registry_token<'a>(
        &'a self,
        _repositories: &'a [String],
    ) -> BoxFuture<'a, Result<String, ReleaseError>> {
        Box::pin(async { Ok("token".into()) })
    }
}

struct Site {
    address: std::net::SocketAddr,
    rows: Arc<Rows>,
    worker: Arc<Worker>,
    dir: tempfile::TempDir,
}

/// A builder whose worker never gets to answer: whatever is refused here needs none.
async fn site(limits: Limits, multicontainer: bool) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::spawn(WorkerOptions {
        device_binary: "/bin/false".into(),
        data: dir.path().join("engine"),
        socket: dir.path().join("engine.sock"),
        registry_mirror: None,
        insecure_registries: Vec::new(),
    });
    let worker = Arc::new(worker.await.unwrap());
    let rows = Arc::new(Rows {
        fleet: Fleet {
            id: 1,
            slug: "org/fleet".into(),
            name: "fleet".into(),
            user: Some(1),
            device_type: "raspberrypi4-64".into(),
            architecture: "aarch64".into(),
            multicontainer,
            build_variables: Vec::new(),
        },
        releases: AtomicUsize::new(0),
        outcomes: Mutex::new(Vec::new()),
        cancelled: AtomicBool::new(false),
    });
    let mut options = BuilderOptions::new(dir.path().join("pushes"), "127.0.0.1:1".into());
    options.limits = limits;
    let builder = Builder::new(options, rows.clone(), worker.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(builder)).await });
    Site { address, rows, worker, dir }
}

impl Site {
    /// Posts a body; the status and the body of the answer, chunks joined.
    async fn post(&self, query: &str, bearer: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /v3/build?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (mut read, mut write) = stream.split();
        let send = async {
            write.write_all(head.as_bytes()).await.unwrap();
            // The server may have answered and closed before it has all of a refused body.
            let _ = write.write_all(body).await;
        };
        let mut answer = Vec::new();
        let receive = read.read_to_end(&mut answer);
        let ((), received) = tokio::join!(send, receive);
        received.unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { join_chunks(body) } else { body.to_owned() })
    }

    /// The error lines of a push of files.
    async fn errors(&self, files: &[(&str, &str)]) -> String {
        let (status, body) = self.post("slug=org/fleet", "good", &archive(files)).await;
        assert_eq!(status, 200);
        let messages: Vec<Value> = serde_json::from_str(&body).unwrap();
        let errors = messages.iter().filter(|m| m["isError"] == true);
        let texts: Vec<&str> = errors.filter_map(|m| m["message"].as_str()).collect();
        assert_eq!(texts.len(), 1, "{body}");
        assert_eq!(self.rows.releases.load(Ordering::SeqCst), 0);
        texts[0].to_owned()
    }
}

fn join_chunks(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    out
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match content.strip_prefix("→") {
            Some(link) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, link).unwrap();
            }
            None => {
                header.set_size(content.len() as u64);
                let name = path.as_bytes();
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// A Dockerfile that is not in its context.
const INLINE: &str =
    "services:\n  a:\n    build: { context: ., dockerfile_inline: \"FROM scratch\" }\n";

#[tokio::test]
async fn callers_are_refused_by_status() {
    let site = site(Limits::default(), true).await;
    let (status, text) = site.post("slug=org/fleet", "bad", b"").await;
    assert_eq!((status, text.contains("not valid")), (401, true));
    let (status, text) = site.post("slug=org/other", "good", b"").await;
    assert_eq!((status, text.contains("org/other")), (404, true));
    site.worker.stop().await;
}

#[tokio::test]
async fn projects_are_refused_with_place_and_expectation() {
    let site = site(Limits::default(), true).await;
    let compose = "docker-compose.yml";
    let outside = tempfile::tempdir().unwrap();
    let to_outside = format!("→{}", outside.path().display());
    let too_long = "x".repeat((1 << 20) + 1);
    for (files, says) in [
        (
            vec![("README.md", "x")],
            "no project found: expected docker-compose.yml, or one of Dockerfile.raspberrypi4-64, Dockerfile.aarch64, Dockerfile.template, Dockerfile",
        ),
        (
            vec![("Dockerfile", "FROM a\nRNU x\n")],
            "Dockerfile: line 2, column 1: unknown instruction `RNU`",
        ),
        (
            vec![("Dockerfile.template", "FROM %%BALENA_ARCH%%\n%%BALENA_X%%")],
            "Dockerfile.template: line 2, column 1: unknown template variable",
        ),
        (
            vec![(compose, "services:\n  a:\n    build: ../x\n")],
            "docker-compose.yml: line 3, column 12: the path `../x` leads outside",
        ),
        (
            vec![(compose, "services:\n  a:\n    build: x\n")],
            "docker-compose.yml: line 3, column 12: the context `x` is no directory",
        ),
        (
            vec![(compose, "services:\n  a:\n    build: x\n"), ("x/y", "")],
            "line 3, column 12: no Dockerfile in `x`",
        ),
        (
            vec![
                (compose, "services:\n  a:\n    build: x\n"),
                ("x/Dockerfile", "FROM a\nCOPY b\n"),
            ],
            "x/Dockerfile: line 2, column 7",
        ),
        (
            vec![
                (compose, "services:\n  a:\n    build: { context: ., target: t }\n"),
                ("Dockerfile", "FROM a AS b\n"),
            ],
            "the stage `t` does not exist; expected one of b",
        ),
        (vec![("Dockerfile", "→/etc/hostname")], "the path `Dockerfile` leads outside"),
        (
            vec![(compose, INLINE), (".dockerignore", "→/dev/zero")],
            "the path `.dockerignore` leads outside",
        ),
        (
            vec![(compose, INLINE), (".dockerignore", too_long.as_str())],
            ".dockerignore: the file has 1048577 bytes; the limit is 1048576",
        ),
        (vec![("../evil", "x")], "the path `../evil` leads outside"),
        (vec![("d", to_outside.as_str()), ("d/x", "y")], "the path `d/x` leads outside"),
        (
            vec![("Dockerfile", "FROM a"), (".balena/registry-secrets.json", "[]")],
            "registry-secrets.json: line 1",
        ),
    ] {
        let text = site.errors(&files).await;
        assert!(text.contains(says), "{files:?}: {text}");
    }
    assert!(!outside.path().join("x").exists());
    let left: Vec<_> = std::fs::read_dir(site.dir.path().join("engine")).unwrap().collect();
    assert!(left.is_empty());
    site.worker.stop().await;
}

#[tokio::test]
async fn limits_are_said() {
    let limits = Limits { unpacked: 100, entries: 5, sent: 100_000, ..Limits::default() };
    let site = site(limits, true).await;
    let long = "x".repeat(101);
    let text = site.errors(&[("Dockerfile", &long)]).await;
    assert!(text.contains("more than 100 bytes"), "{text}");
    let many = [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", ""), ("f", "")];
    let text = site.errors(&many).await;
    assert!(text.contains("more than 5 files"), "{text}");
    let (status, body) = site.post("slug=org/fleet", "good", &vec![0u8; 200_000]).await;
    assert_eq!(status, 200);
    assert!(body.contains("more than 100000 bytes") && body.contains("\"isError\":true"), "{body}");
    site.worker.stop().await;
}

#[tokio::test]
async fn a_project_that_trickles_in_is_given_up() {
    let limits = Limits { receive: Duration::from_secs(1), ..Limits::default() };
    let site = site(limits, true).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let head = "POST /v3/build?slug=org/fleet HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&archive(&[("Dockerfile", &"x".repeat(9000))])[..600]).await.unwrap();
    let (mut read, mut write) = stream.split();
    let trickle = async {
        // Never a pause that is too long, and no end.
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    let answer = async {
        let mut answer = Vec::new();
        loop {
            let got = read.read_buf(&mut answer).await.unwrap();
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert_ne!(got, 0, "{text}");
            if text.contains("that is the limit") {
                break text;
            }
        }
    };
    let answer = tokio::select! {
        () = trickle => unreachable!(),
        answer = tokio::time::timeout(Duration::from_secs(50), answer) => answer.unwrap(),
    };
    let says = "receiving the project: it was not all here after 1s; that is the limit";
    assert!(answer.contains(says), "{answer}");
    site.worker.stop().await;
}

#[tokio::test]
async fn a_starter_fleet_takes_one_service() {
    let site = site(Limits::default(), false).await;
    let two = "services:\n  a:\n    image: x\n  b:\n    image: x\n";
    let text = site.errors(&[("docker-compose.yml", two)]).await;
    assert!(text.contains("takes one service, but the project has 2"), "{text}");
    site.worker.stop().await;
}

#[tokio::test]
async fn a_headless_push_answers_with_its_reason() {
    let site = site(Limits::default(), true).await;
    let body = archive(&[("README", "")]);
    let (status, text) = site.post("slug=org/fleet&headless=true", "good", &body).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["started"]), (200, &Value::Bool(false)));
    assert!(answer["message"].as_str().unwrap().contains("no project found"));
    site.worker.stop().await;
}

/// Answers on the socket that a worker's engine would have.
fn serve(socket: &std::path::Path, router: axum::Router) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// An engine that has every image and can store it.
fn ready_engine(socket: &std::path::Path) {
    use axum::http::{Method, StatusCode, Uri};
    let answer = async |method: Method, uri: Uri| match (method, uri.path()) {
        (Method::GET, path) if path.ends_with("/json") => {
            (StatusCode::OK, r#"{"Id": "sha256:00", "Os": "linux", "Architecture": "arm64"}"#)
        }
        (Method::POST, path) if path.ends_with("/push") => {
            (StatusCode::OK, "{\"aux\": {\"Digest\": \"sha256:00\"}}\n")
        }
        (Method::DELETE, _) => (StatusCode::OK, "[]"),
        _ => (StatusCode::OK, ""),
    };
    serve(socket, axum::Router::new().fallback(answer));
}

#[tokio::test]
async fn a_release_that_was_cancelled_is_not_announced_as_ready() {
    let site = site(Limits::default(), true).await;
    ready_engine(&site.dir.path().join("engine.sock"));
    let body = archive(&[("docker-compose.yml", "services:\n  a:\n    image: x\n")]);
    let (_, text) = site.post("slug=org/fleet", "good", &body).await;
    assert!(text.contains("is ready"), "{text}");
    assert_eq!(*site.rows.outcomes.lock().unwrap(), [Status::Success]);

    // As if it were cancelled after the last look and before the end.
    site.rows.cancelled.store(true, Ordering::SeqCst);
    let (_, text) = site.post("slug=org/fleet", "good", &body).await;
    assert!(text.contains("the push was cancelled") && !text.contains("is ready"), "{text}");
    let expected = [Status::Success, Status::Success, Status::Cancelled];
    assert_eq!(*site.rows.outcomes.lock().unwrap(), expected);
    site.worker.stop().await;
}

/// An engine to which somebody has brought an image with credentials. Its registry lets `me` have it. What
/// the engine is asked, without versions.
fn engine_with_a_private_image(socket: &std::path::Path) -> Arc<Mutex<Vec<String>>> {
    use axum::http::{HeaderMap, Method, StatusCode, Uri};
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let answer = async move |method: Method, uri: Uri, headers: HeaderMap| {
        let path = uri.path().trim_start_matches("/v1.47").to_owned();
        heard.lock().unwrap().push(format!("{method} {path}"));
        match (method, path.as_str()) {
            (Method::GET, path) if path.ends_with("/json") => (
                StatusCode::OK,
                r#"{"Id": "sha256:00", "Os": "linux", "Architecture": "arm64", "Private": true}"#,
            ),
            (Method::POST, "/images/create") if !headers.contains_key("x-registry-auth") => {
                (StatusCode::NOT_FOUND, r#"{"message": "pull access denied"}"#)
            }
            (Method::POST, path) if path.ends_with("/push") => {
                (StatusCode::OK, "{\"aux\": {\"Digest\": \"sha256:00\"}}\n")
            }
            (Method::DELETE, _) => (StatusCode::OK, "[]"),
            _ => (StatusCode::OK, ""),
        }
    };
    serve(socket, axum::Router::new().fallback(answer));
    asked
}

#[tokio::test]
async fn an_image_of_another_is_asked_for_with_the_callers_own_credentials() {
    let site = site(Limits::default(), true).await;
    let asked = engine_with_a_private_image(&site.dir.path().join("engine.sock"));
    let compose = ("docker-compose.yml", "services:\n  a:\n    image: r.test/x:1\n");
    let dockerfile = ("Dockerfile", "FROM r.test/x:1\n");
    for file in [compose, dockerfile] {
        let text = site.errors(&[file]).await;
        let says = "the image `r.test/x:1` cannot be had for linux/arm64: pull access denied";
        assert!(text.contains(says), "{text}");
    }
    let is_tagged = |line: &String| line.ends_with("/tag");
    assert!(!asked.lock().unwrap().iter().any(is_tagged), "{asked:?}");

    let secrets = r#"{"r.test": {"username": "me", "password": "secret"}}"#;
    let body = archive(&[compose, (".balena/registry-secrets.json", secrets)]);
    let (_, text) = site.post("slug=org/fleet", "good", &body).await;
    assert!(text.contains("is ready"), "{text}");
    // By its id: what the name means by now may be somebody else's.
    let tagged = asked.lock().unwrap().iter().find(|line| is_tagged(line)).cloned();
    assert_eq!(tagged.as_deref(), Some("POST /images/sha256:00/tag"));
    site.worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = Worker::spawn(WorkerOptions {
        device_binary: dir.path().join("nothing"),
        data: dir.path().join("engine"),
        socket: dir.path().join("engine.sock"),
        registry_mirror: None,
        insecure_registries: Vec::new(),
    });
    let text = error.await.err().unwrap().to_string();
    assert!(text.contains("starting the build engine"), "{text}");
}
