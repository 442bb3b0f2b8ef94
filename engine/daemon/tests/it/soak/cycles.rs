//! Containers that come and go: nothing grows and nothing leaks.

use std::time::{Duration, Instant};

use minke_engine_client::wire::CreateContainer;
use minke_engine_client::{Client, RemoveContainer, WaitFor};

use super::standing::Standing;
use crate::support::{Site, wait_until};

/// The cycle after which everything has its lasting size.
const WARM: u32 = 100;
/// How much more memory the daemon may have at the end than when it was warm, percent.
const GROWTH: u64 = 10;
/// How long the kernel may take to remove links and namespaces.
const CLEARED: Duration = Duration::from_secs(30);
/// Between two looks at what the kernel has still to clear.
const LOOKS: Duration = Duration::from_millis(50);
/// Between two looks at an engine that is to be at rest.
const PAUSE: Duration = Duration::from_millis(300);
/// Cycles that go on at the same time.
const LANES: u32 = 4;

/// What one container is; they take turns.
const KINDS: [&str; 6] = [
    r#"{"Image":"busybox","Cmd":["true"]}"#,
    r#"{"Image":"busybox","Cmd":["sh","-c","echo said; echo wrong >&2; exit 3"],
        "HostConfig":{"PortBindings":{"80/tcp":[{}],"53/udp":[{}]}}}"#,
    r#"{"Image":"busybox","Cmd":["sh","-c","echo kept > /data/file"],"Volumes":{"/data":{}},
        "HostConfig":{"NetworkMode":"team","Memory":33554432,"PidsLimit":50}}"#,
    r#"{"Image":"busybox","Cmd":["sh","-c","echo at a terminal"],"Tty":true,
        "HostConfig":{"NetworkMode":"none","Tmpfs":{"/t":""}}}"#,
    r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"host"}}"#,
    r#"{"Image":"busybox","Cmd":["no-such-program"]}"#,
];

async fn cycle(client: &Client, number: u32) {
    let kind = number as usize % KINDS.len();
    let body: CreateContainer = serde_json::from_str(KINDS[kind]).unwrap();
    let id = client.create(&format!("cycle-{number}"), &body).await.unwrap().id;
    let started = client.start(&id).await;
    match kind {
        4 => {
            let said = client.exec(&id, &["echo", "inside"]).await.unwrap();
            assert_eq!(said.stdout, b"inside\n");
            client.kill(&id, "KILL").await.unwrap();
        }
        5 => assert!(started.is_err(), "a program that does not exist was started"),
        _ => started.unwrap(),
    }
    let code = client.wait(&id, WaitFor::NotRunning).await.unwrap();
    assert_eq!(code, [0, 3, 0, 0, 137, 127][kind], "{}", KINDS[kind]);
    client.remove(&id, RemoveContainer { force: false, volumes: true }).await.unwrap();
}

/// Cycles `from..to`, some at a time; how long they took.
fn cycles(site: &Site, from: u32, to: u32) -> Duration {
    let begun = Instant::now();
    site.block_on(async {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..LANES {
            let client = site.client();
            lanes.spawn(async move {
                for number in (from + lane..to).step_by(LANES as usize) {
                    cycle(&client, number).await;
                }
            });
        }
        while let Some(ended) = lanes.join_next().await {
            ended.unwrap();
        }
    });
    begun.elapsed()
}

/// How the engine stands once the kernel has cleared up behind it.
pub fn settled(site: &Site, before: &Standing) -> Standing {
    let mut now = Standing::of(site);
    let end = Instant::now() + CLEARED;
    while now.counts != before.counts && Instant::now() < end {
        std::thread::sleep(LOOKS);
        now = Standing::of(site);
    }
    assert_eq!(now.counts, before.counts, "the engine does not hold what it held before");
    now
}

/// How the engine stands once it has also given back what memory it can, as it does when nobody asks it for
/// anything.
fn resting(site: &Site, before: &Standing) -> Standing {
    std::thread::sleep(minke_engine_rest::QUIET + Duration::from_secs(1));
    settled(site, before)
}

/// How the engine stands when nothing changes any more: the connections of the last command are closed a
/// moment after its answer.
fn at_rest(site: &Site) -> Standing {
    let mut before = Standing::of(site);
    wait_until("an engine at rest", || {
        std::thread::sleep(PAUSE);
        let now = Standing::of(site);
        let same = now.counts == before.counts;
        before = now;
        same.then_some(())
    });
    before
}

#[test]
fn cycles_leave_nothing_behind() {
    let total = super::count("MINKE_CYCLES", 160).max(WARM + 1);
    let site = Site::new();
    site.docker(&["network", "create", "team"]).ok();
    let fresh = at_rest(&site);
    let mut busy = cycles(&site, 0, WARM);
    let warm = resting(&site, &fresh);
    super::report(HEAD);
    super::report(&row("fresh", &fresh));
    super::report(&row(&WARM.to_string(), &warm));
    let (mut done, mut last) = (WARM, warm);
    while done < total {
        let next = total.min(done + (total / 10).max(20));
        busy += cycles(&site, done, next);
        done = next;
        last = resting(&site, &fresh);
        super::report(&row(&done.to_string(), &last));
    }
    let seconds = busy.as_secs_f64();
    super::report(&format!(
        "\n{:.0} ms a cycle, {LANES} at a time. Everything but the memory is the same after each step, \
         and the same as before the first container.\n",
        seconds * 1000.0 / f64::from(total)
    ));
    assert!(
        last.rss * 100 <= warm.rss * (100 + GROWTH),
        "{} KiB after {WARM} cycles, {} KiB after {total}",
        warm.rss,
        last.rss
    );
}

/// Head of the report's table.
const HEAD: &str = "| cycle | RSS, KiB | descriptors | mounts | cgroups | namespaces | links | rules | containers | volumes | children |\n\
    |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";

fn row(cycle: &str, Standing { rss, counts }: &Standing) -> String {
    format!(
        "| {cycle} | {rss} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        counts.descriptors,
        counts.mounts,
        counts.cgroups,
        counts.namespaces,
        counts.links,
        counts.rules,
        counts.containers,
        counts.volumes,
        counts.children,
    )
}
