//! Many containers at once: what they weigh, and how long the next daemon takes to have them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use minke_engine_client::RemoveContainer;
use minke_engine_client::wire::CreateContainer;

use super::cycles::settled;
use super::standing::Standing;
use crate::support::{Site, wait_until};

const LANES: usize = 4;
/// Most memory of a shim, proportionally, KiB; without optimisation it has more.
const MOST_PSS: f64 = 400.0;
/// How long the next daemon may take until it answers; one without optimisation on a busy machine, too.
const SOCKET: Duration = Duration::from_secs(2);
pub(super) const SLEEPER: &str = r#"{"Image":"busybox","Cmd":["sleep","100000"]}"#;

/// Creates and starts so many containers, some at a time, or removes them; how long that took.
pub(super) fn in_lanes(site: &Site, body: &'static str, count: u32, remove: bool) -> Duration {
    let begun = Instant::now();
    site.block_on(async {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..LANES {
            let client = site.client();
            lanes.spawn(async move {
                for number in (lane as u32..count).step_by(LANES) {
                    let name = format!("one-of-many-{number}");
                    if remove {
                        let how = RemoveContainer { force: true, volumes: true };
                        client.remove(&name, how).await.unwrap();
                        continue;
                    }
                    let body: CreateContainer = serde_json::from_str(body).unwrap();
                    client.create(&name, &body).await.unwrap();
                    client.start(&name).await.unwrap();
                }
            });
        }
        while let Some(ended) = lanes.join_next().await {
            ended.unwrap();
        }
    });
    begun.elapsed()
}

/// The shims of all containers.
pub(super) fn shims(site: &Site) -> Vec<u32> {
    let containers = std::fs::read_dir(site.data().join("containers")).unwrap();
    let pid = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("shim/shim.pid")).ok()?;
        Some(minke_engine_shim::identity::parse(&text)?.0)
    };
    containers.flatten().filter_map(pid).collect()
}

/// Memory of the shims, proportionally, KiB each.
fn shim_pss(site: &Site) -> f64 {
    let pss = |pid: u32| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let each: Vec<u64> = shims(site).into_iter().filter_map(pss).collect();
    each.iter().sum::<u64>() as f64 / each.len().max(1) as f64
}

/// How long it takes until the socket answers.
pub(super) fn ping(site: &Site, begun: Instant) -> Duration {
    wait_until("the socket", || {
        let mut stream = UnixStream::connect(site.socket()).ok()?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    begun.elapsed()
}

#[test]
fn many_containers_run_at_once_and_outlive_the_daemon() {
    let count = super::count("MINKE_CROWD", 40);
    let mut site = Site::new();
    let fresh = Standing::of(&site);
    let up = in_lanes(&site, SLEEPER, count, false);
    let full = Standing::of(&site);
    let pss = shim_pss(&site);
    let running = |site: &Site| site.docker(&["ps", "-q"]).ok().lines().count();
    assert_eq!(running(&site), count as usize);
    site.kill_engine();
    let begun = Instant::now();
    site.spawn_engine();
    let socket = ping(&site, begun);
    assert_eq!(running(&site), count as usize, "a new daemon has them all");
    let adopted = begun.elapsed();
    let adopting = Standing::of(&site);
    let down = in_lanes(&site, SLEEPER, count, true);
    let empty = settled(&site, &Standing { rss: adopting.rss, ..fresh });
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    super::report(&format!(
        "| what | |\n|---|---:|\n\
         | containers at once | {count} |\n\
         | create and start, {LANES} at a time | {:.0} ms each |\n\
         | daemon, fresh / with all of them / after its restart / when they are gone, RSS | {} / {} / {} / {} KiB |\n\
         | shim, PSS | {pss:.0} KiB each |\n\
         | next daemon: start to socket / until all are listed | {:.0} / {:.0} ms |\n\
         | forced removal, {LANES} at a time | {:.0} ms each |\n",
        ms(up) / f64::from(count),
        fresh.rss,
        full.rss,
        adopting.rss,
        empty.rss,
        ms(socket),
        ms(adopted),
        ms(down) / f64::from(count),
    ));
    assert!(pss <= MOST_PSS, "a shim has {pss:.0} KiB of memory of its own");
    assert!(socket <= SOCKET, "the next daemon answered after {socket:?}");
}
