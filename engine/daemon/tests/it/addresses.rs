//! Addresses of containers: IPv6, reserved ones, networks without translation, links of the host.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Site, on_path, wait_until};

const SERVE: &str = "while true; do echo served | nc -l -p 80; done";

fn sh(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

fn says(address: &str) -> Option<String> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    (!line.is_empty()).then(|| line.trim_end().to_owned())
}

#[test]
fn containers_have_ipv6_addresses_names_and_ports() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"]).ok();
    let words = ["run", "-d", "--name", "web", "--network", "six", "--ip6", "fd00:77::9", "-p"];
    cli(&[&words[..], &["18080:80", "busybox", "sh", "-c", SERVE]].concat()).ok();
    cli(&["run", "--rm", "--network", "six", "busybox", "ping", "-6", "-c1", "-W10", "web"]).ok();
    for address in ["127.0.0.1:18080", "[fd00:77::1]:18080"] {
        let said = wait_until(address, || says(address));
        assert_eq!(said, "served", "{address}");
    }
    let port = cli(&["port", "web", "80"]).ok();
    assert_eq!(port, "0.0.0.0:18080\n[::]:18080\n");
    let shown = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}} {{.IPv6Gateway}}{{end}}";
    assert_eq!(cli(&["inspect", "-f", shown, "web"]).ok().trim(), "fd00:77::9 fd00:77::1");
    let taken = cli(&["run", "--rm", "--network", "six", "--ip6", "fd00:77::9", "busybox", "true"]);
    assert!(taken.code != 0 && taken.stderr.contains("already in use"), "{taken:?}");
    // Without a subnet an own one is chosen; two networks are apart.
    cli(&["network", "create", "--ipv6", "chosen"]).ok();
    let pools =
        cli(&["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "chosen"]);
    let pools = pools.ok();
    assert!(pools.split(' ').any(|pool| pool.starts_with("fd") && pool.trim().ends_with("::/64")));
    let reach = ["run", "--rm", "--network", "chosen", "busybox", "ping", "-6", "-c1", "-W1"];
    assert_ne!(cli(&[&reach[..], &["fd00:77::9"]].concat()).code, 0);
    cli(&["rm", "-f", "web"]).ok();
    cli(&["network", "rm", "six", "chosen"]).ok();
}

#[test]
fn a_port_on_an_ipv6_address_is_only_there_and_needs_one() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "--ipv6", "--subnet", "fd00:78::/64", "six"]).ok();
    let serve = |name: &str, ports: &[&str]| {
        let words = ["run", "-d", "--name", name, "--network", "six"];
        cli(&[&words[..], ports, &["busybox", "sh", "-c", SERVE]].concat()).ok();
    };
    serve("one", &["-p", "[fd00:78::1]:18082:80"]);
    serve("all", &["-p", "[::]:18083:80"]);
    serve("both", &["-p", "0.0.0.0:18084:80", "-p", "[::]:18084:80"]);
    for address in
        ["[fd00:78::1]:18082", "[fd00:78::1]:18083", "[fd00:78::1]:18084", "127.0.0.1:18084"]
    {
        assert_eq!(wait_until(address, || says(address)), "served", "{address}");
    }
    for address in ["127.0.0.1:18082", "127.0.0.1:18083"] {
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
    }
    assert_eq!(cli(&["port", "both", "80"]).ok(), "0.0.0.0:18084\n[::]:18084\n");
    let words = ["run", "--rm", "--network", "six", "-p", "[::]:18083:80", "busybox", "true"];
    let taken = cli(&words);
    assert!(taken.stderr.contains("port is already allocated"), "{taken:?}");
    for address in ["[::]", "[::1]"] {
        let publish = format!("{address}:18085:80");
        let refused = cli(&["run", "--rm", "-p", &publish, "busybox", "true"]);
        let why = "has no IPv6 addresses";
        assert!(refused.code == 125 && refused.stderr.contains(why), "{refused:?}");
    }
    cli(&["rm", "-f", "one", "all", "both"]).ok();
}

/// What bridges carry passes the packet filter, or it does not.
fn filter_bridges(yes: bool) -> bool {
    let value = if yes { "1" } else { "0" };
    std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", value).is_ok()
}

