//! Networks: names, aliases, isolation, modes, connecting later.

use serde_json::json;

use crate::support::{Site, ask, clis, wait_until};
use crate::verify::flip;

#[test]
fn names_and_aliases_resolve_between_containers_of_a_network() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["network", "create", "--subnet", "10.77.0.0/24", "--label", "x=y", "team"]).ok();
        cli(&[
            "run",
            "-d",
            "--name",
            "server",
            "--network",
            "team",
            "--network-alias",
            "db",
            "--ip",
            "10.77.0.9",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
        let ping = |network: &str, name: &str| {
            cli(&["run", "--rm", "--network", network, "busybox", "ping", "-c1", "-W10", name]).code
        };
        for name in ["server", "db", "10.77.0.9"] {
            assert_eq!(ping("team", name), 0, "{name}");
        }
        assert_ne!(ping("bridge", "server"), 0, "a name of another network");
        let shown = cli(&[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
            "team",
        ])
        .ok();
        assert_eq!(shown.trim(), "server 10.77.0.9/24");
        let busy = cli(&["network", "rm", "team"]);
        assert!(busy.code == 1 && busy.stderr.contains("active endpoints"), "{busy:?}");
        cli(&["rename", "server", "renamed"]).ok();
        assert_eq!(ping("team", "renamed"), 0);
        cli(&["rm", "-f", "renamed"]).ok();
        assert_eq!(cli(&["network", "ls", "-q", "--filter", "label=x=y"]).ok().lines().count(), 1);
        cli(&["network", "rm", "team"]).ok();
    }
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "one"]).ok();
    cli(&["network", "create", "two"]).ok();
    cli(&["run", "-d", "--name", "aa", "--network", "one", "busybox", "sleep", "1000"]).ok();
    cli(&["run", "-d", "--name", "bb", "--network", "two", "busybox", "sleep", "1000"]).ok();
    let reaches = || cli(&["exec", "aa", "ping", "-c1", "-W10", "bee"]).code == 0;
    assert!(!reaches());
    cli(&["network", "connect", "--alias", "bee", "one", "bb"]).ok();
    assert!(reaches());
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(cli(&["inspect", "-f", networks, "bb"]).ok().trim(), "one two");
    cli(&["restart", "-t", "0", "bb"]).ok();
    wait_until("the name after a restart", || reaches().then_some(()));
    let routes = || cli(&["exec", "bb", "ip", "route"]).ok();
    let default =
        |routes: &str| routes.lines().find(|l| l.starts_with("default")).map(str::to_owned);
    let first = default(&routes()).expect("a way out");
    cli(&["network", "disconnect", "two", "bb"]).ok();
    let second = default(&routes()).expect("the other network becomes the way out");
    assert_ne!(first, second);
    assert!(reaches());
    cli(&["network", "connect", "two", "bb"]).ok();
    let prune = ["network", "prune", "-f", "--filter", "until=10m"];
    assert!(!cli(&prune).ok().contains("Deleted"), "what is new is kept");
    cli(&["network", "disconnect", "one", "bb"]).ok();
    assert!(!reaches());
    assert_eq!(cli(&["network", "disconnect", "one", "bb"]).code, 1);
}

#[test]
fn the_network_of_the_mode_is_the_way_out_also_by_its_id() {
    let site = Site::new();
    site.docker(&["network", "create", "--subnet", "10.79.1.0/24", "aa"]).ok();
    let id = site.docker(&["network", "create", "--subnet", "10.79.2.0/24", "zz"]).ok();
    let words = ["create", "--name", "box", "--network", id.trim(), "busybox", "sleep", "1000"];
    site.docker(&words).ok();
    site.docker(&["network", "connect", "aa", "box"]).ok();
    site.docker(&["start", "box"]).ok();
    let routes = site.docker(&["exec", "box", "ip", "route"]).ok();
    assert!(routes.contains("default via 10.79.2.1"), "{routes}");
    let form = "{{.HostConfig.NetworkMode}}";
    assert_eq!(site.docker(&["inspect", "-f", form, "box"]).ok(), id, "it is shown as given");
}

