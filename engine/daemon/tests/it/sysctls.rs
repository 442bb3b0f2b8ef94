//! Kernel parameters of containers.

use serde_json::json;

use crate::support::{Site, ask};

#[test]
fn parameters_outside_the_containers_namespaces_are_refused_by_name() {
    let site = Site::new();
    let create = |host: serde_json::Value| {
        ask(
            &site,
            "POST",
            "/containers/create",
            Some(&json!({"Image": "busybox", "HostConfig": host})),
        )
    };
    for name in ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.hostname", "net/../x"] {
        let answer = create(json!({ "Sysctls": { name: "1" } }));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        assert!(answer.text.contains(name), "{name}: {}", answer.text);
    }
    for (host, name) in [
        (json!({ "NetworkMode": "host", "Sysctls": { "net.ipv4.ip_forward": "1" } }), "net.ipv4"),
        (json!({ "IpcMode": "host", "Sysctls": { "kernel.shmmni": "9" } }), "kernel.shmmni"),
        (json!({ "IpcMode": "host", "Sysctls": { "fs.mqueue.msg_max": "9" } }), "fs.mqueue"),
    ] {
        let answer = create(host);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        assert!(answer.text.contains(name) && answer.text.contains("host's"), "{}", answer.text);
    }
    let set = ["--sysctl", "kernel.shmmni=1234", "--sysctl", "fs.mqueue.msg_max=7"];
    let read = "cat /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max";
    let words = [&["run", "--rm"], &set[..], &["busybox", "sh", "-c", read]].concat();
    assert_eq!(site.docker(&words).ok(), "1234\n7\n");
}

#[test]
fn anybody_in_a_network_of_ones_own_may_ping_and_listen_at_any_port() {
    let site = Site::new();
    let listen = "nc -l -p 80 & echo at $(sleep 0.2; busybox netstat -ltn | grep -c ':80 ')";
    let as_app = |options: &[&str], script: &str| {
        let user = ["run", "--rm", "-u", "app", "--cap-drop", "ALL"];
        site.docker(&[&user[..], options, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(as_app(&[], listen).ok(), "at 1\n");
    let high = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"];
    let refused = as_app(&high, "nc -l -p 80");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    let range = "cat /proc/sys/net/ipv4/ping_group_range";
    assert_eq!(as_app(&[], range).ok(), "0\t2147483647\n");
}
