//! kill -9 of the daemon at random points: what runs goes on and answers, and nothing is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use minke_engine_client::wire::CreateContainer;
use minke_engine_client::{Client, LogOptions, RemoveContainer, WaitFor};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Site, wait_until};

/// What the daemon was asked to do when it was killed.
const PHASES: [&str; 9] =
    ["create", "start", "exec", "connect", "logs", "stop", "remove", "adopt", "idle"];
const ADOPT: usize = 7;
const IDLE: usize = 8;
/// The latest point of a kill, after the work has begun.
const LATEST: u64 = 250;
/// The latest point of a kill of a daemon that has just been started.
const LATEST_START: u64 = 60;

const WORK: &str = r#"{"Image":"busybox","Cmd":["sh","-c","echo worked; sleep 1000"],
    "Volumes":{"/data":{}},"HostConfig":{"PortBindings":{"81/tcp":[{}]}}}"#;
const SERVE: &str = "while true; do echo served | nc -l -p 80; done";
const COUNT: &str = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done";
const ASK: &str = "while true; do ping -c1 -W2 web > /dev/null && echo reached; sleep 0.05; done";
const ENDS: &str =
    "trap 'echo last words; exit 42' TERM; echo ready; while true; do sleep 0.02; done";

/// Numbers that a seed determines (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Works until the daemon is gone; `phase` says at what.
async fn work(client: &Client, phase: &AtomicUsize, over: &AtomicBool) -> Option<()> {
    let at = |place: usize| phase.store(place, Ordering::SeqCst);
    let body: CreateContainer = serde_json::from_str(WORK).ok()?;
    while !over.load(Ordering::SeqCst) {
        at(0);
        let id = client.create("work", &body).await.ok()?.id;
        at(1);
        client.start(&id).await.ok()?;
        at(2);
        client.exec(&id, &["true"]).await.ok()?;
        at(3);
        client.connect("team", &id, None).await.ok()?;
        at(4);
        let options = LogOptions { stdout: true, ..LogOptions::default() };
        let mut log = client.read_logs(&id, &options).await.ok()?;
        while log.try_next().await.ok()?.is_some() {}
        at(5);
        client.stop(&id, Some(0)).await.ok()?;
        at(6);
        client.remove(&id, RemoveContainer { force: true, volumes: true }).await.ok()?;
        at(IDLE);
    }
    Some(())
}

/// Lets the daemon work, kills it in the middle, and says at what it was.
fn kill_at_work(site: &mut Site, random: &mut Random) -> usize {
    let phase = Arc::new(AtomicUsize::new(IDLE));
    let over = Arc::new(AtomicBool::new(false));
    let worker = {
        let (client, phase, over) = (site.client(), phase.clone(), over.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(&client, &phase, &over));
        })
    };
    // No condition to wait for: the points in time are the test.
    std::thread::sleep(Duration::from_millis(random.below(LATEST)));
    let hit = phase.load(Ordering::SeqCst);
    over.store(true, Ordering::SeqCst);
    site.kill_engine();
    worker.join().unwrap();
    hit
}

fn kill_while_starting(site: &mut Site, random: &mut Random) -> usize {
    site.kill_engine();
    site.spawn_engine();
    std::thread::sleep(Duration::from_millis(random.below(LATEST_START)));
    site.kill_engine();
    ADOPT
}

fn lines(site: &Site, log: &std::path::Path) -> usize {
    assert!(log.starts_with(site.data()), "{log:?}");
    std::fs::read(log).unwrap().iter().filter(|byte| **byte == b'\n').count()
}

fn log_of(site: &Site, name: &str) -> std::path::PathBuf {
    site.docker(&["inspect", "-f", "{{.LogPath}}", name]).ok().trim().into()
}

fn set_up(site: &Site) {
    let cli = |words: &[&str]| site.docker(words).ok();
    cli(&["network", "create", "team"]);
    let run = ["run", "-d", "--network", "team", "--name"];
    let shell = ["busybox", "sh", "-c"];
    cli(&[&run[..], &["web", "-p", "18110:80"], &shell, &[SERVE]].concat());
    cli(&[&run[..], &["asks"], &shell, &[ASK]].concat());
    cli(&[&run[..], &["counts"], &shell, &[COUNT]].concat());
    wait_until("the port", || site.say_of_port("127.0.0.1", 18110));
}

/// One kill; at what the daemon was.
fn one(site: &mut Site, seed: u64, steady: &str) -> usize {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let name = format!("ends-{seed}");
    site.docker(&["run", "-d", "--name", &name, "busybox", "sh", "-c", ENDS]).ok();
    let ready = log_of(site, &name);
    wait_until("the trap", || (lines(site, &ready) == 1).then_some(()));
    let pid = site.docker(&["inspect", "-f", "{{.State.Pid}}", &name]).ok();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let asks = log_of(site, "asks");
    // Now and then it ends while the daemon is at its last.
    let early = random.below(3) == 0;
    if early {
        kill_process(pid, Signal::TERM).unwrap();
    }
    let hit = match random.below(6) {
        0 => kill_while_starting(site, &mut random),
        _ => kill_at_work(site, &mut random),
    };
    if !early {
        kill_process(pid, Signal::TERM).unwrap();
    }
    // Nobody is there now: ports and names answer all the same.
    let before = lines(site, &asks);
    wait_until("the port without a daemon", || site.say_of_port("127.0.0.1", 18110));
    wait_until("the name without a daemon", || (lines(site, &asks) > before).then_some(()));
    site.start_engine();
    assert_eq!(steady_ones(site), steady, "seed {seed}: what ran does not run as it did");
    let code = site.block_on(site.client().wait(&name, WaitFor::NotRunning)).unwrap();
    assert_eq!(code, 42, "seed {seed}");
    assert_eq!(site.docker(&["logs", &name]).ok(), "ready\nlast words\n", "seed {seed}");
    site.docker(&["rm", "-v", &name]).ok();
    let rest = site.docker(&["ps", "-aq", "--filter", "name=work"]).ok();
    for id in rest.lines() {
        site.docker(&["rm", "-fv", id]).ok();
    }
    hit
}

/// What must not change: process and start of each steady container.
fn steady_ones(site: &Site) -> String {
    let form = "{{.Name}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}";
    site.docker(&["inspect", "-f", form, "web", "asks", "counts"]).ok()
}

#[test]
fn containers_outlive_a_daemon_that_is_killed_at_any_point() {
    let seeds = u64::from(super::count("MINKE_SEEDS", 10));
    let mut site = Site::new();
    set_up(&site);
    let steady = steady_ones(&site);
    let traces = site.traces();
    let mut hits: BTreeMap<usize, u32> = BTreeMap::new();
    for seed in 1..=seeds {
        *hits.entry(one(&mut site, seed, &steady)).or_default() += 1;
    }
    // Every line, in order, however often the daemon was killed.
    let log = site.docker(&["logs", "counts"]).ok();
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    wait_until("an engine without leftovers", || (site.traces() == traces).then_some(()));
    let mut text = String::from("| the daemon was killed in the middle of | times |\n|---|---:|\n");
    for (place, phase) in PHASES.iter().enumerate() {
        let count = hits.get(&place).copied().unwrap_or_default();
        text.push_str(&format!("| {phase} | {count} |\n"));
    }
    super::report(&text);
    super::report(&format!(
        "\n{seeds} kills. Each time: what ran kept its process; its port and its name answered while no \
         daemon was there; a container that ended meanwhile has its exit code and its last line; \
         nothing was left over. The log of a container that wrote all the time has all of its {} lines.\n",
        numbers.len()
    ));
    println!("{text}");
}
