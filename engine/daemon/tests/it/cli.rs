//! What people do every day, with both CLIs.

use crate::support::{IMAGE, Site, clis, wait_until};

#[test]
fn run_says_output_and_exit_code_and_leaves_nothing() {
    let site = Site::new();
    for docker in clis() {
        let run =
            |words: &[&str]| site.cli(&docker, &[&["run", "--rm", "busybox"], words].concat());
        assert_eq!(run(&["echo", "hello"]).ok(), "hello\n");
        let both = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (7, "out\n", "err\n"));
        let missing = run(&["nosuch"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        assert!(missing.stderr.contains("executable file not found in $PATH"), "{missing:?}");
        assert_eq!(run(&["/etc"]).code, 126);
        assert_eq!(site.cli(&docker, &["ps", "-aq"]).ok(), "");
    }
    assert_eq!(site.remains(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(site.data().join("containers")).unwrap().count(), 0);
}

#[test]
fn a_detached_container_is_listed_reached_read_stopped_and_removed() {
    let site = Site::new();
    for (docker, port) in clis().into_iter().zip([18080u16, 18081]) {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let publish = format!("{port}:80");
        let serve = "echo ready; while true; do echo served | nc -l -p 80; done";
        let id = cli(&[
            "run", "-d", "--name", "web", "-p", &publish, "--label", "team=a", "busybox", "sh",
            "-c", serve,
        ])
        .ok();
        let id = id.trim();
        assert_eq!(cli(&["ps", "-q", "--no-trunc", "--filter", "label=team=a"]).ok().trim(), id);
        assert_eq!(cli(&["ps", "-q", "--filter", "label=team=b"]).ok(), "");
        assert_eq!(
            cli(&["ps", "-q", "--filter", "name=^/web$", "--filter", "status=running"]).ok().trim(),
            &id[..12]
        );
        assert_eq!(cli(&["port", "web"]).ok().trim(), format!("80/tcp -> 0.0.0.0:{port}"));
        let said = wait_until("the published port", || site.say_of_port("127.0.0.1", port));
        assert_eq!(said, "served");
        assert_eq!(cli(&["logs", "web"]).ok(), "ready\n");
        let inspect = |form: &str| cli(&["inspect", "-f", form, "web"]).ok().trim().to_owned();
        assert_eq!(inspect("{{.State.Running}} {{.Config.Image}} {{.Name}}"), "true busybox /web");
        assert_ne!(inspect("{{.NetworkSettings.IPAddress}}"), "");
        let refused = cli(&["rm", "web"]);
        assert!(refused.code == 1 && refused.stderr.contains("is running"), "{refused:?}");
        assert_eq!(cli(&["stop", "-t", "0", "web"]).ok().trim(), "web");
        assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
        assert_eq!(site.say_of_port("127.0.0.1", port), None);
        cli(&["rm", "web"]).ok();
        let gone = cli(&["inspect", "web"]);
        assert!(gone.code == 1 && gone.stderr.contains("No such"), "{gone:?}");
    }
}

#[test]
fn exec_runs_in_the_container_with_its_own_settings() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["run", "-d", "--name", "box", "-e", "A=1", "busybox", "sleep", "1000"]).ok();
        assert_eq!(cli(&["exec", "box", "sh", "-c", "exit 9"]).code, 9);
        assert_eq!(cli(&["exec", "-e", "B=2", "box", "sh", "-c", "echo $A$B"]).ok(), "12\n");
        assert_eq!(
            cli(&["exec", "-u", "app", "-w", "/var", "box", "sh", "-c", "id -u; pwd"]).ok(),
            "12\n/var\n"
        );
        let echoed = site.command(&docker, &["exec", "-i", "box", "cat"], b"through stdin\n");
        assert_eq!(echoed.ok(), "through stdin\n");
        let missing = cli(&["exec", "box", "nosuch"]);
        assert_eq!(missing.code, 127, "{missing:?}");
        cli(&["exec", "-d", "box", "touch", "/tmp/made"]).ok();
        wait_until("what the detached exec makes", || {
            (cli(&["exec", "box", "ls", "/tmp/made"]).code == 0).then_some(())
        });
        cli(&["kill", "box"]).ok();
        let stopped = cli(&["exec", "box", "true"]);
        assert!(stopped.code == 1 && stopped.stderr.contains("is not running"), "{stopped:?}");
        cli(&["rm", "box"]).ok();
    }
}

#[test]
fn images_are_listed_tagged_inspected_and_removed() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let id = cli(&["images", "-q", "--no-trunc", IMAGE]).ok();
        assert!(id.starts_with("sha256:"), "{id}");
        cli(&["tag", "busybox", "other/name:v1"]).ok();
        let rows = cli(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
        assert!(rows.contains("busybox:latest") && rows.contains("other/name:v1"), "{rows}");
        assert_eq!(
            cli(&["inspect", "-f", "{{index .Config.Labels \"made-by\"}}", "other/name:v1"]).ok(),
            "test\n"
        );
        assert!(cli(&["history", "busybox"]).ok().contains("test"));
        cli(&["create", "--name", "holder", "busybox"]).ok();
        assert!(cli(&["rmi", "other/name:v1"]).ok().contains("Untagged: other/name:v1"));
        let used = cli(&["rmi", "busybox"]);
        assert!(used.code == 1 && used.stderr.contains("conflict"), "{used:?}");
        cli(&["rm", "holder"]).ok();
        let missing = cli(&["inspect", "--type", "image", "nosuch"]);
        assert_eq!(missing.code, 1);
    }
    site.docker(&["rmi", "busybox"]).ok();
    assert_eq!(site.docker(&["images", "-aq"]).ok(), "");
}

#[test]
fn what_happens_is_told_in_order() {
    let site = Site::new();
    for docker in clis() {
        let since = site.docker(&["info", "-f", "{{.SystemTime}}"]).ok();
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["run", "-d", "--name", "told", "busybox", "sleep", "1000"]).ok();
        cli(&["stop", "-t", "0", "told"]).ok();
        cli(&["rm", "told"]).ok();
        let mut watch = site.spawn(
            &docker,
            &[
                "events",
                "--since",
                since.trim(),
                "--filter",
                "container=told",
                "--format",
                "{{.Action}}",
            ],
        );
        let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
        let actions: Vec<String> = lines.map(Result::unwrap).take(7).collect();
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert_eq!(actions, ["create", "start", "kill", "kill", "die", "stop", "destroy"]);
    }
}

#[test]
fn system_calls_answer_both_clis() {
    let site = Site::new();
    for docker in clis() {
        let version = site.cli(&docker, &["version", "-f", "{{.Server.APIVersion}}"]);
        assert_eq!(version.ok().trim(), "1.47");
        let driver = site.cli(&docker, &["info", "-f", "{{.Driver}} {{.LoggingDriver}}"]);
        assert_eq!(driver.ok().trim(), "overlay2 json-file");
        let plugins = site.cli(&docker, &["info", "-f", "{{.Plugins.Network}} {{.Plugins.Log}}"]);
        let known = "[bridge host ipvlan macvlan null] [json-file local none]";
        assert_eq!(plugins.ok().trim(), known);
        assert!(site.cli(&docker, &["system", "df"]).ok().contains("Images"));
    }
}