#[test]
fn ports_at_the_hosts_own_ipv6_loopback_are_refused_where_no_answer_could_come_in() {
    let mut site = Site::stopped();
    // A kernel without that filter has nothing to refuse for.
    if !filter_bridges(true) {
        return;
    }
    site.start_engine();
    site.load_image();
    site.docker(&["network", "create", "--ipv6", "--subnet", "fd00:79::/64", "six"]).ok();
    let run = ["run", "-d", "--network", "six", "-p", "18089:80", "busybox", "sleep", "1000"];
    site.docker(&run).ok();
    // At once: who tries both versions goes on with the other.
    let error = TcpStream::connect("[::1]:18089").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let own = ["run", "--rm", "--network", "six", "-p", "[::1]:18085:80", "busybox", "true"];
    let refused = site.docker(&own);
    let why = "net.bridge.bridge-nf-call-ip6tables=0";
    assert!(refused.code == 125 && refused.stderr.contains(why), "{refused:?}");
}

/// The kernel has no `route_localnet` for IPv6, and Docker a process for each port instead.
#[test]
fn ports_at_the_hosts_own_ipv6_loopback_are_reached_from_there_alone() {
    let mut site = Site::stopped();
    filter_bridges(false);
    site.start_engine();
    site.load_image();
    for (network, subnet, name, port) in [
        ("one", "fd00:7a::/64", "web", "[::1]:18086:80"),
        ("two", "fd00:7b::/64", "dns", "[::1]:18087:53/udp"),
    ] {
        site.docker(&["network", "create", "--ipv6", "--subnet", subnet, network]).ok();
        let run = ["run", "-d", "--name", name, "--network", network, "-p", port];
        site.docker(&[&run[..], &["busybox", "sh", "-c", SERVE]].concat()).ok();
    }
    let reached = || wait_until("[::1]:18086", || says("[::1]:18086"));
    assert_eq!(reached(), "served");
    let asked = UdpSocket::bind("[::1]:0").unwrap();
    let answering = site.inside("dns", || UdpSocket::bind("[::]:53").unwrap());
    for socket in [&asked, &answering] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let mut bytes = [0; 16];
    asked.send_to(b"question", "[::1]:18087").unwrap();
    let (length, from) = answering.recv_from(&mut bytes).unwrap();
    answering.send_to(&bytes[..length], from).unwrap();
    let (length, from) = asked.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from.to_string().as_str()), (&b"question"[..], "[::1]:18087"));
    for other in ["[fd00:7a::1]:18086", "127.0.0.1:18086"] {
        let error = TcpStream::connect(other).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{other}");
    }
    // It goes on without a daemon, and with the next one.
    site.kill_engine();
    assert_eq!(reached(), "served");
    site.start_engine();
    assert_eq!(reached(), "served");
    // Who sends to the host's ::1 from the bridge is not heard.
    let refused = || {
        let counts = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let line = counts.lines().find(|line| line.starts_with("Ip6InHdrErrors")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let listener = TcpListener::bind("[::1]:18088").unwrap();
    let before = refused();
    let outside = "ip -6 addr del ::1/128 dev lo; ip -6 route add ::1/128 via fd00:7a::1 dev eth0; \
                   nc -w 2 ::1 18088 </dev/null";
    let run = ["run", "--rm", "--privileged", "--network", "one", "busybox", "sh", "-c", outside];
    assert_ne!(site.docker(&run).code, 0);
    assert!(refused() > before, "what was sent came, and was refused");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    site.docker(&["rm", "-f", "web", "dns"]).ok();
    site.docker(&["network", "rm", "one", "two"]).ok();
    let routes =
        Command::new("ip").args(["-6", "route", "show", "table", "local"]).output().unwrap();
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert_eq!(routes.lines().filter(|line| line.contains("local ::1")).count(), 1, "{routes}");
}

#[test]
fn reserved_addresses_are_left_out_and_ranges_are_kept_to() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let ranges =
        ["--subnet", "10.60.0.0/16", "--ip-range", "10.60.5.0/29", "--gateway", "10.60.0.9"];
    let aux = ["--aux-address", "printer=10.60.5.0", "--aux-address", "nas=10.60.5.1"];
    cli(&[&["network", "create"], &ranges[..], &aux[..], &["lan"]].concat()).ok();
    let own = "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4; ip route | grep default";
    let said = cli(&["run", "--rm", "--network", "lan", "busybox", "sh", "-c", own]).ok();
    assert_eq!(said, "10.60.5.2/16\ndefault via 10.60.0.9 dev eth0 \n");
    let aux = cli(&["run", "--rm", "--network", "lan", "--ip", "10.60.5.1", "busybox", "true"]);
    assert!(aux.code != 0 && aux.stderr.contains("already in use"), "{aux:?}");
    let form = "{{range .IPAM.Config}}{{.IPRange}} {{.AuxiliaryAddresses}}{{end}}";
    let shown = cli(&["network", "inspect", "-f", form, "lan"]).ok();
    assert_eq!(shown.trim(), "10.60.5.0/29 map[nas:10.60.5.1 printer:10.60.5.0]");
    let outside = cli(&[
        "network",
        "create",
        "--subnet",
        "10.61.0.0/24",
        "--aux-address",
        "x=10.62.0.1",
        "outside",
    ]);
    assert!(outside.code == 1 && outside.stderr.contains("10.62.0.1"), "{outside:?}");
}

