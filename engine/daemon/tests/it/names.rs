//! The name service in containers, and what is told of networks.

use std::net::{TcpListener, UdpSocket};

use crate::support::{Site, now, wait_until};

#[test]
fn a_container_may_have_port_53_for_itself_and_still_find_names() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "team"]).ok();
    cli(&["run", "-d", "--name", "other", "--network", "team", "busybox", "sleep", "1000"]).ok();
    cli(&["run", "-d", "--name", "server", "--network", "team", "busybox", "sleep", "1000"]).ok();
    // All of port 53, as a name server of the container's own takes it.
    let _own = site.inside("server", || {
        let udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        (TcpListener::bind("0.0.0.0:53").unwrap(), udp)
    });
    cli(&["exec", "server", "ping", "-c1", "-W3", "other"]).ok();
    let resolver = cli(&["exec", "server", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolver.contains("nameserver 127.0.0.11"), "{resolver}");
}

#[test]
fn names_resolve_in_a_container_that_came_into_the_network_later() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "team"]).ok();
    cli(&["run", "-d", "--name", "db", "--network", "team", "busybox", "sleep", "1000"]).ok();
    cli(&["run", "-d", "--name", "late", "busybox", "sleep", "1000"]).ok();
    let finds = || cli(&["exec", "late", "ping", "-c1", "-W2", "db"]).code == 0;
    cli(&["network", "connect", "team", "late"]).ok();
    assert!(finds());
    cli(&["network", "disconnect", "team", "late"]).ok();
    assert!(!finds());
}

#[test]
fn entering_and_leaving_networks_is_told_in_order() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "team"]).ok();
    cli(&["run", "--rm", "--network", "team", "busybox", "true"]).ok();
    let broken = cli(&["run", "--rm", "--network", "team", "busybox", "no-such-program"]);
    assert_eq!(broken.code, 127);
    cli(&["network", "rm", "team"]).ok();
    let told = wait_until("the last event", || {
        let form = "{{.Type}} {{.Action}}";
        let all = cli(&["events", "--since", "10m", "--until", &now(), "--format", form]).ok();
        all.contains("network destroy").then_some(all)
    });
    let wanted = |line: &&str| {
        line.starts_with("network") || matches!(*line, "container start" | "container die")
    };
    let told: Vec<&str> = told.lines().filter(wanted).collect();
    assert_eq!(
        told,
        [
            // The default network is there before anybody can listen.
            "network create",
            "network connect",
            "container start",
            "container die",
            "network disconnect",
            "network connect",
            "network disconnect",
            "network destroy",
        ]
    );
}
