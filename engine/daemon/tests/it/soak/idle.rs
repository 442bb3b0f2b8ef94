//! An engine whose containers do nothing does nothing.

use std::time::{Duration, Instant};

use super::crowd::{SLEEPER, in_lanes, shims};
use crate::support::{Site, wait_until};

const CONTAINERS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Most that engine and shims together may have of one processor, percent: ten of the kernel's ticks.
const MOST: f64 = 1.0;

/// Time on a processor that a process has had.
fn used(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The command in brackets may have spaces in it.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = |at: usize| fields.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
    let ticks = ticks(11) + ticks(12);
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[test]
fn an_idle_engine_with_ten_containers_leaves_the_processor_alone() {
    let site = Site::new();
    in_lanes(&site, SLEEPER, CONTAINERS, false);
    let shims = shims(&site);
    assert_eq!(shims.len(), CONTAINERS as usize);
    let all = || -> Duration {
        std::iter::once(site.engine_pid()).chain(shims.iter().copied()).map(used).sum()
    };
    // What was begun with the containers may have to end first.
    let percent = wait_until("an engine at rest", || {
        let (begun, before) = (Instant::now(), all());
        std::thread::sleep(WINDOW);
        let percent = (all() - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        println!("{percent:.2} % of a processor");
        (percent < MOST).then_some(percent)
    });
    super::report(&format!(
        "| idle with {CONTAINERS} containers | |\n|---|---:|\n| engine and shims | {percent:.2} % of a processor |\n"
    ));
    in_lanes(&site, SLEEPER, CONTAINERS, true);
}