/// A neighbour on the host's own network: a namespace behind a veth, with routes through the host.
struct Neighbour(std::process::Child);

impl Neighbour {
    fn new() -> Neighbour {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let pid = child.id();
        wait_until("the neighbour's namespace", || {
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            std::fs::read_link(format!("/proc/{pid}/ns/net")).ok().filter(|net| *net != own)
        });
        // By its path: a shell of busybox would take its own, which makes no such pairs.
        let ip = on_path("ip").display().to_string();
        sh(&format!("{ip} link add lan0 type veth peer name lan1"));
        sh(&format!("{ip} link set lan1 netns {pid}"));
        sh(&format!("{ip} addr add 192.0.2.1/24 dev lan0; {ip} link set lan0 up"));
        let inside = format!("nsenter --net=/proc/{pid}/ns/net {ip}");
        sh(&format!("{inside} addr add 192.0.2.2/24 dev lan1; {inside} link set lan1 up"));
        sh(&format!("{ip} route add default via 192.0.2.2 dev lan0"));
        sh(&format!("{inside} route add default via 192.0.2.1"));
        // Without a search for others of these addresses, for which packets would have to wait.
        sh(&format!("{ip} -6 addr add 2001:db8:9::1/64 dev lan0 nodad"));
        sh(&format!("{inside} -6 addr add 2001:db8:9::2/64 dev lan1 nodad"));
        sh(&format!("{ip} -6 route add default via 2001:db8:9::2 dev lan0"));
        sh(&format!("{inside} -6 route add default via 2001:db8:9::1 dev lan1"));
        Neighbour(child)
    }

    fn hears(&self, address: &str) -> Option<String> {
        let (host, port) = address.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.0.id()))
            .args(["busybox", "nc", "-w", "1", host, port])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (!said.is_empty()).then_some(said)
    }

    /// The address that a new container of a network has for this neighbour, at its address `host`.
    fn sees(&self, site: &Site, network: &str, host: &str) -> String {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let listen = || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            TcpListener::bind((host, 0)).unwrap()
        };
        let listener = std::thread::scope(|scope| scope.spawn(listen).join().unwrap());
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let call = format!("until nc -w 5 {host} {port} </dev/null; do sleep 1; done");
        site.docker(&["run", "-d", "--network", network, "busybox", "sh", "-c", &call]).ok();
        wait_until("a container's call", || listener.accept().ok()).1.ip().to_string()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An engine that has found the neighbour's link when it started.
fn with_neighbour() -> (Site, Neighbour) {
    let mut site = Site::empty(&[]);
    site.stop_engine();
    let neighbour = Neighbour::new();
    site.start_engine();
    site.load_image();
    (site, neighbour)
}

