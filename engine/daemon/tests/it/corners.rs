//! What clients of other languages look at: filters, statuses, and what older versions of the API say.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::{Site, ask, ask_with, docker28, wait_until};

fn get(site: &Site, path: &str) -> Value {
    let answer = ask(site, "GET", path, None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

/// Filters as a request's target has them.
pub fn query(filters: &Value) -> String {
    let text = filters.to_string();
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Names of the containers that filters show.
fn shown(site: &Site, filters: Value) -> Vec<String> {
    let rows = get(site, &format!("/containers/json?all=1&filters={}", query(&filters)));
    let name = |row: &Value| row["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned();
    let mut names: Vec<String> = rows.as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn every_filter_of_a_list_of_containers_shows_what_it_says() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words).ok();
    cli(&["network", "create", "net"]);
    let ended = ["run", "--name", "web_1", "-l", "team=a", "busybox", "sh", "-c", "exit 3"];
    assert_eq!(site.docker(&ended).code, 3);
    let web2 =
        ["run", "-d", "--name", "web_2", "-l", "team=b", "--network", "net", "-v", "data:/d"];
    cli(&[&web2[..], &["-p", "18081:80", "--expose", "90", "busybox", "sleep", "1000"]].concat());
    cli(&["commit", "web_1", "child"]);
    cli(&["create", "--name", "other", "--health-cmd", "true", "child", "true"]);
    let network = cli(&["network", "inspect", "-f", "{{.Id}}", "net"]);
    let id = cli(&["inspect", "-f", "{{.Id}}", "web_2"]);
    for (filters, expected) in [
        (json!({"name": ["web"]}), &["web_1", "web_2"][..]),
        (json!({"name": ["^/web_[2-9]$", "oth"]}), &["other", "web_2"]),
        (json!({"id": [&id[..8]]}), &["web_2"]),
        (json!({"label": ["team"]}), &["other", "web_1", "web_2"]),
        (json!({"label": {"team=a": true}}), &["other", "web_1"]),
        (json!({"label": ["team", "team=b"]}), &["web_2"]),
        (json!({"status": ["created", "exited"]}), &["other", "web_1"]),
        (json!({"exited": ["3"]}), &["web_1"]),
        (json!({"exited": ["0"]}), &[]),
        (json!({"health": ["none"]}), &["other", "web_1", "web_2"]),
        (json!({"ancestor": ["busybox"]}), &["other", "web_1", "web_2"]),
        (json!({"ancestor": ["child"]}), &["other"]),
        (json!({"ancestor": ["nosuch"]}), &[]),
        (json!({"network": ["net"]}), &["web_2"]),
        (json!({"network": [&network[..10]]}), &["web_2"]),
        (json!({"volume": ["data"]}), &["web_2"]),
        (json!({"volume": ["/d"]}), &["web_2"]),
        (json!({"publish": ["18080-18090"]}), &["web_2"]),
        (json!({"publish": ["18081/udp"]}), &[]),
        (json!({"expose": ["90"]}), &["web_2"]),
        (json!({"expose": ["80/tcp"]}), &["web_2"]),
        (json!({"before": ["other"]}), &["web_1", "web_2"]),
        (json!({"since": ["web_1"]}), &["other", "web_2"]),
        (json!({"is-task": ["false"]}), &["other", "web_1", "web_2"]),
        (json!({"is-task": ["true"]}), &[]),
    ] {
        assert_eq!(shown(&site, filters.clone()), expected, "{filters}");
    }
    for (bad, status) in [
        (json!({"status": ["well"]}), 400),
        (json!({"health": ["ill"]}), 400),
        (json!({"exited": ["x"]}), 400),
        (json!({"is-task": ["maybe"]}), 400),
        (json!({"publish": ["x"]}), 400),
        (json!({"colour": ["red"]}), 400),
        (json!({"before": ["nosuch"]}), 404),
    ] {
        let refused = ask(&site, "GET", &format!("/containers/json?filters={}", query(&bad)), None);
        assert_eq!(refused.status, status, "{bad}: {}", refused.text);
        assert!(refused.json()["message"].is_string(), "{}", refused.text);
    }
    let limited = get(&site, "/containers/json?limit=2&size=1");
    assert_eq!(limited.as_array().unwrap().len(), 2);
    assert!(limited[0]["SizeRootFs"].as_i64().unwrap() > 0, "{limited}");
}

#[test]
fn lists_and_prunes_of_everything_else_keep_to_their_filters() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words).ok();
    let names = |path: &str, filters: Value, at: &str, field: &str| {
        let answer = get(&site, &format!("{path}?filters={}", query(&filters)));
        let rows = if at.is_empty() { &answer } else { &answer[at] };
        let field = |row: &Value| row[field].as_str().unwrap().to_owned();
        let mut names: Vec<String> = rows.as_array().unwrap().iter().map(field).collect();
        names.sort();
        names
    };
    cli(&["volume", "create", "--label", "keep", "one"]);
    cli(&["volume", "create", "two"]);
    cli(&["create", "-v", "one:/x", "busybox"]);
    let volumes = |filters: Value| names("/volumes", filters, "Volumes", "Name");
    assert_eq!(volumes(json!({"dangling": ["true"]})), ["two"]);
    assert_eq!(volumes(json!({"name": ["^o"], "driver": ["local"]})), ["one"]);
    assert_eq!(volumes(json!({"label": ["keep"]})), ["one"]);
    let networks = |filters: Value| names("/networks", filters, "", "Name");
    cli(&["network", "create", "--label", "a=1", "test 01"]);
    assert_eq!(networks(json!({"type": ["builtin"]})), ["bridge", "host", "none"]);
    assert_eq!(networks(json!({"dangling": ["1"]})), ["test 01"]);
    assert_eq!(networks(json!({"name": ["^test"], "label": ["a=1"]})), ["test 01"]);
    for (path, bad) in [
        ("/networks", json!({"type": ["new"]})),
        ("/networks", json!({"dangling": ["x"]})),
        ("/volumes", json!({"dangling": ["0", "1"]})),
        ("/images/json", json!({"dangling": ["x"]})),
        ("/images/json", json!({"reference": ["["]})),
        ("/events", json!({"colour": ["x"]})),
    ] {
        let refused = ask(&site, "GET", &format!("{path}?filters={}", query(&bad)), None);
        assert_eq!(refused.status, 400, "{path} {bad}: {}", refused.text);
    }
    let prune = |kind: &str, filters: Value| {
        ask(&site, "POST", &format!("/{kind}/prune?filters={}", query(&filters)), None)
    };
    for kind in ["containers", "networks", "images"] {
        assert_eq!(prune(kind, json!({"until": ["1", "2"]})).status, 400, "{kind}");
        assert_eq!(prune(kind, json!({"until": ["x"]})).status, 400, "{kind}");
    }
    let nothing = prune("containers", json!({"until": ["1h"]}));
    assert_eq!(nothing.json()["ContainersDeleted"], json!([]), "{}", nothing.text);
    let networks = prune("networks", json!({"label!": ["a=1"]}));
    assert_eq!(networks.json()["NetworksDeleted"], json!([]), "{}", networks.text);
    assert_eq!(
        prune("containers", json!({})).json()["ContainersDeleted"].as_array().unwrap().len(),
        1
    );
    // Before 1.42 volumes with names went too.
    assert_eq!(prune("volumes", json!({})).json()["VolumesDeleted"], json!([]));
    let path = format!("/v1.41/volumes/prune?filters={}", query(&json!({"label!": ["keep"]})));
    assert_eq!(ask(&site, "POST", &path, None).json()["VolumesDeleted"], json!(["two"]));
}

#[test]
fn older_versions_get_what_they_know() {
    let site = Site::new();
    site.docker(&["tag", "busybox", "team/app:v1"]).ok();
    let row = |path: &str| get(&site, path)[0].clone();
    let new = row("/v1.47/images/json");
    let old = row("/v1.41/images/json");
    assert!(new.get("VirtualSize").is_none() && old["VirtualSize"] == old["Size"], "{new} {old}");
    assert_eq!(row("/v1.24/images/json?filter=team/*")["RepoTags"], json!(["team/app:v1"]));
    let filters = query(&json!({"reference": ["busybox"]}));
    let named = row(&format!("/v1.47/images/json?filters={filters}"));
    assert_eq!(named["RepoTags"], json!(["busybox:latest"]), "other names were not asked for");
    site.docker(&["network", "create", "net"]).ok();
    site.docker(&["create", "--name", "cc", "--network", "net", "busybox", "echo", "said"]).ok();
    let id = get(&site, "/containers/cc/json")["Id"].as_str().unwrap().to_owned();
    let aliases = |version: &str| {
        get(&site, &format!("/{version}/containers/cc/json"))["NetworkSettings"]["Networks"]["net"]
            ["Aliases"]
            .clone()
    };
    assert_eq!(aliases("v1.44"), json!([&id[..12]]));
    assert_eq!(aliases("v1.47"), Value::Null);
    let kind = |version: &str| {
        let logs = format!("/{version}/containers/cc/logs?stdout=1");
        let request = format!("GET {logs} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find(|line| line.to_lowercase().starts_with("content-type"));
        line.unwrap().split('.').next_back().unwrap().to_owned()
    };
    assert_eq!([kind("v1.41"), kind("v1.42")], ["raw-stream", "multiplexed-stream"]);
}

#[test]
fn statuses_and_messages_are_the_apis() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    site.docker(&["run", "--name", "down", "-v", "data:/data", "busybox", "true"]).ok();
    site.docker(&["create", "--name", "new", "-t", "busybox"]).ok();
    site.docker(&["network", "create", "net"]).ok();
    site.docker(&["network", "connect", "net", "up"]).ok();
    let end = json!({"Container": "down"});
    for (method, path, body, status) in [
        ("POST", "/containers/up/start", None, 304),
        ("POST", "/containers/down/stop", None, 304),
        ("POST", "/containers/down/kill", None, 409),
        ("POST", "/containers/up/kill?signal=NOSUCH", None, 400),
        ("POST", "/containers/down/pause", None, 409),
        ("POST", "/containers/up/unpause", None, 409),
        ("POST", "/containers/down/resize?h=1&w=1", None, 409),
        ("POST", "/containers/new/resize?h=1&w=1", None, 200),
        ("POST", "/containers/up/resize?h=1", None, 400),
        ("POST", "/containers/up/rename?name=down", None, 409),
        ("POST", "/containers/up/wait?condition=never", None, 400),
        ("GET", "/containers/down/top", None, 409),
        ("GET", "/containers/up/logs", None, 400),
        ("GET", "/containers/up/archive", None, 400),
        ("GET", "/containers/up/archive?path=/nosuch", None, 404),
        ("PUT", "/containers/up/archive?path=/nosuch", None, 404),
        ("DELETE", "/containers/up", None, 409),
        ("DELETE", "/volumes/data", None, 409),
        ("DELETE", "/volumes/nosuch?force=1", None, 204),
        ("DELETE", "/volumes/nosuch", None, 404),
        ("DELETE", "/networks/net", None, 403),
        ("DELETE", "/networks/bridge", None, 403),
        ("POST", "/networks/net/disconnect", Some(&end), 403),
        ("DELETE", "/images/nosuch", None, 404),
        ("GET", "/images/nosuch/json", None, 404),
        ("POST", "/images/nosuch/tag?repo=x", None, 404),
        ("POST", "/images/busybox/tag?repo=UPPER", None, 400),
        ("GET", "/images/get?names=nosuch", None, 404),
        ("GET", "/exec/nosuch/json", None, 404),
        ("GET", "/events?since=2&until=1", None, 400),
        ("GET", "/system/df?type=nosuch", None, 400),
        ("GET", "/swarm", None, 503),
        ("GET", "/nodes", None, 503),
        ("POST", "/secrets/create", None, 503),
        ("POST", "/session", None, 501),
        ("POST", "/grpc", None, 501),
        ("POST", "/plugins/x/enable", None, 501),
        ("GET", "/nosuch", None, 404),
    ] {
        let answer = ask(&site, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        if status >= 400 {
            assert!(answer.json()["message"].is_string(), "{method} {path}: {}", answer.text);
        }
    }
    let loaded = ask_with(&site, "POST", "/images/load", &[], b"no archive");
    assert_eq!(loaded.status, 200);
    assert!(loaded.text.contains("\"errorDetail\""), "{}", loaded.text);
    // The past alone: what was kept of it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let past = ask(&site, "GET", &format!("/events?until={}", now.as_secs_f64()), None);
    assert!(past.text.contains("\"Action\":\"connect\""), "{}", past.text);
    let stats = get(&site, "/containers/up/stats?stream=0&one-shot=1");
    assert_eq!(stats["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    let stats = get(&site, "/containers/up/stats?stream=0");
    assert!(stats["precpu_stats"]["system_cpu_usage"].as_u64().unwrap() > 0, "{stats}");
}

/// Starts an exec with a raw connection; what follows the answer's head.
fn start_exec(site: &Site, id: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    let head =
        "Host: x\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    let length = body.len();
    let request =
        format!("POST /exec/{id}/start HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0u8; 1]);
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    stream
}

fn create_exec(site: &Site, body: &Value) -> String {
    let made = ask(site, "POST", "/containers/cc/exec", Some(body));
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["Id"].as_str().unwrap().to_owned()
}

#[test]
fn whoever_starts_an_exec_says_whether_its_output_has_frames() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let body = json!({"AttachStdout": true, "Tty": true, "Cmd": ["printf", "out"]});
    let mut answers = Vec::new();
    for start in ["{\"Tty\":false}", "{\"Tty\":true}"] {
        let mut stream = start_exec(&site, &create_exec(&site, &body), start);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answers.push(answer);
    }
    assert_eq!(answers, [b"\x01\0\0\0\0\0\0\x03out".to_vec(), b"out".to_vec()]);
}

#[test]
fn detaching_from_an_exec_ends_the_connection_and_not_the_command() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let mut events = site.spawn(
        &docker28(),
        &["events", "--filter", "event=exec_detach", "--format", "{{.Action}}"],
    );
    wait_until("the listener", || {
        (get(&site, "/info")["NEventsListener"].as_i64().unwrap() > 0).then_some(())
    });
    let line = "cat > /tmp/typed; sleep 1000";
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": ["sh", "-c", line],
        "detachKeys": "ctrl-a"});
    let id = create_exec(&site, &body);
    let mut stream = start_exec(&site, &id, "{\"Tty\":true}");
    stream.write_all(b"typed\n\x01").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(get(&site, &format!("/exec/{id}/json"))["Running"], true);
    let mut said = [0u8; 11];
    events.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"exec_detach");
    events.kill().unwrap();
    events.wait().unwrap();
    site.docker(&["rm", "-f", "cc"]).ok();
}

