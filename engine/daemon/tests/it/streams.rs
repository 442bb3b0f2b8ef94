//! Answers that go on, over plain connections.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;

use serde_json::{Value, json};

use crate::support::{Begun, Site, ask, begin, wait_until};

/// What asks for a connection to be taken over.
const UPGRADE: [&str; 3] =
    ["Connection: Upgrade", "Upgrade: tcp", "Content-Type: application/json"];

#[test]
fn stats_go_on_and_each_sample_has_the_one_before_it() {
    let site = Site::new();
    let words = ["run", "-d", "--name", "box", "--cpus", "0.2", "busybox"];
    site.docker(&[&words[..], &["sh", "-c", "while :; do :; done"]].concat()).ok();
    let begun = begin(&site, "GET", "/containers/box/stats?stream=1", &[], b"");
    assert!(begun.head.starts_with("HTTP/1.1 200"), "{}", begun.head);
    // Each sample is a line; between them are the lengths of chunks.
    let lines = BufReader::new(begun.stream).lines().map(Result::unwrap);
    let mut samples = lines.filter(|line| line.starts_with('{'));
    let mut next = || -> Value { serde_json::from_str(&samples.next().unwrap()).unwrap() };
    let (first, second) = (next(), next());
    assert_eq!(first["precpu_stats"]["cpu_usage"]["total_usage"], 0, "{first}");
    assert_eq!(second["precpu_stats"], first["cpu_stats"]);
    assert_eq!(second["preread"], first["read"]);
    let used = |sample: &Value| sample["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap();
    assert!(used(&second) > used(&first), "{first}\n{second}");
    assert_ne!(second["read"], first["read"]);
}

#[test]
fn an_attach_gives_what_was_said_before_and_goes_on_with_what_is_said() {
    let site = Site::new();
    let script = "echo before; echo wrong >&2; read go; echo after";
    site.docker(&["run", "-di", "--name", "box", "busybox", "sh", "-c", script]).ok();
    let said = || site.docker(&["logs", "box"]);
    wait_until("the first words", || {
        let said = said();
        (said.stdout == "before\n" && said.stderr == "wrong\n").then_some(())
    });
    let attach = |query: &str| -> Begun {
        let path = format!("/containers/box/attach?{query}&stdout=1");
        let begun = begin(&site, "POST", &path, &UPGRADE, b"");
        assert!(begun.head.starts_with("HTTP/1.1 101 "), "{}", begun.head);
        assert!(begun.head.contains("Upgrade: tcp"), "{}", begun.head);
        begun
    };
    assert_eq!(attach("logs=1").finish().frames(), "before\n");
    let both = attach("logs=1&stderr=1").finish().frames();
    let mut lines: Vec<&str> = both.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["before", "wrong"]);
    let mut whole = attach("logs=1&stream=1&stdin=1");
    let live = attach("stream=1");
    whole.stream.write_all(b"go\n").unwrap();
    whole.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(whole.finish().frames(), "before\nafter\n");
    assert_eq!(live.finish().frames(), "after\n");
}

#[test]
fn a_size_that_is_said_while_an_exec_is_being_started_is_that_of_its_terminal() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    // The head comes before the process does. Nothing says how long before: so several times.
    for columns in 60..68 {
        let wait = format!("until [ \"$(stty size)\" = \"31 {columns}\" ]; do sleep 0.01; done");
        let exec = json!({ "AttachStdout": true, "Tty": true, "Cmd": ["sh", "-c", wait] });
        let made = ask(&site, "POST", "/containers/box/exec", Some(&exec)).json();
        let id = made["Id"].as_str().unwrap();
        let path = format!("/exec/{id}/start");
        let running = begin(&site, "POST", &path, &UPGRADE, b"{\"Tty\":true}");
        assert!(running.head.starts_with("HTTP/1.1 101 "), "{}", running.head);
        let path = format!("/exec/{id}/resize?h=31&w={columns}");
        let resized = ask(&site, "POST", &path, None);
        assert_eq!(resized.status, 200, "{}", resized.text);
        running.finish();
        let ended = ask(&site, "GET", &format!("/exec/{id}/json"), None).json();
        assert_eq!(ended["ExitCode"], 0, "{ended}");
    }
}