#[test]
fn a_neighbour_reaches_what_is_published_and_all_of_a_routed_network() {
    let (site, neighbour) = with_neighbour();
    let cli = |words: &[&str]| site.docker(words);
    let mode = "com.docker.network.bridge.gateway_mode_ipv4=routed";
    cli(&["network", "create", "--subnet", "10.71.0.0/24", "nat"]).ok();
    cli(&["network", "create", "--subnet", "10.72.0.0/24", "-o", mode, "open"]).ok();
    for (name, network, address) in [("one", "nat", "10.71.0.5"), ("two", "open", "10.72.0.5")] {
        let words = ["run", "-d", "--name", name, "--network", network, "--ip", address, "-p"];
        let port = if name == "one" { "18081:80" } else { "18082:80" };
        cli(&[&words[..], &[port, "busybox", "sh", "-c", SERVE]].concat()).ok();
    }
    let said = wait_until("the published port", || neighbour.hears("192.0.2.1:18081"));
    assert_eq!(said, "served");
    let said = wait_until("the routed address", || neighbour.hears("10.72.0.5:80"));
    assert_eq!(said, "served");
    assert_eq!(neighbour.hears("10.71.0.5:80"), None, "what is not published is closed");
    // Who asks from a routed network is seen as who it is.
    assert!(neighbour.sees(&site, "open", "192.0.2.2").starts_with("10.72.0."));
    assert_eq!(neighbour.sees(&site, "nat", "192.0.2.2"), "192.0.2.1");
}

#[test]
fn a_network_that_is_routed_for_ipv6_alone_is_open_for_ipv6_alone() {
    let (site, neighbour) = with_neighbour();
    let cli = |words: &[&str]| site.docker(words);
    let mode = ["-o", "com.docker.network.bridge.gateway_mode_ipv6=routed"];
    for (name, mode, four, six, port) in [
        ("nat", &[][..], "10.74.0", "fd00:74:", "18091:80"),
        ("open", &mode, "10.75.0", "fd00:75:", "18092:80"),
    ] {
        let (subnet, subnet6) = (format!("{four}.0/24"), format!("{six}:/64"));
        let subnets = ["--ipv6", "--subnet", &subnet, "--subnet", &subnet6, name];
        cli(&[&["network", "create"], mode, &subnets].concat()).ok();
        let (address, address6) = (format!("{four}.5"), format!("{six}:5"));
        let words = ["run", "-d", "--network", name, "--ip", &address, "--ip6", &address6];
        cli(&[&words[..], &["-p", port, "busybox", "sh", "-c", SERVE]].concat()).ok();
    }
    let form = "{{json .Options}}";
    let shown = cli(&["network", "inspect", "-f", form, "open"]).ok();
    assert!(
        shown.contains("\"com.docker.network.bridge.gateway_mode_ipv6\":\"routed\""),
        "{shown}"
    );
    for open in ["[2001:db8:9::1]:18091", "[fd00:75::5]:80", "192.0.2.1:18091", "192.0.2.1:18092"] {
        let said = wait_until(open, || neighbour.hears(open));
        assert_eq!(said, "served", "{open}");
    }
    for closed in ["[fd00:74::5]:80", "10.74.0.5:80", "10.75.0.5:80"] {
        assert_eq!(neighbour.hears(closed), None, "{closed} is not published");
    }
    // Who asks from a routed network is seen as who it is, and others as the host.
    let seen = |network: &str, host: &str| neighbour.sees(&site, network, host);
    assert!(seen("open", "2001:db8:9::2").starts_with("fd00:75::"));
    assert_eq!(seen("nat", "2001:db8:9::2"), "2001:db8:9::1");
    assert_eq!(seen("open", "192.0.2.2"), "192.0.2.1");
}

/// Whether the kernel has a part in a file, which it loads when it is asked for.
fn is_in_files(module: &str) -> bool {
    let version = rustix::system::uname().release().to_string_lossy().into_owned();
    let list = Path::new("/lib/modules").join(version).join("modules.dep");
    let list = std::fs::read_to_string(list).unwrap_or_default();
    list.lines().any(|line| line.contains(&format!("/{module}.ko")))
}

