//! Containers in networks: published ports, names, isolation, and what is left when all is gone.
//!
//! Every test runs in a network namespace of its own: the test program runs itself again inside one,
//! for that test only. A mount namespace of its own goes with it, so that a failed test leaves nothing.

#[path = "networks/servers.rs"]
mod servers;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use minke_engine_network::{
    AttachOptions, Endpoint, NAME_SERVICE_PORT, NetworkError, NetworkOptions, Networks, Port,
    Protocol,
};
use minke_engine_runtime::spec::{ExecSpec, NetNamespace};
use minke_engine_shim::config::DnsConfig;
use minke_engine_shim::protocol::{Request, Response, Streams};
use support::{Container, wait_until};

/// Run this test's body in a new network namespace with a working loopback.
fn isolated(name: &str, body: impl AsyncFnOnce()) {
    if std::env::var_os("MINKE_TEST_ISOLATED").is_none() {
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("MINKE_TEST_ISOLATED", "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed inside its namespace");
        return;
    }
    sh("ip link set lo up");
    // Something like a way out, so that there is an uplink.
    sh("ip link add up0 type veth peer name up1; ip link set up1 up");
    sh("ip addr add 192.0.2.10/24 dev up0");
    sh("ip link set up0 mtu 1400 up");
    sh("ip route add default via 192.0.2.1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body());
}

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that an engine may change, as text.
fn traces(dir: &Path) -> Vec<String> {
    let links = sh("ip -o link | awk -F': ' '{print $2}' | sort");
    let rules = sh("nft list ruleset");
    let forwarding =
        sh("grep -H . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/ip_forward");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).count();
    let netns = fs::read_dir(dir.join("run/netns")).map_or(0, Iterator::count);
    vec![links, rules, forwarding, format!("{mounts} mounts, {netns} namespaces")]
}

fn named(name: &str) -> NetworkOptions {
    NetworkOptions { name: name.into(), dns: true, ..NetworkOptions::default() }
}

fn publish(host_port: u16, container_port: u16) -> Port {
    Port {
        host_address: None,
        host_port,
        host_port_end: None,
        container_port,
        protocol: Protocol::Tcp,
    }
}

/// A container in a network, started.
async fn join(
    networks: &Networks,
    network: &str,
    name: &str,
    script: &str,
    ports: Vec<Port>,
    upstreams: &[SocketAddr],
) -> (Container, Endpoint) {
    let mut container = Container::new(script);
    let id = container.config.id.clone();
    let namespace = networks.make_namespace(&id, upstreams).await.unwrap();
    let endpoint = networks
        .attach(AttachOptions {
            network: network.into(),
            container: id,
            names: vec![name.into()],
            default_route: true,
            ports,
            ..AttachOptions::default()
        })
        .await
        .unwrap();
    container.spec.network = NetNamespace::Path(namespace.netns.clone());
    networks.redirect_names(&container.config.id).await.unwrap();
    let (netns, sources) = (namespace.netns, namespace.dns);
    container.config.dns = Some(DnsConfig { netns, sources, port: NAME_SERVICE_PORT });
    fs::write(container.spec.rootfs.join("etc/resolv.conf"), "nameserver 127.0.0.11\n").unwrap();
    container.run();
    (container, endpoint)
}

