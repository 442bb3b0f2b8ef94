//! Logs: drivers, rotation, packing, reading while they are written.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Site, clis, docker28, wait_until};

/// Numbered lines as fast as they go, then a pause.
const COUNT: &str =
    "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i of a service that talks; done";

fn numbers(text: &str) -> Vec<u32> {
    text.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn the_local_driver_rotates_packs_and_is_read_as_one() {
    let site = Site::new();
    let options =
        ["--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=20"];
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let hold = format!("{COUNT}; echo line 9999 at the end; sleep 1000");
        let run = ["run", "-d", "--name", "talks"];
        let id = cli(&[&run[..], &options, &["busybox", "sh", "-c", &hold]].concat()).ok();
        let folder = site.data().join("containers").join(id.trim());
        let packed = || {
            let names = std::fs::read_dir(&folder).unwrap().flatten();
            names.filter(|name| name.file_name().to_string_lossy().ends_with(".gz")).count()
        };
        wait_until("packed files", || (packed() >= 5).then_some(()));
        wait_until("the last line", || {
            cli(&["logs", "--tail", "1", "talks"]).ok().contains("9999").then_some(())
        });
        let all = numbers(&cli(&["logs", "talks"]).ok());
        let mut expected: Vec<u32> = (1..=4000).collect();
        expected.push(9999);
        assert_eq!(all, expected);
        let tail = numbers(&cli(&["logs", "--tail", "2500", "talks"]).ok());
        assert_eq!(tail, expected[expected.len() - 2500..]);
        let stamped = cli(&["logs", "-t", "--tail", "1500", "talks"]).ok();
        let since = stamped.lines().next().unwrap().split(' ').next().unwrap().to_owned();
        let later = numbers(&cli(&["logs", "--since", &since, "talks"]).ok());
        assert!(later.len() >= 1500 && expected.ends_with(&later), "{} lines", later.len());
        let form = "{{.HostConfig.LogConfig.Type}} {{.LogPath}}";
        assert_eq!(cli(&["inspect", "-f", form, "talks"]).ok(), "local \n");
        cli(&["rm", "-f", "talks"]).ok();
    }
}

#[test]
fn a_follower_gets_every_line_through_rotation_and_a_restart_of_the_container() {
    let site = Site::new();
    let options =
        ["--log-opt", "max-size=30k", "--log-opt", "max-file=30", "--log-opt", "compress=true"];
    let words = [&["create", "--name", "talks"], &options[..], &["busybox", "sh", "-c", COUNT]];
    site.docker(&words.concat()).ok();
    for round in 1..=2 {
        site.docker(&["start", "talks"]).ok();
        let followed = site.docker(&["logs", "-f", "talks"]).ok();
        let expected: Vec<u32> = (0..round).flat_map(|_| 1..=4000).collect();
        assert_eq!(numbers(&followed), expected, "round {round}");
    }
}

/// How long ten commands take in a container.
fn time_of_execs(site: &Site, container: &str) -> Duration {
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(site.docker(&["exec", container, "echo", "well"]).ok(), "well\n");
    }
    begun.elapsed()
}

#[test]
fn a_flood_slows_nobody_else_and_stays_within_its_files() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "calm", "busybox", "sleep", "1000"]).ok();
    let alone = time_of_execs(&site, "calm");
    let flood = "while true; do echo a line of a service that floods its log; done";
    let options = ["--log-opt", "max-size=200k", "--log-opt", "max-file=2", "--cpus", "0.5"];
    let words = ["run", "-d", "--name", "floods", "--log-driver", "local"];
    let id = site.docker(&[&words[..], &options, &["busybox", "sh", "-c", flood]].concat()).ok();
    let mut follower = site.spawn(&docker28(), &["logs", "-f", "floods"]);
    // Nobody reads what the follower says: it must hold nobody up either.
    let beside = time_of_execs(&site, "calm");
    // The flood has half a processor, and whatever else runs here may begin meanwhile.
    let most = alone * 10 + Duration::from_secs(20);
    assert!(beside < most, "ten commands took {alone:?} alone and {beside:?} beside a flood");
    let folder = site.data().join("containers").join(id.trim());
    let names = || std::fs::read_dir(&folder).unwrap().flatten();
    let size: u64 = wait_until("rotation", || {
        let logs =
            names().filter(|entry| entry.file_name().to_string_lossy().contains("-local.log"));
        let logs: Vec<u64> = logs.filter_map(|log| Some(log.metadata().ok()?.len())).collect();
        (logs.len() > 1).then(|| logs.iter().sum())
    });
    assert!(size < 700 << 10, "{size} bytes of logs");
    site.docker(&["kill", "floods"]).ok();
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// How long `docker logs` takes; `None` if it has not ended within a minute.
fn time_of_logs(site: &Site, words: &[&str]) -> Option<Duration> {
    let begun = Instant::now();
    let mut reader = site.spawn(&docker28(), &[&["logs"], words].concat());
    let mut said = reader.stdout.take().unwrap();
    let taker = std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    while !taker.is_finished() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let taken = taker.is_finished().then(|| begun.elapsed());
    let _ = reader.kill();
    reader.wait().unwrap();
    taken
}