#[test]
fn containers_share_a_link_of_the_host_where_the_kernel_can() {
    let (site, neighbour) = with_neighbour();
    let cli = |words: &[&str]| site.docker(words);
    let create = |driver: &str| {
        let words = ["network", "create", "-d", driver, "-o", "parent=lan0", "--subnet"];
        cli(&[&words[..], &["192.0.2.0/24", "--ip-range", "192.0.2.128/26", driver]].concat())
    };
    for driver in ["macvlan", "ipvlan"] {
        let made = create(driver);
        if made.code != 0 {
            assert!(made.stderr.contains(&format!("this kernel has no {driver}")), "{made:?}");
            assert!(!is_in_files(driver), "{driver} could have been loaded");
            continue;
        }
        cli(&["run", "-d", "--name", driver, "--network", driver, "busybox", "sh", "-c", SERVE])
            .ok();
        let form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = cli(&["inspect", "-f", form, driver]).ok().trim().to_owned();
        assert!(address.starts_with("192.0.2.1"), "{address}");
        let said =
            wait_until("the container on the LAN", || neighbour.hears(&format!("{address}:80")));
        assert_eq!(said, "served");
        cli(&["rm", "-f", driver]).ok();
        cli(&["network", "rm", driver]).ok();
    }
    let no_parent = cli(&["network", "create", "-d", "macvlan", "none-such"]);
    assert!(no_parent.stderr.contains("parent"), "{no_parent:?}");
    let missing = cli(&["network", "create", "-d", "macvlan", "-o", "parent=eth77", "missing"]);
    assert!(missing.stderr.contains("eth77"), "{missing:?}");
}

#[test]
fn datagrams_that_began_before_the_container_reach_it() {
    let site = Site::new();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect("127.0.0.1:18083").unwrap();
    // The kernel now remembers this flow, and that nothing is translated.
    let _ = sender.send(b"too early");
    let run = ["run", "-d", "--name", "sink", "-p", "18083:5000/udp", "busybox", "sleep", "1000"];
    site.docker(&run).ok();
    let sink = site.inside("sink", || UdpSocket::bind("0.0.0.0:5000").unwrap());
    sink.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let heard = wait_until("a datagram in the container", || {
        let _ = sender.send(b"in time");
        let mut buffer = [0; 64];
        sink.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())
    });
    assert_eq!(heard, b"in time");
}

#[test]
fn a_neighbour_does_not_reach_what_is_published_on_127_0_0_1() {
    let (site, neighbour) = with_neighbour();
    let create = ["network", "create", "--subnet", "10.73.0.0/24", "net"];
    site.docker(&create).ok();
    let words = ["run", "-d", "--network", "net", "--ip", "10.73.0.5", "-p", "127.0.0.1:18087:80"];
    site.docker(&[&words[..], &["-p", "18088:80", "busybox", "sh", "-c", SERVE]].concat()).ok();
    assert_eq!(wait_until("the port on the host", || says("127.0.0.1:18087")), "served");
    // The neighbour takes the host for 127.0.0.1.
    let inside = format!("nsenter --net=/proc/{}/ns/net", neighbour.0.id());
    for link in ["all", "lan1"] {
        sh(&format!("{inside} sysctl -qw net.ipv4.conf.{link}.route_localnet=1"));
        sh(&format!("{inside} sysctl -qw net.ipv4.conf.{link}.rp_filter=0"));
    }
    sh(&format!("{inside} ip route add 127.0.0.1/32 via 192.0.2.1 dev lan1"));
    // That its packets come and are answered is shown by a translation that is not ours.
    sh(
        "nft 'add table ip other; add chain ip other pre { type nat hook prerouting priority -150; }'",
    );
    sh("nft add rule ip other pre ip daddr 127.0.0.1 tcp dport 18089 dnat to 10.73.0.5:80");
    let said = wait_until("an answer to the neighbour", || neighbour.hears("127.0.0.1:18089"));
    assert_eq!(said, "served");
    for port in [18087, 18088] {
        assert_eq!(neighbour.hears(&format!("127.0.0.1:{port}")), None, "{port}");
    }
    let said = wait_until("the open port", || neighbour.hears("192.0.2.1:18088"));
    assert_eq!(said, "served");
    assert_eq!(wait_until("the port on the host", || says("127.0.0.1:18087")), "served");
}
