//! What is published without a port of the host being named, and many ports at once.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::{Site, wait_until};

#[test]
fn every_exposed_port_is_published_on_a_free_one() {
    let site = Site::new();
    let serve =
        "for port in 80 81; do while :; do echo from $port | nc -l -p $port; done & done; wait";
    let words = ["run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "81"];
    site.docker(&[&words[..], &["busybox", "sh", "-c", serve]].concat()).ok();
    let on_host = |port: &str| -> u16 {
        let shown = site.docker(&["port", "web", port]).ok();
        shown.trim().strip_prefix("0.0.0.0:").unwrap().parse().unwrap()
    };
    let ports = [on_host("80"), on_host("81")];
    assert_ne!(ports[0], ports[1]);
    for (port, says) in ports.into_iter().zip(["from 80", "from 81"]) {
        let said = wait_until(says, || site.say_of_port("127.0.0.1", port));
        assert_eq!(said, says);
    }
    let words = ["run", "-d", "--name", "closed", "--expose", "80", "busybox", "sleep", "1000"];
    site.docker(&words).ok();
    assert_eq!(site.docker(&["port", "closed"]).ok(), "", "exposed alone is not published");
}

/// The processes in the network namespace of this thread, in which the engine is, too.
fn processes() -> usize {
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_here = |path: &std::path::Path| {
        std::fs::read_link(path.join("ns/net")).is_ok_and(|namespace| namespace == own)
    };
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    entries
        .filter(|entry| is_process(&entry.file_name().to_string_lossy()))
        .filter(|entry| is_here(&entry.path()))
        .count()
}

#[test]
fn a_hundred_ports_are_published_as_one_range_and_take_no_process() {
    let site = Site::new();
    let before = processes();
    let run = ["run", "-d", "--name"];
    site.docker(&[&run[..], &["plain", "busybox", "sleep", "1000"]].concat()).ok();
    wait_until("one process for a container", || (processes() == before + 1).then_some(()));
    let ports = ["many", "-p", "18000-18099:5000-5099/udp", "busybox", "sleep", "1000"];
    site.docker(&[&run[..], &ports].concat()).ok();
    wait_until("no more for its ports", || (processes() == before + 2).then_some(()));
    for (outer, inner) in [(18000, 5000), (18099, 5099)] {
        let server = site.inside("many", || UdpSocket::bind(("0.0.0.0", inner)).unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        }
        client.connect(("127.0.0.1", outer)).unwrap();
        client.send(b"there").unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"there", "{outer}");
        server.send_to(b"back", from).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"back", "{outer}");
    }
    let outside = UdpSocket::bind("0.0.0.0:18100");
    assert!(outside.is_ok(), "the range ends before: {outside:?}");
}
