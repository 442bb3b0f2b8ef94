//! The name service in containers, and what is told of networks.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

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
    cli(&["exec", "server", "ping", "-c1", "-W10", "other"]).ok();
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
    let finds = || cli(&["exec", "late", "ping", "-c1", "-W10", "db"]).code == 0;
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

/// A name server at an address of the site; each question that it got is told.
fn name_server(site: &Site, address: &str) -> std::sync::mpsc::Receiver<String> {
    let local = format!("{address}/32");
    site.command_of("ip", &["addr", "add", &local, "dev", "lo"], b"").ok();
    let socket = UdpSocket::bind((address, 53)).unwrap();
    let (asked, questions) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let Some(question) = minke_engine_shim::dns::question(query) else { continue };
            let answer = question.answer(query, &[Ipv4Addr::new(198, 51, 100, 7).into()]);
            let _ = asked.send(question.name);
            let _ = socket.send_to(&answer, from);
        }
    });
    questions
}

#[test]
fn nothing_leaves_an_internal_network_in_the_names_that_its_containers_look_up() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let questions = name_server(&site, "10.99.0.53");
    cli(&["network", "create", "--internal", "inner"]).ok();
    cli(&["network", "create", "outer"]).ok();
    let run = ["run", "-d", "--network", "inner", "--dns", "10.99.0.53", "--name", "box"];
    cli(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let look = |name: &str| cli(&["exec", "box", "nslookup", name, "127.0.0.11"]);
    let is_held = |name: &str| {
        let said = look(name);
        assert!(said.stdout.contains("SERVFAIL") || said.stderr.contains("SERVFAIL"), "{said:?}");
        assert_eq!(questions.try_iter().find(|asked| asked == name), None);
    };
    is_held("secret.example.org");
    assert!(look("box").stdout.contains("Address"), "its own names are answered");
    cli(&["network", "connect", "outer", "box"]).ok();
    assert!(look("open.example.org").ok().contains("198.51.100.7"));
    assert!(questions.try_iter().any(|asked| asked == "open.example.org"));
    cli(&["network", "disconnect", "outer", "box"]).ok();
    is_held("again.example.org");
}
