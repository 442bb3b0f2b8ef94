//! Health checks of many containers while something else wants all of the processors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::crowd::{in_lanes, ping};
use super::standing::Standing;
use crate::support::{Site, wait_until};

const CONTAINERS: u32 = 30;
/// How long the processors are wanted.
const LOAD: Duration = Duration::from_secs(10);
/// How much more memory the daemon may have afterwards, KiB.
const GROWTH: u64 = 20 << 10;
const CHECKED: &str = r#"{"Image":"busybox","Cmd":["sleep","100000"],"HostConfig":{"NetworkMode":"none"},
    "Healthcheck":{"Test":["CMD","true"],"Interval":200000000}}"#;

/// How many containers are healthy.
fn healthy(site: &Site) -> usize {
    let list = ["ps", "-q", "--filter", "health=healthy"];
    site.docker(&list).ok().lines().count()
}

/// Wants two processors for as long as `work` takes.
fn beside_load<T>(work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn many_health_checks_go_on_beside_a_load_and_cost_the_engine_no_memory() {
    let site = Site::new();
    in_lanes(&site, CHECKED, CONTAINERS, false);
    let all = || (healthy(&site) == CONTAINERS as usize).then_some(());
    wait_until("healthy containers", all);
    let before = Standing::of(&site);
    let slowest = beside_load(|| {
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < LOAD {
            slowest = slowest.max(ping(&site, Instant::now()));
            let running = site.docker(&["ps", "-q"]).ok();
            assert_eq!(running.lines().count(), CONTAINERS as usize);
        }
        slowest
    });
    // None of them has failed often enough to count, also if it was late.
    wait_until("containers that are healthy again", all);
    let after = Standing::of(&site);
    let report = site.block_on(site.client().verify(false, |_| {})).unwrap();
    assert_eq!(report.damaged, []);
    in_lanes(&site, CHECKED, CONTAINERS, true);
    super::report(&format!(
        "| {CONTAINERS} health checks beside a load | |\n|---|---:|\n\
         | slowest answer | {:.0} ms |\n| daemon, before / after, RSS | {} / {} KiB |\n",
        slowest.as_secs_f64() * 1000.0,
        before.rss,
        after.rss,
    ));
    assert!(after.rss < before.rss + GROWTH, "{} and then {} KiB", before.rss, after.rss);
}