#[test]
fn host_none_and_shared_namespaces() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let links = |mode: &str| {
        let named = "sed -n 's/ *\\(.*\\):.*/\\1/p' /proc/net/dev";
        cli(&["run", "--rm", "--network", mode, "busybox", "sh", "-c", named]).ok()
    };
    cli(&["run", "-d", "--name", "owner", "-p", "18090:80", "busybox", "sleep", "1000"]).ok();
    assert_eq!(links("none"), "lo\n");
    assert!(links("host").lines().any(|link| link.starts_with("mk")), "the host has our bridge");
    let serve = "while true; do echo shared | nc -l -p 80; done";
    cli(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--network",
        "container:owner",
        "busybox",
        "sh",
        "-c",
        serve,
    ])
    .ok();
    let said =
        wait_until("the port of the shared namespace", || site.say_of_port("127.0.0.1", 18090));
    assert_eq!(said, "shared");
    let hostname = |name: &str| cli(&["exec", name, "cat", "/etc/hostname"]).ok();
    assert_eq!(hostname("owner"), hostname("guest"));
    let taken = cli(&["run", "--rm", "-p", "18090:80", "busybox", "true"]);
    assert!(taken.code == 125 && taken.stderr.contains("port is already allocated"), "{taken:?}");
}

#[test]
fn a_free_port_is_chosen_and_shown() {
    let site = Site::new();
    let serve = "while true; do echo chosen | nc -l -p 80; done";
    site.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "busybox",
        "sh",
        "-c",
        serve,
    ])
    .ok();
    let port = site.docker(&["port", "web", "80"]).ok();
    let port: u16 = port.trim().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    let said = wait_until("the chosen port", || site.say_of_port("127.0.0.1", port));
    assert_eq!(said, "chosen");
}

#[test]
fn a_bridge_that_the_host_has_is_used_and_left_and_other_links_are_refused() {
    let mut site = Site::new();
    let ip = |site: &Site, words: &[&str]| site.command_of("ip", words, b"");
    ip(&site, &["link", "add", "br0", "type", "bridge"]).ok();
    ip(&site, &["link", "add", "ve0", "type", "veth", "peer", "name", "ve1"]).ok();
    let create = |site: &Site, bridge: &str, name: &str| {
        let option = format!("com.docker.network.bridge.name={bridge}");
        site.docker(&["network", "create", "-o", &option, name])
    };
    for link in ["lo", "ve0"] {
        let refused = create(&site, link, "wrong");
        assert!(refused.code == 1 && refused.stderr.contains("no bridge"), "{refused:?}");
        assert!(!ip(&site, &["addr", "show", "dev", link]).ok().contains("192.168"));
    }
    create(&site, "br0", "theirs").ok();
    let refused = create(&site, "br0", "second");
    assert!(refused.stderr.contains("is that of network theirs"), "{refused:?}");
    let words = ["run", "--rm", "--network", "theirs", "busybox", "ip", "route"];
    assert!(site.docker(&words).ok().contains("default"));
    // Neither the network's end nor an engine's end takes away what is not ours.
    site.kill_engine();
    site.start_engine();
    site.docker(&["network", "rm", "theirs"]).ok();
    ip(&site, &["link", "show", "br0"]).ok();
    create(&site, "br1", "ours").ok();
    ip(&site, &["link", "show", "br1"]).ok();
    site.docker(&["network", "rm", "ours"]).ok();
    assert_ne!(ip(&site, &["link", "show", "br1"]).code, 0);
    for link in ["br0", "ve0"] {
        ip(&site, &["link", "del", link]).ok();
    }
}

#[test]
fn an_internal_network_that_comes_first_takes_neither_the_way_out_nor_the_ports() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "--internal", "aa"]).ok();
    cli(&["network", "create", "--subnet", "10.79.3.0/24", "bb"]).ok();
    let serve = "while true; do echo served | nc -l -p 80; done";
    let words = ["create", "--name", "web", "--network", "aa", "-p", "18095:80", "busybox"];
    cli(&[&words[..], &["sh", "-c", serve]].concat()).ok();
    cli(&["network", "connect", "bb", "web"]).ok();
    cli(&["start", "web"]).ok();
    let routes = |name: &str| cli(&["exec", name, "ip", "route"]).ok();
    let shown = routes("web");
    assert!(shown.contains("default via 10.79.3.1"), "{shown}");
    // A container of another network comes in as somebody outside does.
    let gateway =
        cli(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
    let gateway = gateway.ok();
    let ask = ["run", "--rm", "busybox", "nc", "-w", "2", gateway.trim(), "18095"];
    wait_until("the published port", || (cli(&ask).stdout.trim() == "served").then_some(()));
    cli(&["run", "-d", "--name", "late", "--network", "aa", "busybox", "sleep", "1000"]).ok();
    let shown = routes("late");
    assert!(!shown.contains("default"), "{shown}");
    cli(&["network", "connect", "bb", "late"]).ok();
    let shown = routes("late");
    assert!(shown.contains("default via 10.79.3.1"), "{shown}");
    // Leaving the internal one does not move the way out.
    cli(&["network", "disconnect", "aa", "late"]).ok();
    let shown = routes("late");
    assert!(shown.contains("default via 10.79.3.1"), "{shown}");
}