#[test]
fn files_of_the_engine_can_be_copied_before_the_first_start() {
    let site = Site::new();
    site.docker(&["create", "--name", "cc", "--add-host", "a.test:10.0.0.1", "busybox", "true"])
        .ok();
    let get = || ask(&site, "GET", "/containers/cc/archive?path=/etc/hosts", None);
    let unstarted = get();
    assert_eq!(unstarted.status, 200, "{}", unstarted.text);
    assert!(unstarted.text.starts_with("hosts\0") && !unstarted.text.contains("a.test"));
    site.docker(&["start", "-a", "cc"]).ok();
    assert!(get().text.contains("10.0.0.1\ta.test"));
}

#[test]
fn an_archive_may_be_given_to_the_containers_user() {
    let site = Site::new();
    site.docker(&[
        "create", "--name", "cc", "-u", "app", "busybox", "stat", "-c", "%u %g", "/tmp/f",
    ])
    .ok();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_uid(77);
    header.set_gid(88);
    header.set_size(1);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", &b"x"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    for (parameter, owners) in [("", "77 88\n"), ("&copyUIDGID=1", "12 34\n")] {
        let path = format!("/containers/cc/archive?path=/tmp{parameter}");
        let put = ask_with(&site, "PUT", &path, &["Content-Type: application/x-tar"], &bytes);
        assert_eq!(put.status, 200, "{}", put.text);
        assert_eq!(site.docker(&["start", "-a", "cc"]).ok(), owners);
    }
}

#[test]
fn execs_that_are_made_wait_for_their_start_however_many_they_are() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let body = json!({"Cmd": ["true"]});
    let ids: Vec<String> = (0..100).map(|_| create_exec(&site, &body)).collect();
    for id in [&ids[0], &ids[99]] {
        let path = format!("/exec/{id}/start");
        let started = ask(&site, "POST", &path, Some(&json!({"Detach": true})));
        assert_eq!(started.status, 200, "{}", started.text);
    }
}
