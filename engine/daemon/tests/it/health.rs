//! Health checks and restarts, also across daemons.

use crate::support::{Site, ask, wait_until};

const FORM: &str = "{{.State.Health.Status}}";

fn becomes(site: &Site, name: &str, status: &str) {
    wait_until(status, || {
        (site.docker(&["inspect", "-f", FORM, name]).ok().trim() == status).then_some(())
    });
}

#[test]
fn checks_go_on_under_the_next_daemon() {
    let mut site = Site::new();
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms"];
    let name = ["run", "-d", "--name", "app", "--health-retries", "2"];
    site.docker(&[&name[..], &check, &["busybox", "sleep", "1000"]].concat()).ok();
    site.docker(&["exec", "app", "touch", "/tmp/well"]).ok();
    becomes(&site, "app", "healthy");
    site.kill_engine();
    site.start_engine();
    assert_eq!(site.docker(&["inspect", "-f", FORM, "app"]).ok(), "healthy\n");
    site.docker(&["exec", "app", "rm", "/tmp/well"]).ok();
    becomes(&site, "app", "unhealthy");
    site.docker(&["exec", "app", "touch", "/tmp/well"]).ok();
    becomes(&site, "app", "healthy");
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_counts_as_a_failure() {
    let site = Site::new();
    let check =
        ["--health-cmd", "sleep 4321", "--health-timeout", "200ms", "--health-interval", "50ms"];
    let name = ["run", "-d", "--name", "app", "--health-retries", "2"];
    site.docker(&[&name[..], &check, &["busybox", "sleep", "1000"]].concat()).ok();
    becomes(&site, "app", "unhealthy");
    let form = "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}";
    let said = site.docker(&["inspect", "-f", form, "app"]).ok();
    assert!(said.starts_with("-1 Health check exceeded timeout"), "{said}");
    // One may be running now; those before it are gone.
    wait_until("a short list of processes", || {
        let top = site.docker(&["top", "app"]).ok();
        (top.lines().filter(|line| line.contains("sleep 4321")).count() <= 2).then_some(())
    });
}

#[test]
fn a_start_period_forgives_and_its_own_interval_finds_the_start_soon() {
    let site = Site::new();
    let check =
        ["--health-cmd", "test -e /tmp/well", "--health-interval", "10m", "--health-retries", "1"];
    let start = ["--health-start-period", "5m", "--health-start-interval", "100ms"];
    let words =
        [&["run", "-d", "--name", "app"], &check[..], &start, &["busybox", "sleep", "1000"]];
    site.docker(&words.concat()).ok();
    fails_without_consequence(&site, "app");
    site.docker(&["exec", "app", "touch", "/tmp/well"]).ok();
    becomes(&site, "app", "healthy");
}

#[test]
fn a_check_that_began_in_the_start_period_is_forgiven_though_it_ends_after_it() {
    let site = Site::new();
    let check = ["--health-cmd", "sleep 4321", "--health-interval", "10m"];
    let end = ["--health-timeout", "8s", "--health-retries", "1"];
    let start = ["--health-start-period", "6s", "--health-start-interval", "100ms"];
    let words = [&["run", "-d", "--name", "app"], &check[..], &end, &start, &["busybox"]];
    site.docker(&[&words.concat()[..], &["sleep", "1000"]].concat()).ok();
    let form = "{{len .State.Health.Log}} {{.State.Health.Status}} {{.State.Health.FailingStreak}}";
    let said = wait_until("a result", || {
        let said = site.docker(&["inspect", "-f", form, "app"]).ok();
        (!said.starts_with('0')).then_some(said)
    });
    assert_eq!(said, "1 starting 0\n");
}

/// Waits for a few failures in the start period, none of which counts.
fn fails_without_consequence(site: &Site, name: &str) {
    wait_until("failures that are forgiven", || {
        let form =
            "{{.State.Health.Status}} {{.State.Health.FailingStreak}} {{len .State.Health.Log}}";
        let said = site.docker(&["inspect", "-f", form, name]).ok();
        assert!(said.starts_with("starting 0 "), "{said}");
        (said.trim() > "starting 0 2").then_some(())
    });
}

#[test]
fn a_clock_that_was_set_does_not_cut_a_start_period_short() {
    let mut site = Site::new();
    let check = ["--health-cmd", "false", "--health-interval", "10m", "--health-retries", "1"];
    let start = ["--health-start-period", "5m", "--health-start-interval", "100ms"];
    let words =
        [&["run", "-d", "--name", "app"], &check[..], &start, &["busybox", "sleep", "1000"]];
    let id = site.docker(&words.concat()).ok();
    site.kill_engine();
    // As on a device that did not know the time when the container was started.
    let path = site.data().join("containers").join(id.trim()).join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let mut state: serde_json::Value = serde_json::from_str(json).unwrap();
    state["started_at"] = serde_json::json!(1_000_000_000);
    std::fs::write(&path, state.to_string()).unwrap();
    site.start_engine();
    fails_without_consequence(&site, "app");
}

#[test]
fn what_is_paused_is_not_checked() {
    let site = Site::new();
    let check = ["--health-cmd", "true", "--health-interval", "100ms", "--health-timeout", "3s"];
    let name = ["run", "-d", "--name", "app", "--health-retries", "1"];
    site.docker(&[&name[..], &check, &["busybox", "sleep", "1000"]].concat()).ok();
    becomes(&site, "app", "healthy");
    site.docker(&["pause", "app"]).ok();
    let top = || site.docker(&["top", "app"]).ok();
    let before = top();
    // Time for a check to be too late.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(site.docker(&["inspect", "-f", FORM, "app"]).ok(), "healthy\n");
    // One may have begun before the pause.
    let now = top();
    assert!(now.lines().count() <= before.lines().count() + 1, "{before}\n{now}");
    site.docker(&["unpause", "app"]).ok();
    let form = "{{(index .State.Health.Log 0).Start}}";
    let first = site.docker(&["inspect", "-f", form, "app"]).ok();
    wait_until("more checks", || {
        (site.docker(&["inspect", "-f", form, "app"]).ok() != first).then_some(())
    });
    assert_eq!(site.docker(&["inspect", "-f", FORM, "app"]).ok(), "healthy\n");
}

#[test]
fn back_off_counts_and_manual_stops_outlive_the_daemon() {
    let mut site = Site::new();
    let failing = ["busybox", "sh", "-c", "echo once more; exit 4"];
    for (name, policy) in
        [("few", "on-failure:3"), ("ever", "always"), ("stopped", "unless-stopped")]
    {
        let words = [&["run", "-d", "--name", name, "--restart", policy], &failing[..]].concat();
        site.docker(&words).ok();
    }
    let of = |site: &Site, name: &str| {
        let form = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}";
        site.docker(&["inspect", "-f", form, name]).ok().trim().to_owned()
    };
    let count = |site: &Site, name: &str| -> u32 {
        of(site, name).split(' ').next().unwrap().parse().unwrap()
    };
    wait_until("some restarts", || (count(&site, "ever") >= 3).then_some(()));
    site.docker(&["stop", "-t", "0", "stopped"]).ok();
    site.kill_engine();
    site.start_engine();
    assert!(count(&site, "ever") >= 3, "the count was lost: {}", of(&site, "ever"));
    wait_until("a restart under the new daemon", || (count(&site, "ever") >= 5).then_some(()));
    wait_until("the limit", || (of(&site, "few") == "3 exited 4").then_some(()));
    assert_eq!(site.docker(&["logs", "few"]).ok().lines().count(), 4);
    assert!(of(&site, "stopped").contains(" exited "), "{}", of(&site, "stopped"));
    // What always runs is started with the engine, also after a manual stop, as Docker says.
    site.docker(&["stop", "-t", "0", "ever"]).ok();
    site.kill_engine();
    site.start_engine();
    wait_until("a start", || (count(&site, "ever") >= 1).then_some(()));
    assert!(of(&site, "stopped").contains(" exited "));
}