#[test]
fn a_network_that_cannot_be_made_keeps_only_its_own_containers_from_starting() {
    let mut site = Site::new();
    let ip = |site: &Site, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        site.command_of("ip", &words, b"")
    };
    for (name, bridge) in [("spoiled", "mkx"), ("second", "mky")] {
        let option = format!("com.docker.network.bridge.name={bridge}");
        site.docker(&["network", "create", "-o", &option, name]).ok();
    }
    site.stop_engine();
    for bridge in ["mkx", "mky"] {
        ip(&site, &format!("link del {bridge}")).ok();
    }
    ip(&site, "link add mkx type veth peer name mky").ok();
    site.start_engine();
    site.docker(&["run", "--rm", "busybox", "true"]).ok();
    let run = ["run", "--rm", "--network", "spoiled", "busybox", "true"];
    let refused = site.docker(&run);
    assert!(
        refused.code == 125 && refused.stderr.contains("mkx is a link of the host"),
        "{refused:?}"
    );
    site.docker(&["network", "rm", "second"]).ok();
    ip(&site, "link show mky").ok();
    ip(&site, "link del mkx").ok();
    site.docker(&run).ok();
}

#[test]
fn containers_of_a_network_without_talk_between_them_reach_its_gateway_alone() {
    let site = Site::new();
    let icc = "com.docker.network.bridge.enable_icc";
    for (network, subnet, talks) in
        [("open", "10.78.1.0/24", true), ("closed", "10.78.2.0/24", false)]
    {
        let option = format!("{icc}={talks}");
        let create = ["network", "create", "--subnet", subnet, "-o", &option, network];
        site.docker(&create).ok();
        let run = ["run", "-d", "--network", network, "--name"];
        site.docker(&[&run[..], &[network, "busybox", "sleep", "1000"]].concat()).ok();
        let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}";
        let address = site.docker(&["inspect", "-f", address, network]).ok();
        let (other, gateway) = address.trim().split_once(' ').unwrap();
        let ping = |wait: &str, place: &str| {
            let words =
                ["run", "--rm", "--network", network, "busybox", "ping", "-c1", wait, place];
            site.docker(&words).code == 0
        };
        assert!(ping("-W10", gateway), "{network}");
        assert_eq!(ping(if talks { "-W10" } else { "-W2" }, other), talks, "{network}");
    }
}

#[test]
fn what_has_ended_leaves_a_network_that_is_gone_and_can_be_started_again() {
    let site = Site::new();
    site.docker(&["network", "create", "net"]).ok();
    site.docker(&["create", "--name", "box", "--network", "net", "busybox", "sleep", "1000"]).ok();
    site.docker(&["network", "rm", "net"]).ok();
    let start = || ask(&site, "POST", "/containers/box/start", None);
    assert_eq!(start().status, 404);
    let body = json!({ "Container": "box" });
    let leave = |name: &str| {
        ask(&site, "POST", &format!("/networks/{name}/disconnect"), Some(&body)).status
    };
    assert_eq!([leave("other"), leave("net"), leave("net")], [404, 200, 404]);
    let started = start();
    assert_eq!(started.status, 204, "{}", started.text);
    site.docker(&["network", "connect", "bridge", "box"]).ok();
}

#[test]
fn what_runs_in_a_network_that_was_lost_can_be_renamed_and_leaves_it_by_force() {
    let mut site = Site::new();
    let id = site.docker(&["network", "create", "lost"]).ok();
    let words = ["run", "-d", "--name", "box", "--network", "lost", "-p", "18097:80", "busybox"];
    site.docker(&[&words[..], &["sleep", "1000"]].concat()).ok();
    site.stop_engine();
    flip(&site.data().join("networks").join(id.trim()).join("network.json"));
    site.start_engine();
    assert_eq!(site.docker(&["network", "inspect", "lost"]).code, 1);
    site.docker(&["rename", "box", "kept"]).ok();
    let refused = site.docker(&["network", "disconnect", "lost", "kept"]);
    assert!(refused.code == 1 && refused.stderr.contains("lost not found"), "{refused:?}");
    assert!(site.docker(&["port", "kept"]).ok().contains("18097"));
    site.docker(&["network", "disconnect", "-f", "lost", "kept"]).ok();
    assert_eq!(site.docker(&["port", "kept"]).ok(), "");
    site.docker(&["restart", "-t", "0", "kept"]).ok();
}

