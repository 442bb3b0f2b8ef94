//! `minke-device engine verify` as people and scripts call it: exit codes, text, JSON, repair.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minke_common_model::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_minke-device");
const PATIENCE: Duration = Duration::from_secs(60);

/// What the registry answers, by path: media type and bytes.
type Content = Arc<Mutex<HashMap<String, (&'static str, Vec<u8>)>>>;

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// A registry with the image `app:v1`, whose only layer has the file `etc/motd`.
fn content() -> Content {
    let mut tar = tar::Builder::new(Vec::new());
    let text = b"right and not wrong\n".repeat(500);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, "etc/motd", &text[..]).unwrap();
    let layer = tar.into_inner().unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({ "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] } })
    .to_string()
    .into_bytes();
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let part = |kind: &str, bytes: &[u8]| {
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
        "size": bytes.len(), "digest": digest(bytes) })
    };
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
        "config": part("config.v1+json", &config), "layers": [part("layer.v1.tar", &layer)] })
    .to_string()
    .into_bytes();
    let mut content = HashMap::from([("/v2/".to_owned(), ("application/json", b"{}".to_vec()))]);
    for name in ["v1".to_owned(), digest(&manifest)] {
        content.insert(format!("/v2/app/manifests/{name}"), (MANIFEST, manifest.clone()));
    }
    for bytes in [layer, config] {
        let path = format!("/v2/app/blobs/{}", digest(&bytes));
        content.insert(path, ("application/octet-stream", bytes));
    }
    Arc::new(Mutex::new(content))
}

/// Serves the registry; its address.
fn serve(content: Content) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that tries TLS first is told at once that there is none.
            let mut first = [0];
            if stream.peek(&mut first).is_err() || !first[0].is_ascii_alphabetic() {
                continue;
            }
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let mut words = first.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let found = content.lock().unwrap().get(path).cloned();
            let (status, (kind, body)) = match found {
                Some(found) => ("200 OK", found),
                None => ("404 Not Found", ("application/json", b"{\"errors\":[]}".to_vec())),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Docker-Content-Digest: {}\r\nConnection: close\r\n\r\n",
                body.len(),
                digest(&body)
            );
            // A client that has heard enough is no failure.
            let _ = stream.write_all(head.as_bytes());
            if method != "HEAD" {
                let _ = stream.write_all(&body);
            }
        }
    });
    address
}

/// An engine that runs, in a network namespace that only this thread has.
struct Engine {
    child: Child,
}

impl Engine {
    fn start(data: &Path, socket: &Path) -> Engine {
        let child = Command::new(PROGRAM)
            .args(["engine", "--data"])
            .arg(data)
            .arg("--socket")
            .arg(socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Engine { child };
        let begun = Instant::now();
        while docker(socket, &["info"]).status.code() != Some(0) {
            assert!(begun.elapsed() < PATIENCE, "the engine does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        engine
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn docker(socket: &Path, words: &[&str]) -> Output {
    let host = format!("unix://{}", socket.display());
    Command::new("docker").env("DOCKER_HOST", host).args(words).output().unwrap()
}

/// How `engine verify` ended, and what it said on stdout and stderr.
fn verify(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(["engine", "verify"]).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json_of(said: &(Option<i32>, String, String)) -> Value {
    serde_json::from_str(&said.1).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn motd(data: &Path) -> PathBuf {
    let layers: Vec<_> = fs::read_dir(data.join("images/layers")).unwrap().flatten().collect();
    assert_eq!(layers.len(), 1);
    layers[0].path().join("fs/etc/motd")
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_is_said_by_text_json_and_exit_code_and_repaired() {
    // SAFETY: only this thread and what it starts get a new network namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).unwrap() };
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let dir = tempfile::tempdir().unwrap();
    let (data, socket) = (dir.path().join("data"), dir.path().join("engine.sock"));
    let (data_text, socket_text) = (data.to_str().unwrap(), socket.to_str().unwrap());
    let content = content();
    let registry = serve(content.clone());
    let engine = Engine::start(&data, &socket);
    let pulled = docker(&socket, &["pull", "-q", &format!("{registry}/app:v1")]);
    assert!(pulled.status.success(), "{pulled:?}");

    let whole = verify(&["--socket", socket_text]);
    assert_eq!(whole.0, Some(0), "{whole:?}");
    assert!(whole.1.starts_with("1 images, 1 layers, ") && whole.1.ends_with("; 0 damaged\n"));
    let whole = verify(&["--socket", socket_text, "--json"]);
    assert_eq!((whole.0, &json_of(&whole)["damaged"]), (Some(0), &json!([])));
    let runs = verify(&["--data", data_text]);
    assert!(runs.0 == Some(1) && runs.2.contains("another engine uses"), "{runs:?}");
    assert_eq!(verify(&[]).0, Some(2), "a command that says neither socket nor data");

    // Under the running engine.
    let right = fs::read(motd(&data)).unwrap();
    flip(&motd(&data));
    let found = verify(&["--socket", socket_text]);
    assert!(found.0 == Some(1) && found.2.contains("1 part is damaged"), "{found:?}");
    assert!(found.1.contains("layer sha256:") && found.1.contains("etc/motd"), "{found:?}");
    assert!(found.1.contains("--repair fetches what is damaged again"), "{found:?}");
    let repaired = verify(&["--socket", socket_text, "--repair"]);
    assert!(repaired.0 == Some(0) && repaired.1.contains("  repaired\n"), "{repaired:?}");
    assert_eq!(fs::read(motd(&data)).unwrap(), right);
    engine.stop();

    // In the data of one that does not run: first with a registry that has lost the image.
    flip(&motd(&data));
    let kept = std::mem::take(&mut *content.lock().unwrap());
    let lost = verify(&["--data", data_text, "--repair", "--json"]);
    let part = &json_of(&lost)["damaged"][0];
    assert!(lost.0 == Some(1) && part["repaired"] == false, "{lost:?}");
    assert!(part["failure"].as_str().is_some_and(|why| !why.is_empty()), "{lost:?}");
    assert_eq!(part["images"].as_array().map(Vec::len), Some(1));
    *content.lock().unwrap() = kept;
    let repaired = verify(&["--data", data_text, "--repair", "--json"]);
    assert_eq!(
        (repaired.0, &json_of(&repaired)["damaged"][0]["repaired"]),
        (Some(0), &json!(true))
    );
    assert_eq!(fs::read(motd(&data)).unwrap(), right);
    let whole = verify(&["--data", data_text]);
    assert!(whole.0 == Some(0) && whole.1.ends_with("; 0 damaged\n"), "{whole:?}");
}
