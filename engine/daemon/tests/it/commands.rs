//! The rest of the commands: copy, rename, pause, top, stats, restart, wait, prune, health.

use std::os::unix::fs::MetadataExt;

use crate::support::{Site, ask_with, clis, docker28, wait_until};

#[test]
fn files_are_copied_in_and_out_of_running_and_stopped_containers() {
    let site = Site::new();
    let local = site.dir.path().join("local");
    std::fs::create_dir_all(local.join("tree/sub")).unwrap();
    std::fs::write(local.join("tree/sub/file"), "copied\n").unwrap();
    std::os::unix::fs::symlink("sub/file", local.join("tree/link")).unwrap();
    let path = |name: &str| local.join(name).to_string_lossy().into_owned();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["create", "--name", "box", "-v", "vol:/var/data", "busybox", "sleep", "1000"]).ok();
        cli(&["cp", &path("tree"), "box:/tmp/"]).ok();
        // Of a volume that no start has filled yet, and of the image's files.
        cli(&["cp", "box:/etc/passwd", &path("passwd")]).ok();
        assert!(std::fs::read_to_string(local.join("passwd")).unwrap().contains("app:x:12"));
        cli(&["start", "box"]).ok();
        assert_eq!(cli(&["exec", "box", "cat", "/tmp/tree/link"]).ok(), "copied\n");
        cli(&["exec", "box", "sh", "-c", "echo inside > /var/data/new"]).ok();
        cli(&["cp", "box:/var/data", &path("out")]).ok();
        assert_eq!(std::fs::read_to_string(local.join("out/new")).unwrap(), "inside\n");
        assert_eq!(std::fs::metadata(local.join("out/seed")).unwrap().len(), 15);
        let missing = cli(&["cp", "box:/no/such", &path("x")]);
        assert!(missing.code != 0 && missing.stderr.contains("/no/such"), "{missing:?}");
        let archive = cli(&["cp", "box:/tmp/tree", "-"]).ok();
        assert!(archive.contains("tree/sub/file"));
        cli(&["rm", "-f", "box"]).ok();
        cli(&["volume", "rm", "vol"]).ok();
        std::fs::remove_dir_all(local.join("out")).unwrap();
    }
    assert_eq!(site.remains(), Vec::<String>::new());
}

#[test]
fn a_container_is_renamed_paused_looked_at_and_restarted() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let inspect = |form: &str| cli(&["inspect", "-f", form, "new"]).ok().trim().to_owned();
        cli(&["run", "-d", "--name", "old", "busybox", "sleep", "1000"]).ok();
        cli(&["rename", "old", "new"]).ok();
        assert_eq!(inspect("{{.Name}}"), "/new");
        assert!(cli(&["top", "new"]).ok().contains("sleep 1000"));
        cli(&["pause", "new"]).ok();
        assert_eq!(
            inspect("{{.State.Status}} {{.State.Running}} {{.State.Paused}}"),
            "paused true true"
        );
        assert!(cli(&["exec", "new", "true"]).stderr.contains("is paused"));
        cli(&["unpause", "new"]).ok();
        let stats = cli(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "new"]).ok();
        assert_eq!(stats.trim(), "new 1");
        let (pid, started) = (inspect("{{.State.Pid}}"), inspect("{{.State.StartedAt}}"));
        cli(&["restart", "-t", "0", "new"]).ok();
        assert_ne!(inspect("{{.State.Pid}}"), pid);
        assert_ne!(inspect("{{.State.StartedAt}}"), started);
        assert!(cli(&["diff", "new"]).ok().lines().all(|line| line.len() > 2));
        cli(&["rm", "-f", "new"]).ok();
    }
}