/// Output and exit code of a command in a container.
fn inside(container: &Container, command: &str) -> (String, u32) {
    let spec =
        ExecSpec { args: ["sh", "-c", command].map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let mut client = container.client();
    let request = Request::Exec {
        session: format!(
            "x{:x}",
            command.bytes().fold(5_u64, |h, b| h.wrapping_mul(31) + u64::from(b))
        ),
        process: container.process(&spec),
        tty: false,
        streams: Streams { stdin: false, stdout: true, stderr: true },
        size: None,
    };
    let session = match &request {
        Request::Exec { session, .. } => session.clone(),
        _ => unreachable!(),
    };
    let answer = client.ask(&request);
    assert!(matches!(answer, Response::Started { .. }), "{answer:?}");
    let (out, err, exit) = client.collect();
    client.ask(&Request::Forget { session });
    (out + &err, exit.code)
}

/// The body of an HTTP answer; retried until somebody listens.
fn fetch(address: impl Into<SocketAddr>) -> String {
    let address = address.into();
    let mut body = String::new();
    wait_until(&format!("an answer of {address}"), || {
        let Ok(mut stream) = TcpStream::connect(address) else { return false };
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        body.clear();
        stream.read_to_string(&mut body).is_ok() && !body.is_empty()
    });
    body
}

const SERVER: &str =
    "mkdir /www; echo hello-from-container > /www/index.html; exec httpd -f -p 80 -h /www";

fn open(dir: &Path) -> Networks {
    Networks::open(dir, &dir.join("run"), "test").unwrap()
}

#[test]
fn a_published_port_answers_everywhere_and_nothing_is_left() {
    isolated("a_published_port_answers_everywhere_and_nothing_is_left", async || {
        let dir = tempfile::tempdir().unwrap();
        let before = traces(dir.path());
        let networks = open(dir.path());
        networks.restore(|_| false).await.unwrap();
        let record = networks.create(named("net")).await.unwrap();
        assert_eq!(record.mtu, 1400, "the MTU of the way out is not exceeded");
        let port = vec![publish(8080, 80)];
        let (mut server, endpoint) = join(&networks, "net", "web", SERVER, port, &[]).await;
        let (mut other, _) = join(&networks, "net", "other", "exec sleep 1000", vec![], &[]).await;
        for address in [
            (Ipv4Addr::LOCALHOST, 8080),
            (Ipv4Addr::new(192, 0, 2, 10), 8080),
            (record.gateway, 8080),
            (endpoint.address, 80),
        ] {
            assert!(fetch(address).contains("hello-from-container"), "{address:?}");
        }
        // From a container: by the other's address, by its name, by the published port, and its own.
        let ways = [format!("{}", endpoint.address), "web".into(), "web.net".into()];
        for place in
            ways.into_iter().chain(["192.0.2.10:8080".into(), format!("{}:8080", record.gateway)])
        {
            let (out, code) = inside(&other, &format!("timeout 20 wget -q -O - http://{place}/"));
            assert_eq!((out.as_str(), code), ("hello-from-container\n", 0), "{place}");
        }
        let (out, _) = inside(&server, "timeout 20 wget -q -O - http://192.0.2.10:8080/");
        assert_eq!(out, "hello-from-container\n", "hairpin");
        // The host's own 127.0.0.1 is not reachable from a container that routes there.
        let secret = TcpListener::bind("127.0.0.1:7777").unwrap();
        secret.set_nonblocking(true).unwrap();
        let via = format!(
            "ip route add 127.0.0.5 via {} 2>/dev/null; ip route del table local 127.0.0.0/8 2>/dev/null; nc -w 1 127.0.0.5 7777 </dev/null",
            record.gateway
        );
        inside(&other, &via);
        assert!(secret.accept().is_err());
        for container in [&mut server, &mut other] {
            let id = container.config.id.clone();
            let kill = Request::Signal { session: String::new(), signal: 9 };
            assert_eq!(container.client().ask(&kill), Response::Ok);
            container.finish();
            networks.release(&id).await.unwrap();
        }
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).is_err());
        wait_until("the veths to be gone", || !sh("ip -o link").contains("mv"));
        networks.remove("net").await.unwrap();
        networks.destroy_all().await.unwrap();
        assert_eq!(traces(dir.path()), before);
    });
}

/// Has a server know one thing: every address is 198.51.100.7.
fn answer_all(server: UdpSocket) {
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let Some(question) = minke_engine_shim::dns::question(query) else { continue };
            let answer = question.answer(query, &[Ipv4Addr::new(198, 51, 100, 7).into()]);
            let _ = server.send_to(&answer, from);
        }
    });
}

