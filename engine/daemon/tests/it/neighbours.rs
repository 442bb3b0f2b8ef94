//! Containers that need other containers: whose network they share, whom they are linked to, who has the
//! same volume; and what users of the host may see of them.

use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Site, wait_until};

#[test]
fn a_container_whose_network_another_has_left_can_still_be_worked_in() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "vpn", "busybox", "sleep", "1000"]).ok();
    let check = ["--health-cmd", "true", "--health-interval", "1s", "--health-retries", "1"];
    let words = ["run", "-d", "--name", "guest", "--network", "container:vpn"];
    site.docker(&[&words[..], &check, &["busybox", "sleep", "1000"]].concat()).ok();
    site.docker(&["stop", "-t", "0", "vpn"]).ok();
    assert_eq!(site.docker(&["exec", "guest", "echo", "here"]).ok(), "here\n");
    site.docker(&["rm", "vpn"]).ok();
    assert_eq!(site.docker(&["exec", "guest", "echo", "here"]).ok(), "here\n");
    let health = || site.docker(&["inspect", "-f", "{{len .State.Health.Log}}", "guest"]).ok();
    wait_until("a few checks", || (health().trim() >= "3").then_some(()));
    let status = site.docker(&["inspect", "-f", "{{.State.Health.Status}}", "guest"]).ok();
    assert_eq!(status, "healthy\n");
}

#[test]
fn links_lead_to_who_runs_in_the_network_of_links() {
    let site = Site::new();
    site.docker(&["network", "create", "a-net"]).ok();
    site.docker(&["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).ok();
    site.docker(&["network", "connect", "a-net", "db"]).ok();
    let form = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let address = site.docker(&["inspect", "-f", form, "db"]).ok();
    let web =
        ["create", "--name", "web", "--link", "db:main", "busybox", "grep", "main", "/etc/hosts"];
    site.docker(&web).ok();
    let seen = site.docker(&["start", "-a", "web"]).ok();
    assert!(seen.starts_with(address.trim()), "{seen}");
    site.docker(&["stop", "-t", "0", "db"]).ok();
    let refused = site.docker(&["start", "-a", "web"]);
    assert!(refused.stderr.contains("non running container: /db AS /web/main"), "{refused:?}");
    for mode in ["host", "container:web"] {
        let refused = site.docker(&["create", "--network", mode, "--link", "db", "busybox"]);
        assert!(refused.stderr.contains("can't be used with links"), "{refused:?}");
    }
}

#[test]
fn what_was_refused_changes_nothing() {
    let site = Site::new();
    let words = ["run", "-d", "--name", "box", "--restart", "always", "busybox", "sleep", "1000"];
    site.docker(&words).ok();
    let pid = || site.docker(&["inspect", "-f", "{{.State.Pid}}", "box"]).ok();
    let first = pid();
    let refused = site.docker(&["stop", "-s", "NOSUCH", "box"]);
    assert!(refused.stderr.contains("NOSUCH"), "{refused:?}");
    // It is started again as if nobody had asked to stop it.
    kill_process(Pid::from_raw(first.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_until("another process", || (!["0\n", &*first].contains(&&*pid())).then_some(()));
    site.docker(&["pause", "box"]).ok();
    let frozen = site.docker(&["start", "box"]);
    assert!(frozen.stderr.contains("cannot start a paused container"), "{frozen:?}");
}

#[test]
fn a_part_of_a_volume_is_what_it_was_when_it_was_looked_up() {
    let site = Site::new();
    let make = "mkdir -p /v/sub /v/other; echo right > /v/sub/file; ln -s / /v/away; sleep 1000";
    site.docker(&["run", "-d", "--name", "one", "-v", "vol:/v", "busybox", "sh", "-c", make]).ok();
    wait_until("the link", || {
        (site.docker(&["exec", "one", "test", "-e", "/v/away"]).code == 0).then_some(())
    });
    // The host's root, if a path of the volume is followed after it was checked.
    let swap = "while :; do mv -T /v/sub /v/kept; mv -T /v/away /v/sub; mv -T /v/sub /v/away; \
                mv -T /v/kept /v/sub; done";
    site.docker(&["exec", "-d", "one", "sh", "-c", swap]).ok();
    let mount = "type=volume,source=vol,target=/x,volume-subpath=sub";
    for _ in 0..15 {
        let listed = site.docker(&["run", "--rm", "--mount", mount, "busybox", "ls", "/x"]);
        // Now and then it is not there, or it is the volume's own root: never the host's.
        let right = listed.stdout == "file\n" || listed.stdout.contains("other\n");
        assert!(right || listed.code != 0, "{listed:?}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("run/subpaths"), "{mounts}");
}

#[test]
fn users_of_the_host_reach_no_file_of_a_container() {
    let site = Site::new();
    for folder in ["containers", "volumes"] {
        let mode = std::fs::metadata(site.data().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
}

#[test]
fn a_link_leads_on_to_a_container_that_gets_another_name() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).ok();
    let web = ["run", "-d", "--name", "web", "--link", "db", "busybox", "sleep", "1000"];
    site.docker(&web).ok();
    site.docker(&["rename", "db", "db2"]).ok();
    site.docker(&["stop", "-t", "0", "web"]).ok();
    site.docker(&["start", "web"]).ok();
    let form = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let address = site.docker(&["inspect", "-f", form, "db2"]).ok();
    let seen = || site.docker(&["exec", "web", "cat", "/etc/hosts"]).ok();
    assert!(seen().contains(&format!("{}\tdb db2", address.trim())), "{}", seen());
    // Not to whoever has the old name now.
    site.docker(&["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).ok();
    site.docker(&["restart", "-t", "0", "web"]).ok();
    assert!(seen().contains(&format!("{}\tdb db2", address.trim())), "{}", seen());
    // A link to one that is gone keeps nobody from starting.
    site.docker(&["rm", "-f", "db2"]).ok();
    site.docker(&["stop", "-t", "0", "web"]).ok();
    site.docker(&["start", "web"]).ok();
    assert!(!seen().contains("db2"), "{}", seen());
}