#[test]
fn a_start_leaves_what_waits_for_its_restart_to_it() {
    let site = Site::new();
    let words = ["run", "-d", "--name", "box", "--restart", "on-failure:50", "busybox", "false"];
    site.docker(&words).ok();
    let state = || {
        let said =
            site.docker(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "box"]).ok();
        let (count, status) = said.trim().split_once(' ').unwrap();
        (count.parse::<u32>().unwrap(), status.to_owned())
    };
    // The waits are long enough by then to come in between.
    let before = wait_until("a wait", || {
        let (count, status) = state();
        (count >= 5 && status == "restarting").then_some(count)
    });
    let answer = ask(&site, "POST", "/containers/box/start", None);
    assert_eq!(answer.status, 304, "{}", answer.text);
    assert!(state().0 >= before, "its count was lost");
    wait_until("the next restart", || (state().0 > before).then_some(()));
}

#[test]
fn a_back_off_goes_on_doubling_under_the_next_daemon() {
    let mut site = Site::new();
    let out = site.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let volume = format!("{}:/out", out.display());
    let fails = "cat /proc/uptime >> /out/starts; exit 1";
    let words = ["run", "-d", "--name", "box", "--restart", "always", "-v", &volume, "busybox"];
    let id = site.docker(&[&words[..], &["sh", "-c", fails]].concat()).ok();
    let document = site.data().join("containers").join(id.trim()).join("state.json");
    let wait = || -> Option<u64> {
        let text = std::fs::read_to_string(&document).ok()?;
        let state: serde_json::Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
        state["backoff"].as_u64()
    };
    let starts = || -> Vec<f64> {
        let text = std::fs::read_to_string(out.join("starts")).unwrap_or_default();
        let first = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
        text.lines().map(first).collect()
    };
    let waited = wait_until("a long wait", || wait().filter(|wait| *wait >= 3000));
    let before = starts().len();
    site.kill_engine();
    site.start_engine();
    wait_until("two more starts", || (starts().len() >= before + 2).then_some(()));
    let starts = starts();
    let gap = |at: usize| ((starts[at] - starts[at - 1]) * 1000.0).round() as u64;
    // Times here are in hundredths of a second, and cut.
    assert!(gap(before) + 20 >= waited, "{waited}: {starts:?}");
    assert!(gap(before + 1) + 20 >= waited * 2, "{waited}: {starts:?}");
}
