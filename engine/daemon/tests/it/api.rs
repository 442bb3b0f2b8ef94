//! The corners of the API that no CLI shows: raw HTTP.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use minke_engine_client::wire::{ContainerConfig, CreateContainer};
use minke_engine_client::{RemoveContainer, WaitFor};

use crate::support::Site;

fn body(command: &[&str]) -> CreateContainer {
    let config = ContainerConfig {
        image: "busybox".to_owned(),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        ..ContainerConfig::default()
    };
    CreateContainer { config, ..CreateContainer::default() }
}

fn ask(site: &Site, request: &str) -> String {
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn versions_are_negotiated_and_errors_have_a_message() {
    let site = Site::empty(&[]);
    let get = |path: &str| ask(&site, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let ping = ask(&site, "HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n").to_ascii_lowercase();
    for header in ["api-version: 1.47", "builder-version: 1", "ostype: linux"] {
        assert!(ping.contains(header), "{ping}");
    }
    assert!(get("/v1.24/version").contains("\"MinAPIVersion\":\"1.24\""));
    assert!(get("/v1.23/version").contains("client version 1.23 is too old"));
    assert!(get("/v1.99/version").contains("client version 1.99 is too new"));
    let missing = get("/v1.47/containers/nosuch/json");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.ends_with("{\"message\":\"No such container: nosuch\"}\n"), "{missing}");
    assert!(get("/nosuch").starts_with("HTTP/1.1 404"));
    let broken = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{";
    assert!(ask(&site, broken).contains("invalid JSON"));
    let attach = "POST /containers/nosuch/attach HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(ask(&site, attach).contains("No such container"));
    let ws = "GET /session HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(ask(&site, ws).contains("BuildKit"));
}

#[test]
fn attach_without_an_upgrade_answers_200_and_half_close_ends_stdin_only() {
    let site = Site::new();
    let client = site.client();
    site.block_on(async {
        let mut body = body(&["sh", "-c", "cat; echo after the end"]);
        body.config.open_stdin = true;
        body.config.stdin_once = true;
        client.create("cat", &body).await.unwrap();
    });
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    let request = "POST /v1.47/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n\
                   Host: x\r\nContent-Length: 0\r\n\r\nearly ";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = [0u8; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    site.block_on(async { client.start("cat").await.unwrap() });
    stream.write_all(b"late").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut text = String::new();
    let mut frames = &answer[start..];
    while let Some((frame, rest)) = frames.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        assert_eq!(frame[0], 1, "it wrote to stdout only");
        text.push_str(std::str::from_utf8(&rest[..length]).unwrap());
        frames = &rest[length..];
    }
    assert_eq!(text, "early lateafter the end\n");
}

#[test]
fn a_wait_is_armed_when_its_head_arrives_and_knows_the_code_of_what_is_removed() {
    let site = Site::new();
    let client = site.client();
    site.block_on(async {
        for round in 0..10 {
            let mut body = body(&["sh", "-c", &format!("exit {round}")]);
            body.host_config.auto_remove = true;
            let id = client.create("", &body).await.unwrap().id;
            let next = client.begin_wait(&id, WaitFor::NextExit).await.unwrap();
            let removed = client.begin_wait(&id, WaitFor::Removed).await.unwrap();
            client.start(&id).await.unwrap();
            assert_eq!(next.finish().await.unwrap(), round);
            assert_eq!(removed.finish().await.unwrap(), round);
            assert!(client.inspect_container(&id).await.unwrap().is_none());
        }
    });
    assert_eq!(site.remains(), Vec::<String>::new());
}

#[test]
fn a_name_is_taken_once_and_a_start_twice_is_no_error() {
    let site = Site::new();
    let client = site.client();
    site.block_on(async {
        let sleeper = body(&["sleep", "1000"]);
        let (one, two) =
            tokio::join!(client.create("same", &sleeper), client.create("same", &sleeper));
        assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
        let (one, two) = tokio::join!(client.start("same"), client.start("same"));
        one.unwrap();
        two.unwrap();
        let outcome =
            client.exec("same", &["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
        assert_eq!(
            (outcome.exit_code, outcome.stdout, outcome.stderr),
            (3, b"out\n".to_vec(), b"err\n".to_vec())
        );
        let refused = client.remove("same", RemoveContainer::default()).await.unwrap_err();
        assert!(refused.is_conflict());
        client.remove("same", RemoveContainer { force: true, volumes: false }).await.unwrap();
        assert!(client.start("same").await.unwrap_err().is_not_found());
    });
}
