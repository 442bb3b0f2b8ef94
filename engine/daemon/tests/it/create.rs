//! What a create request asks for, where a single probe does not show it.

use serde_json::json;

use crate::support::{Site, ask};

fn create(site: &Site, name: &str, body: serde_json::Value) {
    let answer = ask(site, "POST", &format!("/containers/create?name={name}"), Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text);
    let answer = ask(site, "POST", &format!("/containers/{name}/start"), None);
    assert_eq!(answer.status, 204, "{}", answer.text);
}

#[test]
fn a_stop_sends_the_containers_own_signal_and_waits_its_own_time() {
    let site = Site::new();
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1" });
    create(&site, "asked", body);
    crate::support::wait_until("the trap", || {
        site.docker(&["logs", "asked"]).stdout.contains("ready").then_some(())
    });
    site.docker(&["stop", "asked"]).ok();
    let code = site.docker(&["inspect", "-f", "{{.State.ExitCode}}", "asked"]).ok();
    assert_eq!(code.trim(), "5");
    // It ignores the signal: only the end of its own short time ends it.
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "StopTimeout": 0 });
    create(&site, "deaf", body);
    let begin = std::time::Instant::now();
    site.docker(&["stop", "deaf"]).ok();
    assert!(begin.elapsed().as_secs() < 10, "ten seconds are the default");
    let code = site.docker(&["inspect", "-f", "{{.State.ExitCode}}", "deaf"]).ok();
    assert_eq!(code.trim(), "137");
}

#[test]
fn mounts_in_their_long_form_have_all_their_options() {
    let site = Site::new();
    let made = site.dir.path().join("made");
    let mounts = json!([
        { "Type": "bind", "Source": made, "Target": "/made",
          "BindOptions": { "CreateMountpoint": true, "Propagation": "rslave" } },
        { "Type": "volume", "Source": "vol", "Target": "/var/data",
          "VolumeOptions": { "NoCopy": true, "Labels": { "team": "a" } } },
        { "Type": "tmpfs", "Target": "/mem",
          "TmpfsOptions": { "SizeBytes": 1048576, "Mode": 448, "Options": [["exec"]] } },
    ]);
    let script = "ls /var/data; stat -c %a /mem; grep -c ' /mem .*size=1024k' /proc/mounts; \
                  grep ' /mem ' /proc/mounts | grep -c noexec";
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": { "Mounts": mounts },
    });
    let missing = json!({ "Image": "busybox", "HostConfig": {
        "Mounts": [{ "Type": "bind", "Source": made, "Target": "/made" }] } });
    let refused = ask(&site, "POST", "/containers/create", Some(&missing));
    assert!(refused.status == 400 && refused.text.contains("does not exist"), "{}", refused.text);
    create(&site, "long", body);
    site.docker(&["wait", "long"]).ok();
    assert_eq!(site.docker(&["logs", "long"]).ok(), "700\n1\n0\n");
    assert!(made.is_dir());
    let shown = ask(&site, "GET", "/containers/long/json", None).json();
    let mounts = shown["Mounts"].as_array().unwrap();
    let bind = mounts.iter().find(|mount| mount["Destination"] == "/made").unwrap();
    assert_eq!(bind["Propagation"], "rslave");
    let labels = site.docker(&["volume", "inspect", "-f", "{{.Labels.team}}", "vol"]).ok();
    assert_eq!(labels.trim(), "a");
}

#[test]
fn addresses_names_and_links_of_an_endpoint_are_those_asked_for() {
    let site = Site::new();
    site.docker(&["network", "create", "--subnet", "172.31.77.0/24", "net"]).ok();
    let endpoint = json!({
        "IPAMConfig": { "IPv4Address": "172.31.77.9" },
        "Links": ["later:data"],
        "MacAddress": "02:42:ac:1f:4d:09",
    });
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": { "NetworkMode": "net" },
        "NetworkingConfig": { "EndpointsConfig": { "net": endpoint } },
    });
    create(&site, "one", body);
    let exec = |words: &[&str]| site.docker(&[&["exec", "one"], words].concat());
    let found = exec(&["ip", "-4", "-o", "addr", "show", "dev", "eth0"]).ok();
    assert!(found.contains("172.31.77.9/24"), "{found}");
    assert_ne!(exec(&["ping", "-c1", "-W1", "data"]).code, 0, "nobody has the name yet");
    site.docker(&["run", "-d", "--name", "later", "--network", "net", "busybox", "sleep", "1000"])
        .ok();
    exec(&["ping", "-c1", "-W5", "data"]).ok();
    let theirs = site.docker(&["exec", "later", "ping", "-c1", "-W1", "data"]);
    assert_ne!(theirs.code, 0, "the link is of the one alone: {theirs:?}");
    let wrong = json!({ "Container": "later", "EndpointConfig": {
        "IPAMConfig": { "IPv4Address": "nowhere" } } });
    let refused = ask(&site, "POST", "/networks/bridge/connect", Some(&wrong));
    assert_eq!(refused.status, 400, "{}", refused.text);
}