#[test]
fn names_are_answered_without_a_daemon_and_others_are_passed_on() {
    isolated("names_are_answered_without_a_daemon_and_others_are_passed_on", async || {
        let dir = tempfile::tempdir().unwrap();
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = upstream.local_addr().unwrap();
        answer_all(upstream);
        let dead: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let networks = open(dir.path());
        networks.create(named("net")).await.unwrap();
        let (one, endpoint) =
            join(&networks, "net", "one", "exec sleep 1000", vec![], &[dead, server]).await;
        let (two, _) = join(&networks, "net", "two", "exec sleep 1000", vec![], &[server]).await;
        // The daemon is gone; names stay.
        drop(networks);
        let (out, code) = inside(&two, "nslookup one 127.0.0.11");
        assert!(code == 0 && out.contains(&endpoint.address.to_string()), "{out}");
        let (out, _) = inside(&one, "nslookup example.org 127.0.0.11");
        assert!(out.contains("198.51.100.7"), "the second server is asked after the first: {out}");
        let (out, _) = inside(&two, &format!("nslookup {} 127.0.0.11", endpoint.address));
        assert!(out.contains("one"), "{out}");
        // A new daemon renames; the shims notice.
        let networks = open(dir.path());
        networks.restore(|_| true).await.unwrap();
        networks.rename(&one.config.id, "net", vec!["uno".into()]).await.unwrap();
        let (out, _) = inside(&two, "nslookup uno 127.0.0.11");
        assert!(out.contains(&endpoint.address.to_string()), "{out}");
        drop((one, two));
        networks.destroy_all().await.unwrap();
    });
}

#[test]
fn networks_are_apart_unless_something_is_published() {
    isolated("networks_are_apart_unless_something_is_published", async || {
        let dir = tempfile::tempdir().unwrap();
        let networks = open(dir.path());
        networks.create(named("a")).await.unwrap();
        networks.create(named("b")).await.unwrap();
        networks.create(NetworkOptions { internal: true, ..named("inner") }).await.unwrap();
        networks.create(NetworkOptions { no_icc: true, ..named("strangers") }).await.unwrap();
        let (a, at_a) = join(&networks, "a", "a", SERVER, vec![publish(8081, 80)], &[]).await;
        let refusing: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let (b, _) = join(&networks, "b", "b", "exec sleep 1000", vec![], &[refusing]).await;
        fetch((at_a.address, 80));
        let direct = format!("timeout 1 wget -q -O - http://{}/", at_a.address);
        assert_ne!(inside(&b, &direct).1, 0, "another network's container is not reached");
        assert_eq!(inside(&b, "timeout 20 wget -q -O - http://192.0.2.10:8081/").1, 0);
        assert_ne!(inside(&b, "nslookup a 127.0.0.11").1, 0, "nor is its name known");
        // A second network joins it, while it runs.
        networks
            .attach(AttachOptions {
                network: "a".into(),
                container: b.config.id.clone(),
                names: vec!["b".into()],
                ..AttachOptions::default()
            })
            .await
            .unwrap();
        assert_eq!(inside(&b, "timeout 20 wget -q -O - http://a/").1, 0);
        networks.detach(&b.config.id, "a").await.unwrap();
        assert_ne!(inside(&b, &direct).1, 0);
        let (inner, _) = join(&networks, "inner", "i", "exec sleep 1000", vec![], &[]).await;
        assert_ne!(inside(&inner, "ping -c 1 -W 1 192.0.2.1").1, 0);
        assert_ne!(inside(&inner, &direct).1, 0);
        let (s, at_s) = join(&networks, "strangers", "s", SERVER, vec![], &[]).await;
        let (t, _) = join(&networks, "strangers", "t", "exec sleep 1000", vec![], &[]).await;
        fetch((at_s.address, 80));
        let direct = format!("timeout 1 wget -q -O - http://{}/", at_s.address);
        assert_ne!(inside(&t, &direct).1, 0, "no direct talk in this network");
        drop((a, b, inner, s, t));
        networks.destroy_all().await.unwrap();
    });
}