#[test]
fn the_ports_of_what_runs_are_published_by_the_next_network_when_theirs_is_left() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "--internal", "aa"]).ok();
    cli(&["network", "create", "bb"]).ok();
    cli(&["network", "create", "cc"]).ok();
    let serve = "while true; do echo served | nc -l -p 80; done";
    let words = ["run", "-d", "--name", "web", "-p", "18096:80", "busybox", "sh", "-c", serve];
    cli(&words).ok();
    let port = || cli(&["port", "web"]).ok().trim().to_owned();
    let listed = || cli(&["ps", "--format", "{{.Ports}}"]).ok().contains("18096");
    let says = || site.say_of_port("127.0.0.1", 18096);
    // The second time round another network has become the way out.
    for (stays, left, next) in [("aa", "bridge", "bb"), ("cc", "bb", "bridge")] {
        wait_until("the published port", || says().filter(|said| said == "served"));
        cli(&["network", "connect", stays, "web"]).ok();
        assert!(listed(), "{stays} is entered");
        cli(&["network", "disconnect", left, "web"]).ok();
        assert_eq!((port().as_str(), listed(), says()), ("", false, None), "{left} is left");
        cli(&["network", "connect", next, "web"]).ok();
        assert_eq!(port(), "80/tcp -> 0.0.0.0:18096", "{next} is entered");
    }
    wait_until("the published port", || says().filter(|said| said == "served"));
    let gateway = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bb"];
    let gateway = cli(&gateway).ok();
    let ask =
        ["run", "--rm", "--network", "bb", "busybox", "nc", "-w", "2", gateway.trim(), "18096"];
    wait_until("an answer to another network", || {
        (cli(&ask).stdout.trim() == "served").then_some(())
    });
}

#[test]
fn a_containers_hardware_address_is_that_in_the_network_of_its_mode_alone() {
    let site = Site::new();
    for name in ["one", "two", "three"] {
        site.docker(&["network", "create", name]).ok();
    }
    let given = "02:42:ac:11:00:77";
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "MacAddress": given,
        "HostConfig": { "NetworkMode": "two" } });
    let made = ask(&site, "POST", "/containers/create?name=box", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text);
    site.docker(&["network", "connect", "one", "box"]).ok();
    site.docker(&["start", "box"]).ok();
    site.docker(&["network", "connect", "three", "box"]).ok();
    let read = "cat /sys/class/net/eth0/address /sys/class/net/eth1/address \
                /sys/class/net/eth2/address";
    let addresses = site.docker(&["exec", "box", "sh", "-c", read]).ok();
    let addresses: Vec<&str> = addresses.lines().collect();
    assert_eq!((addresses.len(), addresses[0]), (3, given), "{addresses:?}");
    assert!(!addresses[1..].contains(&given), "{addresses:?}");
}

#[test]
fn a_rename_that_fails_in_one_network_has_not_happened() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["network", "create", "aa"]).ok();
    let id = cli(&["network", "create", "bb"]).ok();
    cli(&["run", "-d", "--name", "old", "--network", "aa", "busybox", "sleep", "1000"]).ok();
    cli(&["network", "connect", "bb", "old"]).ok();
    cli(&["run", "-d", "--name", "asks", "--network", "aa", "busybox", "sleep", "1000"]).ok();
    let names = site.data().join("networks").join(id.trim()).join("names");
    std::fs::remove_file(&names).unwrap();
    std::fs::create_dir(&names).unwrap();
    let refused = cli(&["rename", "old", "new"]);
    assert!(refused.code == 1 && refused.stderr.contains("names"), "{refused:?}");
    let finds = |name: &str| cli(&["exec", "asks", "ping", "-c1", "-W10", name]).code == 0;
    assert!(finds("old") && !finds("new"));
    assert_eq!(cli(&["inspect", "-f", "{{.Name}}", "old"]).ok(), "/old\n");
    std::fs::remove_dir(&names).unwrap();
    cli(&["rename", "old", "new"]).ok();
    assert!(finds("new") && !finds("old"));
}