#[test]
fn a_container_is_in_the_networks_it_names_and_in_no_other() {
    let site = Site::new();
    site.docker(&["network", "create", "--internal", "inside"]).ok();
    site.docker(&["network", "create", "other"]).ok();
    let form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let all: &[&str] = &["inside", "other"];
    for (name, mode, named, way_out) in [
        ("nothing", "", &all[..1], false),
        ("default", "default", &all[..1], false),
        ("bridge", "bridge", &all[..1], false),
        ("another", "other", &all[..1], false),
        ("two", "", all, true),
    ] {
        let endpoints: serde_json::Map<_, _> =
            named.iter().map(|network| ((*network).to_owned(), json!({}))).collect();
        let body = json!({
            "Image": "busybox", "Cmd": ["sleep", "1000"],
            "HostConfig": { "NetworkMode": mode },
            "NetworkingConfig": { "EndpointsConfig": endpoints },
        });
        create(&site, name, body);
        let shown = site.docker(&["inspect", "-f", form, name]).ok();
        assert_eq!(shown.trim(), named.join(" "), "{name}");
        let routes = site.docker(&["exec", name, "ip", "route"]).ok();
        assert_eq!(routes.contains("default"), way_out, "{name}: {routes}");
    }
}

#[test]
fn an_empty_entrypoint_leaves_the_images_command() {
    let site = Site::new();
    site.docker(&["create", "--name", "base", "busybox"]).ok();
    let changes = ["--change", r#"ENTRYPOINT ["false"]"#, "--change", r#"CMD ["echo", "served"]"#];
    site.docker(&[&["commit"], &changes[..], &["base", "own"]].concat()).ok();
    create(&site, "bare", json!({ "Image": "own", "Entrypoint": [] }));
    assert_eq!(site.docker(&["wait", "bare"]).ok(), "0\n");
    assert_eq!(site.docker(&["logs", "bare"]).ok(), "served\n");
}

#[test]
fn what_an_endpoint_answers_is_not_taken_from_a_request() {
    let site = Site::new();
    site.docker(&["network", "create", "net"]).ok();
    let endpoint = json!({
        "NetworkID": "given", "EndpointID": "given", "Gateway": "10.0.0.1",
        "IPAddress": "10.0.0.2", "IPPrefixLen": 7, "IPv6Gateway": "fe80::1",
        "GlobalIPv6Address": "2001:db8::7", "GlobalIPv6PrefixLen": 64, "DNSNames": ["given"],
    });
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": { "NetworkMode": "net" },
        "NetworkingConfig": { "EndpointsConfig": { "net": endpoint } },
    });
    create(&site, "one", body);
    let shown = ask(&site, "GET", "/containers/one/json", None).json();
    let net = &shown["NetworkSettings"]["Networks"]["net"];
    for (name, given) in endpoint.as_object().unwrap() {
        assert_ne!(&net[name], given, "{name}");
    }
    for name in ["NetworkID", "EndpointID", "Gateway", "IPAddress", "DNSNames"] {
        assert!(!net[name].is_null() && net[name] != "", "{name} is answered: {net}");
    }
}

#[test]
fn what_could_not_be_started_is_not_made() {
    let site = Site::new();
    let refuse = |path: &str, body: serde_json::Value, why: &str| {
        let answer = ask(&site, "POST", path, Some(&body));
        assert!(answer.status == 400 && answer.text.contains(why), "{body}: {}", answer.text);
    };
    let shared = json!({ "Type": "bind", "Source": "/", "Target": "/b",
        "BindOptions": { "Propagation": "everywhere" } });
    let memory = json!({ "Type": "tmpfs", "Target": "/t",
        "TmpfsOptions": { "Options": [["colour", "red"]] } });
    for (host, why) in [
        (json!({ "Links": ["nosuch:x"] }), "could not get container for nosuch"),
        (json!({ "ExtraHosts": ["bar:notanip"] }), "invalid IP address in add-host"),
        (json!({ "Dns": ["not-an-ip"] }), "bad nameserver address"),
        (json!({ "DnsOptions": ["a\nnameserver 10.0.0.1"] }), "DnsOptions"),
        (json!({ "CapAdd": ["FLY"] }), "unknown capability"),
        (json!({ "Ulimits": [{ "Name": "luck", "Soft": 1, "Hard": 1 }] }), "unknown ulimit"),
        (json!({ "Mounts": [shared] }), "invalid propagation mode: everywhere"),
        (json!({ "Mounts": [memory] }), "invalid tmpfs option"),
        (json!({ "Tmpfs": { "/t": "size=lots" } }), "invalid tmpfs option"),
        (json!({ "CpusetCpus": "8000" }), "Requested CPUs are not available"),
        (json!({ "CpusetMems": "8000" }), "Requested memory nodes are not available"),
    ] {
        let body = json!({ "Image": "busybox", "HostConfig": host });
        refuse("/containers/create", body, why);
    }
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    refuse("/containers/box/update", json!({ "CpusetCpus": "8000" }), "CPUs are not available");
    assert_eq!(site.docker(&["ps", "-aq"]).ok().lines().count(), 1);
}