#[test]
fn waits_hear_of_the_end_and_restart_policies_count() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["run", "-d", "--name", "ends", "busybox", "sh", "-c", "read x; exit 5"]).ok();
    assert_eq!(cli(&["wait", "ends"]).ok(), "5\n");
    cli(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false"]).ok();
    assert_eq!(cli(&["wait", "again"]).ok(), "1\n");
    // As with Docker, a wait hears of the first end; the policy goes on to its own.
    wait_until("the last restart", || {
        let counted = cli(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]).ok();
        (counted == "2 exited\n").then_some(())
    });
    cli(&["run", "-d", "--name", "always", "--restart", "always", "busybox", "true"]).ok();
    wait_until("a restart", || {
        let count = cli(&["inspect", "-f", "{{.RestartCount}}", "always"]).ok();
        (count.trim().parse::<i64>().unwrap() >= 1).then_some(())
    });
    cli(&["stop", "always"]).ok();
    let status = cli(&["inspect", "-f", "{{.State.Status}}", "always"]).ok();
    assert_eq!(status, "exited\n");
}

#[test]
fn health_is_found_and_told() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&[
        "run",
        "-d",
        "--name",
        "sick",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "50ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let health = || cli(&["inspect", "-f", "{{.State.Health.Status}}", "sick"]).ok();
    let becomes = |wanted: &str| {
        wait_until(wanted, || (health().trim() == wanted).then_some(()));
    };
    becomes("unhealthy");
    assert!(cli(&["ps"]).ok().contains("(unhealthy)"));
    cli(&["exec", "sick", "touch", "/tmp/well"]).ok();
    becomes("healthy");
    let listed = cli(&["ps", "-q", "--filter", "health=healthy"]).ok();
    assert_eq!(listed.lines().count(), 1);
}

#[test]
fn prune_removes_what_nobody_uses() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["run", "--name", "done", "-v", "kept:/a", "-v", "/anonymous", "busybox", "true"]).ok();
    cli(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    cli(&["network", "create", "unused"]).ok();
    assert!(cli(&["container", "prune", "-f"]).ok().contains("Deleted Containers"));
    assert_eq!(cli(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "runs\n");
    cli(&["volume", "prune", "-f"]).ok();
    assert_eq!(
        cli(&["volume", "ls", "-q"]).ok(),
        "kept\n",
        "a volume with a name is somebody's data"
    );
    cli(&["network", "prune", "-f"]).ok();
    assert!(!cli(&["network", "ls"]).ok().contains("unused"));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let site = Site::new();
    for (words, reason) in [
        (vec!["--gpus", "all"], "DeviceRequests"),
        (vec!["--log-driver", "journald"], "journald"),
        (vec!["--security-opt", "seccomp=/dev/null"], "seccomp"),
        (vec!["--memory", "1m"], "6MB"),
        (vec!["-v", "relative/path:/x"], "invalid characters for a local volume name"),
        (vec!["--name", "bad/name"], "Invalid container name"),
        (vec!["-p", "80:80/sctp"], "sctp"),
    ] {
        let outcome = site.docker(&[&["create"], words.as_slice(), &["busybox"]].concat());
        assert!(outcome.code != 0 && outcome.stderr.contains(reason), "{words:?}: {outcome:?}");
    }
    assert_eq!(site.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(std::fs::read_dir(site.data().join("containers")).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(site.socket()).unwrap().mode() & 0o777, 0o660);
    let missing = site.cli(&docker28(), &["run", "--pull", "never", "nosuch:1"]);
    assert!(missing.code == 125 && missing.stderr.contains("No such image"), "{missing:?}");
}

#[test]
fn a_container_is_committed_by_both_clients_and_by_a_body_that_says_nothing() {
    let site = Site::new();
    site.docker(&["create", "--name", "box", "busybox", "true"]).ok();
    for docker in clis() {
        site.cli(&docker, &["commit", "box", "made"]).ok();
        site.cli(&docker, &["rmi", "made"]).ok();
    }
    let kind = ["Content-Type: application/json"];
    for body in ["null", "", "{}"] {
        let made = ask_with(&site, "POST", "/commit?container=box", &kind, body.as_bytes());
        assert_eq!(made.status, 201, "{body:?}: {}", made.text);
    }
}
