//! Requests that nobody means well with: each gets an answer with its limit, and the daemon goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Site, ask};

/// Sends bytes, ends the input, and reads to the end.
fn send(site: &Site, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The daemon may have answered and closed before it was told everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn too_much_is_an_error_that_says_the_limit() {
    let site = Site::empty(&[]);
    let flood = "X-Flood: 0123456789abcdef0123456789abcdef\r\n".repeat(2500);
    let flooded = send(&site, format!("GET /info HTTP/1.1\r\n{flood}\r\n").as_bytes());
    assert!(flooded.starts_with("HTTP/1.1 431") && flooded.contains("65536"), "{flooded}");
    let many = "X-Many: 1\r\n".repeat(200);
    let many = send(&site, format!("GET /info HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!(many.starts_with("HTTP/1.1 431") && many.contains("100"), "{many}");
    let huge = vec![b' '; 9 << 20];
    let large = send(&site, &post("/containers/create", &huge));
    assert!(large.starts_with("HTTP/1.1 400") && large.contains("8388608"), "{large}");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let nested = send(&site, &post("/containers/create", &deep));
    assert!(nested.starts_with("HTTP/1.1 400"), "{nested}");
    let bad = send(&site, &post("/containers/create", b"{\"Image\":\"\xff\xfe\"}"));
    assert!(bad.starts_with("HTTP/1.1 400") && bad.contains("invalid JSON"), "{bad}");
    let binary = send(&site, b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(binary.starts_with("HTTP/1.1 400"), "{binary}");
    assert!(send(&site, b"\x16\x03\x01 TLS, say\r\n\r\n").starts_with("HTTP/1.1 400"));
    let half = "POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    assert!(send(&site, half.as_bytes()).contains("reading the request's body"));
    let long = "POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";
    assert!(send(&site, long.as_bytes()).contains("65536"));
    // The second piece's length and the first's together are more than a number holds.
    let pieces = "POST /exec/x/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                  1\r\n{\r\nffffffffffffffff\r\n";
    let pieces = send(&site, pieces.as_bytes());
    assert!(pieces.starts_with("HTTP/1.1 400") && pieces.contains("65536"), "{pieces}");
    assert_eq!(ask(&site, "GET", "/_ping", None).text, "OK");
}

#[test]
fn half_closed_streams_end_nothing_but_themselves() {
    let site = Site::new();
    site.docker(&["run", "-di", "--name", "box", "busybox", "sleep", "1000"]).ok();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        let attach = "POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n\
                      Host: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(attach.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let state = ask(&site, "GET", "/containers/box/json", None).json();
    assert_eq!(state["State"]["Running"], true);
}

#[test]
fn a_crowd_of_clients_does_not_keep_a_container_from_ending() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let attach = "POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\n\
                  Host: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
    let mut crowd = Vec::new();
    let refused = loop {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(attach.as_bytes()).unwrap();
        let mut answer = [0u8; 1024];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        if !answer.starts_with("HTTP/1.1 101") {
            break answer;
        }
        crowd.push(stream);
    };
    assert!(refused.contains("240 clients"), "{} are attached: {refused}", crowd.len());
    let exec = site.docker(&["exec", "-d", "box", "true"]);
    assert!(exec.code != 0 && exec.stderr.contains("240 clients"), "{exec:?}");
    site.docker(&["stop", "-t", "0", "box"]).ok();
}

#[test]
fn a_container_can_be_killed_whose_shim_takes_nobody_any_more() {
    let site = Site::new();
    let id = site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let shim = site.data().join("containers").join(id.trim()).join("shim");
    // By its descriptor: the path is too long for a socket's address.
    let directory = std::fs::File::open(shim).unwrap();
    let socket = format!("/proc/self/fd/{}/shim.sock", directory.as_raw_fd());
    let crowd: Vec<_> = (0..256).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert_ne!(site.docker(&["exec", "box", "true"]).code, 0, "{} are connected", crowd.len());
    site.docker(&["rm", "-f", "box"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
}

#[test]
fn calls_of_modes_that_are_not_there_say_why() {
    let site = Site::empty(&[]);
    for (method, path, status, why) in [
        ("GET", "/swarm", 503, "no swarm mode"),
        ("POST", "/swarm/init", 503, "no swarm mode"),
        ("GET", "/nodes", 503, "no swarm mode"),
        ("POST", "/services/create", 503, "no swarm mode"),
        ("GET", "/tasks", 503, "no swarm mode"),
        ("POST", "/secrets/create", 503, "no swarm mode"),
        ("GET", "/configs", 503, "no swarm mode"),
        ("PUT", "/volumes/x", 503, "no swarm mode"),
        ("GET", "/plugins", 200, "[]"),
        ("POST", "/plugins/pull", 501, "no plugins"),
        ("GET", "/plugins/x/json", 404, "no plugins"),
        ("POST", "/grpc", 501, "BuildKit"),
        ("POST", "/session", 501, "BuildKit"),
        ("GET", "/nosuch", 404, "not a call"),
    ] {
        let answer = ask(&site, method, path, None);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.text.contains(why), "{path}: {}", answer.text);
    }
}

/// A JSON value made of a row of numbers; never deeper than a few levels.
fn value(next: &mut impl FnMut() -> u64, depth: u32) -> Value {
    const NAMES: [&str; 12] = [
        "Image",
        "Cmd",
        "Env",
        "HostConfig",
        "Memory",
        "Mounts",
        "PortBindings",
        "80/tcp",
        "Binds",
        "NetworkingConfig",
        "EndpointsConfig",
        "Healthcheck",
    ];
    match next() % if depth == 0 { 5 } else { 8 } {
        0 => Value::Null,
        1 => json!(next().is_multiple_of(2)),
        2 => json!(next() as i64),
        3 => json!("busybox"),
        4 => json!(char::from_u32((next() % 0xd7ff) as u32).unwrap_or('x').to_string()),
        5 => (0..next() % 4).map(|_| value(next, depth - 1)).collect(),
        _ => {
            let names = (0..next() % 5).map(|_| NAMES[(next() % 12) as usize].to_owned());
            let names: Vec<String> = names.collect();
            Value::Object(names.into_iter().map(|name| (name, value(next, depth - 1))).collect())
        }
    }
}

/// Whatever JSON comes, the answer is one of a request's own faults or a result, and calls go on.
/// `MINKE_SEEDS` says how many bodies.
#[test]
fn generated_bodies_are_answered() {
    let site = Site::new();
    let seeds = std::env::var("MINKE_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let paths = [
        "/containers/create",
        "/networks/create",
        "/volumes/create",
        "/networks/bridge/connect",
        "/commit?container=none",
        "/containers/none/exec",
        "/containers/none/update",
    ];
    for round in 0..seeds.unwrap_or(300usize) {
        let body = value(&mut next, 5);
        let path = paths[round % paths.len()];
        let answer = ask(&site, "POST", path, Some(&body));
        let fine = matches!(answer.status, 200 | 201 | 400 | 403 | 404 | 409);
        assert!(fine, "{path} {body}: {} {}", answer.status, answer.text);
        assert!(answer.status < 300 || answer.json()["message"].is_string(), "{}", answer.text);
    }
    assert_eq!(ask(&site, "GET", "/_ping", None).text, "OK");
}
