//! Which servers a container's name service asks for what it does not know.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use minke_engine_network::{NetworkOptions, Networks};

use super::support::Container;
use super::{answer_all, inside, isolated, join, named, open};

/// Lines of a container's sources file other than of names.
fn servers_of(networks: &Networks, container: &Container) -> Vec<String> {
    let path = networks.namespace(&container.config.id).unwrap().dns;
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with("names ")).map(str::to_owned).collect()
}

#[test]
fn a_container_that_started_before_the_host_had_a_resolver_finds_names_later() {
    isolated(
        "servers::a_container_that_started_before_the_host_had_a_resolver_finds_names_later",
        async || {
            let dir = tempfile::tempdir().unwrap();
            answer_all(UdpSocket::bind("127.0.0.1:53").unwrap());
            let networks = open(dir.path());
            networks.create(named("net")).await.unwrap();
            let (one, _) = join(&networks, "net", "one", "exec sleep 1000", vec![], &[]).await;
            assert_eq!(servers_of(&networks, &one)[0], "resolv /etc/resolv.conf");
            // As on a host whose file is empty, without touching that of this one.
            let resolv = dir.path().join("resolv.conf");
            fs::write(&resolv, "").unwrap();
            let sources = networks.namespace(&one.config.id).unwrap().dns;
            fs::write(sources, format!("resolv {}\n", resolv.display())).unwrap();
            let look = || inside(&one, "nslookup example.org 127.0.0.11");
            let (out, code) = look();
            assert!(code != 0 && out.contains("SERVFAIL"), "{out}");
            fs::write(&resolv, "search lan\nnameserver 127.0.0.1\n").unwrap();
            let (out, code) = look();
            assert!(code == 0 && out.contains("198.51.100.7"), "{out}");
            drop(one);
            networks.destroy_all().await.unwrap();
        },
    );
}

#[test]
fn servers_outside_are_held_from_containers_of_internal_networks() {
    isolated(
        "servers::servers_outside_are_held_from_containers_of_internal_networks",
        async || {
            let dir = tempfile::tempdir().unwrap();
            let networks = open(dir.path());
            networks.create(NetworkOptions { internal: true, ..named("inner") }).await.unwrap();
            let server: SocketAddr = "127.0.0.1:53".parse().unwrap();
            let (plain, _) =
                join(&networks, "inner", "plain", "exec sleep 1000", vec![], &[]).await;
            let (own, _) =
                join(&networks, "inner", "own", "exec sleep 1000", vec![], &[server]).await;
            let held = servers_of(&networks, &plain);
            assert!(held.iter().all(|line| line.starts_with("held-")), "{held:?}");
            assert_eq!(servers_of(&networks, &own), ["held-upstream 127.0.0.1:53"]);
            // What an earlier version wrote is put right.
            let sources = networks.namespace(&own.config.id).unwrap().dns;
            fs::write(sources, "upstream 127.0.0.1:53\n").unwrap();
            networks.restore(|_| true).await.unwrap();
            assert_eq!(servers_of(&networks, &own), ["held-upstream 127.0.0.1:53"]);
            drop((plain, own));
            networks.destroy_all().await.unwrap();
        },
    );
}