#[test]
fn logs_end_though_the_container_writes_faster_than_they_are_read() {
    let site = Site::new();
    for driver in ["json-file", "local"] {
        let options = ["--log-driver", driver, "--log-opt", "max-size=5m"];
        let files = ["--log-opt", "max-file=2", "busybox", "busybox", "yes"];
        let words = ["run", "-d", "--name", driver];
        site.docker(&[&words[..], &options, &files].concat()).ok();
        let some = || site.docker(&["logs", "--tail", "1000", driver]).ok();
        wait_until("output", || (some() == "y\n".repeat(1000)).then_some(()));
        for more in [&[][..], &["-t"], &["--tail", "100000"]] {
            let words = [more, &[driver]].concat();
            assert!(time_of_logs(&site, &words).is_some(), "docker logs {words:?} goes on and on");
        }
        site.docker(&["rm", "-f", driver]).ok();
    }
}

#[test]
fn a_torn_last_line_is_dropped_and_the_log_goes_on() {
    let site = Site::new();
    for (driver, torn) in
        [("json-file", &b"{\"log\":\"to"[..]), ("local", &b"\x50\0\0\0\0torn"[..])]
    {
        let words =
            ["run", "-d", "--name", driver, "--log-driver", driver, "busybox", "echo", "whole"];
        let id = site.docker(&words).ok();
        site.docker(&["wait", driver]).ok();
        let ending = if driver == "local" { "local" } else { "json" };
        let name = format!("{}-{ending}.log", id.trim());
        let log = site.data().join("containers").join(id.trim()).join(name);
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        std::io::Write::write_all(&mut file, torn).unwrap();
        assert_eq!(site.docker(&["logs", driver]).ok(), "whole\n");
        assert_eq!(site.docker(&["logs", "--tail", "5", driver]).ok(), "whole\n");
        site.docker(&["start", driver]).ok();
        site.docker(&["wait", driver]).ok();
        assert_eq!(site.docker(&["logs", driver]).ok(), "whole\nwhole\n");
    }
}

#[test]
fn lines_are_marked_with_labels_variables_and_a_tag() {
    let site = Site::new();
    let options = ["--log-opt", "labels=team", "--log-opt", "env-regex=^LOG_", "--log-opt"];
    let words = ["run", "--name", "cc", "-l", "team=a b", "-l", "x=y", "-e", "LOG_LEVEL=1,2"];
    let said = ["tag={{.ImageName}}/{{.Name}}", "busybox", "echo", "said"];
    site.docker(&[&words[..], &options, &said].concat()).ok();
    let logs = |more: &[&str]| site.docker(&[&["logs"], more, &["cc"]].concat()).ok();
    assert_eq!(logs(&[]), "said\n");
    assert_eq!(logs(&["--details"]), "LOG_LEVEL=1%2C2,tag=busybox%2Fcc,team=a+b said\n");
    let path = site.docker(&["inspect", "-f", "{{.LogPath}}", "cc"]).ok();
    let line: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path.trim()).unwrap()).unwrap();
    assert_eq!(line["attrs"]["team"], "a b");
    let bad = site.docker(&["create", "--log-opt", "tag={{.Nothing}}", "busybox"]);
    assert!(bad.stderr.contains(".Nothing"), "{bad:?}");
    let bad = site.docker(&["create", "--log-driver", "asdf", "busybox"]);
    assert!(bad.stderr.contains("no log driver named 'asdf' is registered"), "{bad:?}");
}

