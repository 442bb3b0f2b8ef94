//! Calls that meet each other at one container, and calls whose client does not wait for the answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Site, ask, now, wait_until};

#[test]
fn a_start_behind_a_removal_starts_nothing() {
    let site = Site::new();
    for round in 0..4 {
        site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
        let begin = || loop {
            let answer = ask(&site, "POST", "/containers/box/start", None);
            match answer.status {
                // It runs; or it is on its way out, or gone.
                204 | 304 | 409 => {}
                404 => return,
                _ => panic!("round {round}: {} {}", answer.status, answer.text),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(begin);
            }
            let removed = ask(&site, "DELETE", "/containers/box?force=1", None);
            assert_eq!(removed.status, 204, "round {round}: {}", removed.text);
        });
        assert_eq!(site.remains(), Vec::<String>::new(), "round {round}");
        assert_eq!(std::fs::read_dir(site.data().join("containers")).unwrap().count(), 0);
    }
}

/// Asks for something and goes away after some milliseconds.
fn ask_and_leave(site: &Site, path: &str, body: &Value, after: u64) {
    let body = body.to_string();
    let length = body.len();
    let head = "Host: x\r\nContent-Type: application/json\r\n";
    let call = format!("POST {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}");
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(call.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(after));
    drop(stream);
    // Nothing tells whether it has begun, and what has not begun need not.
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn who_leaves_while_a_container_comes_into_a_network_or_out_of_it_leaves_nothing_halfway() {
    let site = Site::new();
    let id = site.docker(&["network", "create", "net"]).ok();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let network = || {
        let shown = ask(&site, "GET", &format!("/networks/{}", id.trim()), None).json();
        !shown["Containers"].as_object().unwrap().is_empty()
    };
    let container = || {
        let shown = ask(&site, "GET", "/containers/box/json", None).json();
        !shown["NetworkSettings"]["Networks"]["net"].is_null()
    };
    let body = json!({ "Container": "box" });
    for after in (0..16).step_by(3) {
        for (word, inside) in [("connect", true), ("disconnect", false)] {
            let path = format!("/networks/net/{word}");
            ask_and_leave(&site, &path, &body, after);
            wait_until("both sides saying the same", || (network() == container()).then_some(()));
            let again = ask(&site, "POST", &path, Some(&body));
            assert!([200, 403].contains(&again.status), "{word}: {}", again.text);
            assert_eq!((network(), container()), (inside, inside), "{word} after {after} ms");
        }
    }
    site.docker(&["network", "rm", "net"]).ok();
}

#[test]
fn a_connection_that_fails_halfway_can_be_tried_again() {
    let site = Site::new();
    site.docker(&["network", "create", "net"]).ok();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let bad = json!({ "Container": "box", "EndpointConfig": { "Links": ["other:no name"] } });
    let failed = ask(&site, "POST", "/networks/net/connect", Some(&bad));
    assert_eq!(failed.status, 400, "{}", failed.text);
    site.docker(&["network", "connect", "net", "box"]).ok();
    site.docker(&["network", "disconnect", "net", "box"]).ok();
    site.docker(&["network", "rm", "net"]).ok();
}

/// A container that does not end by itself when it is asked to.
fn deaf(site: &Site, options: &[&str]) {
    let words = [&["run", "-d", "--name", "box"], options, &["busybox", "sleep", "1000"]];
    site.docker(&words.concat()).ok();
}

/// Waits until a container was asked to end, after `since`.
fn wait_for_term(site: &Site, since: &str) {
    wait_until("the stop's signal", || {
        let events = ["events", "--since", since, "--until", &now()];
        site.docker(&events).ok().contains("signal=15").then_some(())
    });
}

#[test]
fn whoever_wants_a_container_to_end_sooner_does_not_wait_for_a_stop() {
    let site = Site::new();
    for (method, path) in [
        ("DELETE", "/containers/box?force=1"),
        ("POST", "/containers/box/stop?t=0"),
        ("POST", "/containers/box/restart?t=0"),
        ("POST", "/containers/box/kill"),
    ] {
        let before = now();
        deaf(&site, &[]);
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| ask(&site, "POST", "/containers/box/stop?t=-1", None));
            wait_for_term(&site, &before);
            let begin = Instant::now();
            let answer = ask(&site, method, path, None);
            assert_eq!(answer.status, 204, "{path}: {}", answer.text);
            assert!(begin.elapsed() < Duration::from_secs(60), "{path}: {:?}", begin.elapsed());
            assert_eq!(stop.join().unwrap().status, 204, "{path}");
        });
        let running = site.docker(&["inspect", "-f", "{{.State.Running}}", "box"]).stdout;
        assert_eq!(running.trim() == "true", path.contains("restart"), "{path}");
        site.docker(&["rm", "-f", "box"]);
    }
}

#[test]
fn a_restart_is_no_end_for_a_container_that_removes_itself() {
    let site = Site::new();
    deaf(&site, &["--rm"]);
    for _ in 0..5 {
        site.docker(&["restart", "-t", "0", "box"]).ok();
        assert_eq!(site.docker(&["inspect", "-f", "{{.State.Running}}", "box"]).ok(), "true\n");
    }
    site.docker(&["stop", "-t", "0", "box"]).ok();
    wait_until("the removal", || (site.docker(&["inspect", "box"]).code == 1).then_some(()));
    deaf(&site, &["--rm"]);
    site.docker(&["rm", "-f", "box"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
    assert!(!site.log().contains("could not be removed after its end"), "{}", site.log());
}

#[test]
fn a_start_that_failed_at_the_log_can_be_tried_again_at_once_and_lasts() {
    let mut site = Site::new();
    let id = site.docker(&["create", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let id = id.trim();
    let log = site.data().join("containers").join(id).join(format!("{id}-json.log"));
    std::fs::create_dir(&log).unwrap();
    let failed = site.docker(&["start", "box"]);
    assert!(failed.code != 0 && failed.stderr.contains("opening the log"), "{failed:?}");
    std::fs::remove_dir(&log).unwrap();
    site.docker(&["start", "box"]).ok();
    // Nothing tells of the shim of the first start: it is given the time after which it would end for
    // want of company, and would take the socket of the second with it.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(site.docker(&["exec", "box", "echo", "alive"]).ok(), "alive\n");
    site.kill_engine();
    site.start_engine();
    assert_eq!(site.docker(&["exec", "box", "echo", "alive"]).ok(), "alive\n");
}

#[test]
fn a_network_that_goes_while_a_container_waits_to_come_into_it_is_not_entered() {
    let site = Site::new();
    site.docker(&["network", "create", "net"]).ok();
    let before = now();
    deaf(&site, &[]);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| ask(&site, "POST", "/containers/box/stop?t=-1", None));
        wait_for_term(&site, &before);
        // It waits for the stop.
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        let body = r#"{"Container":"box"}"#;
        let length = body.len();
        let call = format!(
            "POST /networks/net/connect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(call.as_bytes()).unwrap();
        // Nothing tells whether it has begun; it is refused in any case.
        site.docker(&["version"]).ok();
        site.docker(&["network", "rm", "net"]).ok();
        site.docker(&["kill", "box"]).ok();
        assert_eq!(stop.join().unwrap().status, 204);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    });
    site.docker(&["start", "box"]).ok();
}
