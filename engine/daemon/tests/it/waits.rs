//! The conditions that a wait can have, and what can be asked of logs.

use std::time::Duration;

use crate::support::{Begun, Site, ask, begin};

/// A wait that the engine has taken up: its head has come.
fn begin_wait(site: &Site, container: &str, condition: &str) -> Begun {
    let path = format!("/containers/{container}/wait?condition={condition}");
    begin(site, "POST", &path, &[], b"")
}

/// The exit code that a wait answers with.
fn end_wait(wait: Begun) -> i64 {
    let answer = wait.finish();
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["StatusCode"].as_i64().unwrap()
}

fn wait(site: &Site, container: &str, condition: &str) -> i64 {
    end_wait(begin_wait(site, container, condition))
}

/// Nobody says that nothing comes: a moment in which it would have.
fn goes_on(wait: &Begun) -> bool {
    std::thread::sleep(Duration::from_millis(300));
    wait.is_pending()
}

#[test]
fn a_wait_ends_when_its_condition_comes() {
    let site = Site::new();
    site.docker(&["create", "--name", "box", "busybox", "sh", "-c", "sleep 0.5; exit 3"]).ok();
    assert_eq!(wait(&site, "box", "not-running"), 0, "it has not run yet");
    let next = begin_wait(&site, "box", "next-exit");
    let removed = begin_wait(&site, "box", "removed");
    assert!(goes_on(&next));
    site.docker(&["start", "box"]).ok();
    assert_eq!(wait(&site, "box", "not-running"), 3);
    assert_eq!(end_wait(next), 3);
    assert!(goes_on(&removed));
    // It has ended before; the next end is another one.
    let next = begin_wait(&site, "box", "next-exit");
    assert!(goes_on(&next));
    site.docker(&["rm", "box"]).ok();
    assert_eq!(end_wait(removed), 3);
    assert_eq!(end_wait(next), 3, "a removal is the end of every wait");
    let missing = ask(&site, "POST", "/containers/box/wait?condition=removed", None);
    assert_eq!(missing.status, 404);
}

#[test]
fn logs_give_what_was_asked_for() {
    let site = Site::new();
    let say = "echo one; echo two >&2; sleep 1.2; echo three; echo four >&2";
    site.docker(&["run", "--name", "box", "busybox", "sh", "-c", say]).ok();
    let logs = |options: &str| {
        let answer = ask(&site, "GET", &format!("/containers/box/logs?{options}"), None);
        assert_eq!(answer.status, 200, "{options}: {}", answer.text);
        answer.frames()
    };
    assert_eq!(logs("stdout=1"), "one\nthree\n");
    assert_eq!(logs("stderr=1"), "two\nfour\n");
    let both = "stdout=1&stderr=1";
    assert_eq!(logs(both).lines().count(), 4);
    assert_eq!(logs(&format!("{both}&tail=0")), "");
    assert_eq!(logs(&format!("{both}&tail=all")).lines().count(), 4);
    assert_eq!(logs("stderr=1&tail=1"), "four\n");
    let stamped = logs("stdout=1&timestamps=1");
    let stamps: Vec<&str> = stamped.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let at = |stamp: &str| stamp.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
    let between = (at(stamps[0]) + at(stamps[1])) / 2;
    let between = format!("{}.{:09}", between / 1_000_000_000, between % 1_000_000_000);
    assert_eq!(logs(&format!("stdout=1&since={between}")), "three\n");
    assert_eq!(logs(&format!("stdout=1&until={between}")), "one\n");
    assert_eq!(logs(&format!("stdout=1&follow=1&since={between}")), "three\n");
    assert_eq!(logs(&format!("{both}&since={}", u32::MAX)), "");
    for (wrong, status) in [("", 400), ("stdout=1&tail=x", 200), ("stdout=1&since=x", 400)] {
        let answer = ask(&site, "GET", &format!("/containers/box/logs?{wrong}"), None);
        assert_eq!(answer.status, status, "{wrong}: {}", answer.text);
    }
}