/// The process that writes a container's log, if it is not the shim itself.
fn log_writer(site: &Site, container: &str) -> Option<Pid> {
    let id = site.docker(&["inspect", "-f", "{{.Id}}", container]).ok();
    let dir = site.data().join("containers").join(id.trim()).join("shim");
    let text = std::fs::read_to_string(dir.join("shim.pid")).unwrap();
    let shim = text.split(' ').next().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let command = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let own = command(shim);
    let found = children.split_whitespace().find(|pid| command(pid) == own)?;
    Pid::from_raw(found.parse().unwrap())
}

#[test]
fn a_log_that_does_not_block_drops_whole_lines_while_its_disk_stands_still() {
    let site = Site::new();
    let talk = "say() { k=$((i+$1)); while [ $i -lt $k ]; do i=$((i+1)); echo line $i of a service; done; }; \
                i=0; say 4000; until [ -e /dev/shm/go ]; do sleep 0.1; done; say 40000; \
                touch /dev/shm/done; sleep 1000";
    let options = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"];
    let words = [&["run", "-d", "--name", "talks"], &options[..], &["busybox", "sh", "-c", talk]];
    site.docker(&words.concat()).ok();
    let logged = || numbers(&site.docker(&["logs", "talks"]).ok());
    // As long as the disk is fast enough nothing is lost.
    wait_until("the first lines", || (logged().len() == 4000).then_some(()));
    // A writer that is stopped is one whose disk does not answer.
    let writer = log_writer(&site, "talks").unwrap();
    kill_process(writer, Signal::STOP).unwrap();
    site.docker(&["exec", "talks", "touch", "/dev/shm/go"]).ok();
    wait_until("the rest of the program", || {
        let done = site.docker(&["exec", "talks", "test", "-e", "/dev/shm/done"]);
        (done.code == 0).then_some(())
    });
    assert_eq!(logged().len(), 4000);
    kill_process(writer, Signal::CONT).unwrap();
    wait_until("what the buffer held", || (logged().len() > 4000).then_some(()));
    let kept = logged();
    assert!(kept.len() < 44_000 && kept.is_sorted(), "{} lines", kept.len());
    // One that is killed is replaced, and at the end of the container all that it has said is there.
    kill_process(writer, Signal::KILL).unwrap();
    site.docker(&["exec", "talks", "sh", "-c", "echo line 50000 of another > /proc/1/fd/1"]).ok();
    site.docker(&["stop", "-t", "0", "talks"]).ok();
    assert_eq!(logged().last(), Some(&50_000));
    let alone = site.docker(&["create", "--log-opt", "max-buffer-size=1m", "busybox"]);
    assert!(alone.stderr.contains("mode=non-blocking"), "{alone:?}");
}

#[test]
fn a_container_without_a_log_is_heard_by_who_is_attached_and_keeps_nothing() {
    let site = Site::new();
    let say = ["busybox", "sh", "-c", "echo shown; echo wrong >&2"];
    let words = ["run", "--name", "quiet", "--log-driver", "none"];
    let said = site.docker(&[&words[..], &say].concat());
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("shown\n", "wrong\n"));
    let logs = site.docker(&["logs", "quiet"]);
    assert_eq!((logs.code, logs.stdout.as_str()), (1, ""), "{logs:?}");
    let why = "configured logging driver does not support reading";
    assert!(logs.stderr.contains(why), "{logs:?}");
    assert_eq!(site.docker(&["inspect", "-f", "{{.LogPath}}", "quiet"]).ok(), "\n");
    let logs_of = |name: &str| -> Vec<String> {
        let id = site.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
        let entries = std::fs::read_dir(site.data().join("containers").join(id.trim())).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("log")).collect()
    };
    assert_eq!(logs_of("quiet"), Vec::<String>::new());
    site.docker(&[&["run", "--name", "kept"], &say[..]].concat()).ok();
    assert_eq!(logs_of("kept").len(), 1, "by default there is one");
}
