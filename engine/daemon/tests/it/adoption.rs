//! A container, its port and its names outlive the daemon; a new daemon takes over.

use std::time::{Duration, Instant};

use minke_engine_client::WaitFor;
use minke_engine_shim::cgroup::{self, Freezer};
use minke_engine_shim::identity;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Site, wait_until};

const SERVE: &str = "while true; do echo served | nc -l -p 80; done";

#[test]
fn what_runs_goes_on_without_a_daemon_and_is_adopted_by_the_next() {
    let mut site = Site::new();
    site.docker(&["network", "create", "team"]).ok();
    site.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "team",
        "-p",
        "18100:80",
        "busybox",
        "sh",
        "-c",
        SERVE,
    ])
    .ok();
    let asks = "while true; do ping -c1 -W2 web >/dev/null && echo reached; sleep 0.1; done";
    site.docker(&[
        "run",
        "-di",
        "--name",
        "asks",
        "--network",
        "team",
        "busybox",
        "sh",
        "-c",
        asks,
    ])
    .ok();
    wait_until("the port", || site.say_of_port("127.0.0.1", 18100));
    let form = "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let before = site.docker(&["inspect", "-f", form, "web"]).ok();
    let log = log_of(&site, "asks");
    site.kill_engine();

    let said = wait_until("the port", || site.say_of_port("127.0.0.1", 18100));
    assert_eq!(said, "served");
    let length = std::fs::metadata(&log).unwrap().len();
    wait_until("a name that resolves while no daemon runs", || {
        (std::fs::metadata(&log).unwrap().len() > length).then_some(())
    });

    site.start_engine();
    assert_eq!(site.docker(&["inspect", "-f", form, "web"]).ok(), before);
    let said = wait_until("the port", || site.say_of_port("127.0.0.1", 18100));
    assert_eq!(said, "served");
    assert_eq!(site.docker(&["exec", "web", "echo", "hello"]).ok(), "hello\n");
    assert_eq!(site.docker(&["ps", "-q"]).ok().lines().count(), 2);
    assert_eq!(site.docker(&["port", "web"]).ok().trim(), "80/tcp -> 0.0.0.0:18100");
    site.docker(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(site.docker(&["wait", "web"]).ok(), "137\n");
    assert_eq!(site.say_of_port("127.0.0.1", 18100), None);
    site.docker(&["rm", "-f", "web", "asks"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
}

fn log_of(site: &Site, name: &str) -> String {
    site.docker(&["inspect", "-f", "{{.LogPath}}", name]).ok().trim().to_owned()
}

#[test]
fn an_end_without_a_daemon_is_collected_with_its_code_and_time() {
    let mut site = Site::new();
    let on_signal = "trap 'exit 42' TERM; echo ready; while true; do sleep 0.05; done";
    for (name, policy) in [("ends", "no"), ("returns", "always")] {
        site.docker(&[
            "run",
            "-d",
            "--name",
            name,
            "--restart",
            policy,
            "busybox",
            "sh",
            "-c",
            on_signal,
        ])
        .ok();
        wait_until("the trap", || (site.docker(&["logs", name]).stdout == "ready\n").then_some(()));
    }
    site.docker(&["run", "-d", "--rm", "--name", "vanishes", "busybox", "sh", "-c", on_signal])
        .ok();
    wait_until("the trap", || {
        (site.docker(&["logs", "vanishes"]).stdout == "ready\n").then_some(())
    });
    let pids = ["ends", "returns", "vanishes"].map(|name| {
        let pid = site.docker(&["inspect", "-f", "{{.State.Pid}}", name]).ok();
        pid.trim().parse::<i32>().unwrap()
    });
    let shims = ["ends", "returns", "vanishes"].map(|name| shim_pid(&site, name));
    site.kill_engine();
    for pid in pids {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }
    for shim in &shims {
        wait_until("the shim's end", || (!identity::is_alive(shim)).then_some(()));
    }

    site.start_engine();
    let form = "{{.State.Status}} {{.State.ExitCode}}";
    assert_eq!(site.docker(&["inspect", "-f", form, "ends"]).ok(), "exited 42\n");
    wait_until("the restart", || {
        let state =
            site.docker(&["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", "returns"]);
        (state.stdout == "true 1\n").then_some(())
    });
    wait_until("the removal", || (site.docker(&["inspect", "vanishes"]).code == 1).then_some(()));
}

fn shim_pid(site: &Site, name: &str) -> String {
    let id = site.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    let path = site.data().join("containers").join(id.trim()).join("shim/shim.pid");
    std::fs::read_to_string(path).unwrap()
}

fn signal_shim(shim: &str, signal: Signal) {
    let (pid, _) = identity::parse(shim).unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn a_killed_shim_takes_its_container_with_it_and_nothing_stays() {
    let mut site = Site::new();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sh", "-c", "sleep 1000 & sleep 1000"])
        .ok();
    signal_shim(&shim_pid(&site, "box"), Signal::KILL);
    assert_eq!(site.docker(&["wait", "box"]).ok(), "137\n");
    assert_eq!(site.remains(), Vec::<String>::new());

    // The same while no daemon is there to see it.
    site.docker(&["start", "box"]).ok();
    let shim = shim_pid(&site, "box");
    site.kill_engine();
    signal_shim(&shim, Signal::KILL);
    site.start_engine();
    let form = "{{.State.Status}} {{.State.ExitCode}}";
    assert_eq!(site.docker(&["inspect", "-f", form, "box"]).ok(), "exited 137\n");
    assert_eq!(site.remains(), Vec::<String>::new());
}

/// Makes a container stand still as a daemon does that then dies without having said so.
fn freeze(site: &Site, id: &str) {
    let shim = site.data().join("containers").join(id).join("shim");
    let directories = cgroup::listed(&shim);
    let freezer = directories.iter().find_map(|directory| Freezer::of(directory)).unwrap();
    freezer.set(true).unwrap();
    wait_until("a still container", || freezer.is_frozen().then_some(()));
}

#[test]
fn what_stands_still_and_is_not_known_to_be_paused_goes_on_and_can_be_killed() {
    let mut site = Site::new();
    let [left, killed, removed, _] = ["left", "killed", "removed", "paused"].map(|name| {
        let words = ["run", "-d", "--name", name, "busybox", "sleep", "1000"];
        site.docker(&words).ok().trim().to_owned()
    });
    site.docker(&["pause", "paused"]).ok();
    site.kill_engine();
    freeze(&site, &left);
    site.start_engine();
    assert_eq!(site.docker(&["exec", "left", "echo", "alive"]).ok(), "alive\n");
    let status = site.docker(&["inspect", "-f", "{{.State.Status}}", "paused"]).ok();
    assert_eq!(status, "paused\n", "what was paused stays so");
    // The same under the daemon that knows nothing of it.
    freeze(&site, &killed);
    site.docker(&["kill", "killed"]).ok();
    freeze(&site, &removed);
    site.docker(&["rm", "-f", "removed"]).ok();
}

#[test]
fn execs_and_their_codes_outlive_the_daemon() {
    let mut site = Site::new();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let client = site.client();
    let wait_file = "while ! test -e /tmp/go; do sleep 0.05; done; exit 6";
    let mut exec = site.spawn(&crate::support::docker28(), &["exec", "box", "sh", "-c", wait_file]);
    let id = wait_until("the exec", || {
        let ids = site.docker(&["inspect", "-f", "{{range .ExecIDs}}{{.}}{{end}}", "box"]).ok();
        (ids.trim().len() == 64).then(|| ids.trim().to_owned())
    });
    site.kill_engine();
    exec.wait().unwrap();
    site.start_engine();
    let inspect = || site.block_on(client.inspect_exec(&id)).unwrap();
    assert!(inspect().running);
    site.docker(&["exec", "box", "touch", "/tmp/go"]).ok();
    let ended = wait_until("the exec's end", || Some(inspect()).filter(|exec| !exec.running));
    assert_eq!(ended.exit_code, Some(6));
}

#[test]
fn a_stopped_container_stays_stopped_and_a_reboot_starts_what_should_run() {
    let mut site = Site::new();
    let sleep = ["busybox", "sleep", "1000"];
    for (name, policy) in [("unless", "unless-stopped"), ("always", "always"), ("never", "no")] {
        let words = [&["run", "-d", "--name", name, "--restart", policy], &sleep[..]].concat();
        site.docker(&words).ok();
    }
    site.docker(&["stop", "-t", "0", "unless"]).ok();
    site.stop_engine();
    // A reboot: every process gone, and another boot id in what is known.
    for entry in std::fs::read_dir(site.data().join("containers")).unwrap() {
        let dir = entry.unwrap().path();
        let directories = cgroup::listed(&dir.join("shim"));
        let shim = std::fs::read_to_string(dir.join("shim/shim.pid")).unwrap();
        if let Some((pid, _)) = identity::parse(&shim).filter(|_| identity::is_alive(&shim)) {
            kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        }
        cgroup::kill_and_remove(&directories, Duration::from_secs(5)).unwrap();
        let path = dir.join("state.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(text.contains(boot.trim()));
        // Without the line that says the checksum, as engines once wrote it.
        let (_, json) = text.split_once('\n').unwrap();
        std::fs::write(&path, json.replace(boot.trim(), "an-earlier-boot")).unwrap();
    }
    site.start_engine();
    let status = |name: &str| site.docker(&["inspect", "-f", "{{.State.Status}}", name]).ok();
    wait_until("the start of what always runs", || (status("always") == "running\n").then_some(()));
    assert_eq!(status("unless"), "exited\n");
    assert_eq!(status("never"), "exited\n");
    let code = site.block_on(site.client().wait("never", WaitFor::NotRunning)).unwrap();
    assert_eq!(code, 137);
}

const POLICIES: [&str; 3] = ["unless-stopped", "on-failure", "always"];

/// Stops the containers that are named as their policies, and kills the engine before they have ended.
fn kill_in_a_stop(site: &mut Site, earlier: usize) {
    let asked = |site: &Site, name: &str| {
        let log = site.docker(&["logs", name]).ok();
        log.lines().filter(|line| *line == "asked").count()
    };
    let docker = crate::support::docker28();
    let stops = POLICIES.map(|name| {
        let stop = site.spawn(&docker, &["stop", "-t", "100", name]);
        wait_until("the signal", || (asked(site, name) == earlier + 1).then_some(()));
        stop
    });
    site.kill_engine();
    for mut stop in stops {
        stop.wait().unwrap();
    }
}

#[test]
fn a_stop_that_the_engine_did_not_outlive_is_not_forgotten() {
    let mut site = Site::new();
    let out = site.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let (go, volume) = (out.join("go"), format!("{}:/out", out.display()));
    let script = "trap 'echo asked; while ! test -e /out/go; do sleep 0.05; done; exit 3' TERM; \
                  echo ready; while true; do sleep 0.05; done";
    let ready = |site: &Site, name: &str, times: usize| {
        wait_until("the trap", || {
            let log = site.docker(&["logs", name]).ok();
            (log.lines().filter(|line| *line == "ready").count() == times).then_some(())
        });
    };
    for policy in POLICIES {
        let words = ["run", "-d", "--name", policy, "--restart", policy, "-v", &volume, "busybox"];
        site.docker(&[&words[..], &["sh", "-c", script]].concat()).ok();
        ready(&site, policy, 1);
    }
    let form = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    let state = |site: &Site, name: &str| site.docker(&["inspect", "-f", form, name]).ok();

    // They end before the next engine starts.
    let shims = POLICIES.map(|name| shim_pid(&site, name));
    kill_in_a_stop(&mut site, 0);
    std::fs::write(&go, "").unwrap();
    for shim in &shims {
        wait_until("the shim's end", || (!identity::is_alive(shim)).then_some(()));
    }
    std::fs::remove_file(&go).unwrap();
    site.start_engine();
    assert_eq!(state(&site, "unless-stopped"), "exited 3 0\n");
    assert_eq!(state(&site, "on-failure"), "exited 3 0\n");
    site.docker(&["start", "unless-stopped", "on-failure"]).ok();
    // What always runs is started with the engine.
    POLICIES.iter().for_each(|policy| ready(&site, policy, 2));

    // They end under the next engine.
    kill_in_a_stop(&mut site, 1);
    site.start_engine();
    std::fs::write(&go, "").unwrap();
    for policy in POLICIES {
        wait_until("an end", || (state(&site, policy) == "exited 3 0\n").then_some(()));
    }
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "unless-stopped"]).ok();
    site.kill_engine();

    // The engine was killed in a stop before it had given a restart up.
    let path = site.data().join("containers").join(id.trim()).join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut known: serde_json::Value =
        serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    known["status"] = serde_json::json!("restarting");
    std::fs::write(&path, known.to_string()).unwrap();
    site.start_engine();
    assert_eq!(state(&site, "unless-stopped"), "exited 3 0\n");
}

#[test]
fn a_signal_that_was_ignored_keeps_no_policy_from_restarting() {
    let mut site = Site::new();
    for policy in POLICIES {
        let run = ["run", "-d", "--name", policy, "--restart", policy, "busybox", "sh", "-c"];
        let script = "trap '' TERM; while true; do sleep 0.05; done";
        site.docker(&[&run[..], &[script]].concat()).ok();
        site.docker(&["kill", "-s", "TERM", policy]).ok();
    }
    site.kill_engine();
    site.start_engine();
    let shown =
        |site: &Site, name: &str, form: &str| site.docker(&["inspect", "-f", form, name]).ok();
    for policy in POLICIES {
        let pid = shown(&site, policy, "{{.State.Pid}}").trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    for policy in POLICIES {
        wait_until("a restart", || {
            let state = shown(&site, policy, "{{.State.Running}} {{.RestartCount}}");
            (state == "true 1\n").then_some(())
        });
    }
}

/// Makes the shim of a container stand still; what it is.
fn stand_still(site: &Site, name: &str) -> String {
    let shim = shim_pid(site, name);
    signal_shim(&shim, Signal::STOP);
    shim
}

#[test]
fn a_shim_that_stands_still_keeps_nobody_from_ending_its_container() {
    let site = Site::new();
    let ends: [&[&str]; 3] = [&["kill"], &["rm", "-f"], &["stop", "-t", "1"]];
    let names = ["killed", "removed", "stopped"];
    for name in names {
        site.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
        stand_still(&site, name);
    }
    std::thread::scope(|scope| {
        for (name, words) in names.into_iter().zip(ends) {
            let site = &site;
            scope.spawn(move || {
                let begin = Instant::now();
                site.docker(&[words, &[name]].concat()).ok();
                // A stop asks twice: first to end, then to be killed.
                let limit = if name == "stopped" { 30 } else { 25 };
                let took = begin.elapsed();
                assert!(took < Duration::from_secs(limit), "{name}: {took:?}");
            });
        }
    });
    let form = "{{.State.Status}} {{.State.ExitCode}}";
    for name in ["killed", "stopped"] {
        assert_eq!(site.docker(&["inspect", "-f", form, name]).ok(), "exited 137\n");
    }
    assert_eq!(site.docker(&["inspect", "removed"]).code, 1);
    assert_eq!(site.remains(), Vec::<String>::new());
    site.docker(&["start", "killed"]).ok();
    assert_eq!(site.docker(&["exec", "killed", "echo", "alive"]).ok(), "alive\n");
}

#[test]
fn an_engine_starts_beside_a_shim_that_stands_still_and_takes_it_over_when_it_goes_on() {
    let mut site = Site::new();
    for name in ["later", "ended", "other"] {
        site.docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let [later, _] = ["later", "ended"].map(|name| stand_still(&site, name));
    site.kill_engine();
    let begin = Instant::now();
    site.start_engine();
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    assert_eq!(site.docker(&["ps", "-q"]).ok().lines().count(), 3);
    assert_eq!(site.docker(&["exec", "other", "echo", "alive"]).ok(), "alive\n");
    site.docker(&["rm", "-f", "ended"]).ok();
    signal_shim(&later, Signal::CONT);
    wait_until("the taking over", || {
        let said = site.docker(&["exec", "later", "echo", "alive"]);
        (said.stdout == "alive\n").then_some(())
    });
    let begin = Instant::now();
    site.docker(&["stop", "-t", "0", "later"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    assert_eq!(site.docker(&["wait", "later"]).ok(), "137\n");
    site.docker(&["rm", "-f", "later", "other"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
}