#[test]
fn a_new_daemon_rebuilds_its_rules_and_forgets_the_dead() {
    isolated("a_new_daemon_rebuilds_its_rules_and_forgets_the_dead", async || {
        let dir = tempfile::tempdir().unwrap();
        sh("nft add table ip foreign; nft add chain ip foreign keep");
        let networks = open(dir.path());
        networks.create(named("net")).await.unwrap();
        let ports = vec![publish(8082, 80)];
        let (server, endpoint) = join(&networks, "net", "web", SERVER, ports, &[]).await;
        let (dead, _) =
            join(&networks, "net", "dead", "exec sleep 1000", vec![publish(8083, 80)], &[]).await;
        let dead_id = dead.config.id.clone();
        drop(dead);
        fetch((Ipv4Addr::LOCALHOST, 8082));
        drop(networks);
        // Somebody flushed everything, and the bridge lost its address.
        sh("nft delete table ip minke-test");
        let record = open(dir.path()).get("net").unwrap();
        sh(&format!("ip addr flush dev {}", record.bridge));
        let networks = open(dir.path());
        networks.restore(|id| id != dead_id).await.unwrap();
        assert!(fetch((Ipv4Addr::LOCALHOST, 8082)).contains("hello-from-container"));
        let record = networks.get("net").unwrap();
        assert_eq!(record.endpoints.keys().collect::<Vec<_>>(), [&server.config.id]);
        assert_eq!(record.endpoints[&server.config.id], endpoint);
        assert!(!networks.namespace(&dead_id).unwrap().netns.exists());
        assert!(!sh("nft list table ip minke-test").contains("8083"));
        assert!(sh("nft list ruleset").contains("table ip foreign"), "foreign tables stay");
        drop(server);
        networks.destroy_all().await.unwrap();
        assert!(sh("nft list ruleset").contains("table ip foreign"));
        assert!(!sh("nft list ruleset").contains("minke"));
    });
}

#[test]
fn what_cannot_be_is_said() {
    isolated("what_cannot_be_is_said", async || {
        let dir = tempfile::tempdir().unwrap();
        sh("ip addr add 172.17.0.1/16 dev up0; ip addr add 172.18.5.5/24 dev up0");
        let networks = open(dir.path());
        let net = networks.create(named("net")).await.unwrap();
        assert_eq!(
            net.subnet.to_string(),
            "172.19.0.0/16",
            "the host's own subnets are left alone"
        );
        let text = |error: NetworkError| error.to_string();
        assert_eq!(
            text(networks.create(named("net")).await.unwrap_err()),
            "network with name net already exists"
        );
        let clash = NetworkOptions { subnet: Some("172.17.9.0/24".parse().unwrap()), ..named("x") };
        assert!(text(networks.create(clash).await.unwrap_err()).contains("overlaps"));
        assert_eq!(text(networks.get("nope").unwrap_err()), "network nope not found");
        assert_eq!(networks.get(&net.id[..8]).unwrap().name, "net");

        let listener = TcpListener::bind("0.0.0.0:8090").unwrap();
        networks.make_namespace("c1", &[]).await.unwrap();
        let attach = |address: Option<Ipv4Addr>, ports: Vec<Port>| AttachOptions {
            network: "net".into(),
            container: "c1".into(),
            address,
            ports,
            ..AttachOptions::default()
        };
        let error = networks.attach(attach(None, vec![publish(8090, 80)])).await.unwrap_err();
        assert_eq!(text(error), "Bind for 0.0.0.0:8090 failed: port is already allocated");
        drop(listener);
        let outside = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert!(matches!(
            networks.attach(attach(outside, vec![])).await,
            Err(NetworkError::AddressOutside { .. })
        ));
        assert!(
            networks.get("net").unwrap().endpoints.is_empty(),
            "what failed leaves no endpoint"
        );
        let wanted = Ipv4Addr::new(172, 19, 7, 7);
        let endpoint = networks.attach(attach(Some(wanted), vec![publish(0, 80)])).await.unwrap();
        assert_eq!((endpoint.address, endpoint.mac.as_str()), (wanted, "02:42:ac:13:07:07"));
        assert!(endpoint.ports[0].host_port >= 32768);
        assert!(text(networks.remove("net").await.unwrap_err()).contains("active endpoints: c1"));
        networks.release("c1").await.unwrap();
        networks.destroy_all().await.unwrap();
    });
}

