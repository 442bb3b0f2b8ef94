//! Terminals, attach and logs.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use crate::support::{Site, clis, wait_until};

#[test]
fn a_terminal_is_one_and_takes_its_size() {
    let site = Site::new();
    for docker in clis() {
        let at = |line: &str, input: &[u8]| site.at_terminal(&docker, line, input);
        assert!(at("$docker run -it --rm busybox tty", b"").ok().contains("/dev/pts/0"));
        // The older CLI says the size after the start: the container waits for it.
        let wait = "until stty size 2>/dev/null | grep";
        let run = "stty rows 33 cols 77; $docker run -it --rm busybox sh -c";
        let size = at(&format!("{run} '{wait} 33.77; do :; done'"), b"");
        assert!(size.code == 0 && size.stdout.contains("33 77"), "{size:?}");
        assert_eq!(at("$docker run -it --rm busybox sh -c 'exit 3'", b"").code, 3);
        site.cli(&docker, &["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
        let exec = "stty rows 22 cols 66; $docker exec -it box sh -c";
        let exec = at(&format!("{exec} 'tty; {wait} 22.66; do :; done; exit 4'"), b"");
        assert_eq!(exec.code, 4, "{exec:?}");
        assert!(exec.stdout.contains("/dev/pts/0") && exec.stdout.contains("22 66"), "{exec:?}");
        site.cli(&docker, &["rm", "-f", "box"]).ok();
    }
}

#[test]
fn the_end_of_input_ends_input_and_not_output() {
    let site = Site::new();
    for docker in clis() {
        let words =
            ["run", "-i", "--rm", "busybox", "sh", "-c", "wc -c; sleep 0.2; echo still here"];
        let outcome = site.command(&docker, &words, &vec![b'x'; 300_000]);
        assert_eq!(outcome.ok(), "300000\nstill here\n");
    }
}

#[test]
fn output_waits_for_a_reader_that_pauses() {
    let site = Site::new();
    let docker = &clis()[0];
    site.cli(docker, &["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let zeros = ["dd", "if=/dev/zero", "bs=1M", "count=20"];
    for words in [&["run", "--rm", "busybox"][..], &["exec", "box"]] {
        let mut child = site.spawn(docker, &[words, &zeros].concat());
        std::thread::sleep(Duration::from_secs(4));
        let mut stdout = child.stdout.take().unwrap();
        let read = std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert_eq!((read, child.wait().unwrap().code()), (20 << 20, Some(0)), "{words:?}");
    }
    // What is left when the process ends is read later too.
    let last = ["run", "--name", "left", "busybox", "dd", "if=/dev/zero", "bs=1k", "count=1500"];
    let mut child = site.spawn(docker, &last);
    let exited = ["inspect", "-f", "{{.State.Status}}", "left"];
    wait_until("its end", || (site.cli(docker, &exited).stdout == "exited\n").then_some(()));
    std::thread::sleep(Duration::from_secs(7));
    let mut stdout = child.stdout.take().unwrap();
    assert_eq!(std::io::copy(&mut stdout, &mut std::io::sink()).unwrap(), 1500 << 10);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    site.cli(docker, &["rm", "-f", "box", "left"]).ok();
}

#[test]
fn attach_joins_and_detaching_leaves_the_container_running() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let echo = "while read line; do echo got $line; done";
        cli(&["run", "-di", "--name", "echo", "busybox", "sh", "-c", echo]).ok();
        let mut attached = site.spawn(&docker, &["attach", "echo"]);
        let mut stdin = attached.stdin.take().unwrap();
        let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
        stdin.write_all(b"one\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got one");
        stdin.write_all(b"two\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got two");
        cli(&["kill", "echo"]).ok();
        assert_eq!(attached.wait().unwrap().code(), Some(137));
        cli(&["rm", "echo"]).ok();

        cli(&["run", "-dit", "--name", "term", "busybox", "sh"]).ok();
        let left = site.at_terminal(&docker, "$docker attach --detach-keys ctrl-x term", b"\x18");
        assert!(left.stdout.contains("read escape sequence"), "{left:?}");
        let running = cli(&["inspect", "-f", "{{.State.Running}}", "term"]).ok();
        assert_eq!(running, "true\n");
        cli(&["rm", "-f", "term"]).ok();
    }
}

#[test]
fn logs_are_followed_cut_and_stamped() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let say = "for i in 1 2 3; do echo out$i; done; read go; echo err >&2; read go; echo last";
        let words = ["run", "-i", "--name", "says", "busybox", "sh", "-c", say];
        let mut run = site.spawn(&docker, &words);
        let mut gate = run.stdin.take().unwrap();
        let logs_are = |stdout: &str, stderr: &str| {
            wait_until("the log", || {
                let logs = cli(&["logs", "says"]);
                (logs.stdout == stdout && logs.stderr == stderr).then_some(())
            });
        };
        logs_are("out1\nout2\nout3\n", "");
        let stamped = cli(&["logs", "-t", "--tail", "1", "says"]).ok();
        let (time, text) = stamped.trim_end().split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 30 && text == "out3", "{stamped}");
        gate.write_all(b"go\n").unwrap();
        logs_are("out1\nout2\nout3\n", "err\n");
        let tail = cli(&["logs", "--tail", "1", "says"]);
        assert_eq!((tail.stdout.as_str(), tail.stderr.as_str()), ("", "err\n"));
        let mut follow = site.spawn(&docker, &["logs", "-f", "--tail", "2", "says"]);
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "out3");
        gate.write_all(b"go\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "last");
        assert!(lines.next().is_none());
        assert!(follow.wait().unwrap().success() && run.wait().unwrap().success());
        let since = cli(&["logs", "--since", time, "says"]).ok();
        assert!(since.ends_with("out3\nlast\n"), "{since}");
        assert_eq!(cli(&["logs", "--until", "2001-01-01T00:00:00Z", "says"]).ok(), "");
        cli(&["rm", "says"]).ok();
    }
}

#[test]
fn a_rotated_log_is_read_whole() {
    let site = Site::new();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=50"];
    let words = [&["run", "--name", "much"], &options[..], &["busybox", "seq", "5000"]].concat();
    site.docker(&words).ok();
    let text = site.docker(&["logs", "much"]).ok();
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    let tail = site.docker(&["logs", "--tail", "1000", "much"]).ok();
    assert_eq!(tail.lines().next(), Some("4001"));
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "much"]).ok();
    let files = std::fs::read_dir(site.data().join("containers").join(id.trim())).unwrap();
    let logs = files
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("-json.log"));
    assert!(logs.count() > 5);
}