#[test]
fn a_firewall_that_drops_is_found_and_the_way_out_works() {
    isolated("a_firewall_that_drops_is_found_and_the_way_out_works", async || {
        let dir = tempfile::tempdir().unwrap();
        let networks = open(dir.path());
        assert_eq!(networks.detect_forward_drop().await, None);
        for (set_up, undo) in [
            ("iptables-nft -P FORWARD DROP", "nft flush ruleset"),
            (
                "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER",
                "nft flush ruleset",
            ),
            (
                "nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }'",
                "nft flush ruleset",
            ),
            ("iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT"),
        ] {
            sh(set_up);
            let found = networks.detect_forward_drop().await.unwrap_or_else(|| panic!("{set_up}"));
            assert!(found.to_string().contains(&found.way_out[0]));
            for command in &found.way_out {
                sh(command);
            }
            assert_eq!(networks.detect_forward_drop().await, None, "{set_up}: {:?}", found.way_out);
            sh(undo);
        }
    });
}

#[test]
fn udp_ports_and_chosen_addresses_are_published() {
    isolated("udp_ports_and_chosen_addresses_are_published", async || {
        let dir = tempfile::tempdir().unwrap();
        let networks = open(dir.path());
        networks.create(named("net")).await.unwrap();
        let udp = Port { protocol: Protocol::Udp, ..publish(5353, 5300) };
        let local = Port { host_address: Some(Ipv4Addr::LOCALHOST.into()), ..publish(8084, 80) };
        let (container, _) = join(&networks, "net", "u", SERVER, vec![udp, local], &[]).await;
        fetch((Ipv4Addr::LOCALHOST, 8084));
        let elsewhere = (IpAddr::from([192, 0, 2, 10]), 8084).into();
        let patience = std::time::Duration::from_millis(300);
        assert!(TcpStream::connect_timeout(&elsewhere, patience).is_err());
        // A socket inside the container's namespace, that gives every word back.
        let namespace = networks.namespace(&container.config.id).unwrap().netns;
        let echo = std::thread::spawn(move || {
            let namespace = fs::File::open(namespace).unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            UdpSocket::bind("0.0.0.0:5300").unwrap()
        })
        .join()
        .unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                let _ = echo.send_to(&buffer[..length], from);
            }
        });
        for place in ["127.0.0.1:5353", "192.0.2.10:5353"] {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 64];
            wait_until(&format!("the word to come back from {place}"), || {
                let _ = socket.send_to(b"word\n", place);
                matches!(socket.recv_from(&mut buffer), Ok((5, _)) if buffer.starts_with(b"word\n"))
            });
        }
        let record = networks.get("net").unwrap();
        let ports = &record.endpoints[&container.config.id].ports;
        let known: BTreeMap<u16, Protocol> =
            ports.iter().map(|port| (port.host_port, port.protocol)).collect();
        assert_eq!(known, BTreeMap::from([(5353, Protocol::Udp), (8084, Protocol::Tcp)]));
        drop(container);
        networks.destroy_all().await.unwrap();
    });
}

#[test]
fn a_bridge_of_the_host_keeps_its_addresses_and_outlives_the_engine() {
    isolated("a_bridge_of_the_host_keeps_its_addresses_and_outlives_the_engine", async || {
        let dir = tempfile::tempdir().unwrap();
        sh("ip link add br0 type bridge; ip link set br0 up");
        sh("ip -6 addr add fd00::1/64 dev br0 nodad");
        let keeps = |when: &str| {
            let shown = sh("ip -6 addr show dev br0");
            assert!(shown.contains("fd00::1/64"), "{when}: {shown}");
        };
        let networks = open(dir.path());
        let theirs = NetworkOptions { bridge: Some("br0".into()), ..named("theirs") };
        networks.create(theirs).await.unwrap();
        keeps("after the network was made");
        let ours = networks.create(named("ours")).await.unwrap().bridge;
        drop(networks);
        let networks = open(dir.path());
        networks.restore(|_| false).await.unwrap();
        keeps("after a restart");
        networks.destroy_all().await.unwrap();
        keeps("after the engine's end");
        assert!(!sh("ip -o link").contains(&ours), "what is ours goes");
    });
}
