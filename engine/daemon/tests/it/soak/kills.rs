//! kill -9 of the daemon in the middle of everything that it does: what runs goes on and answers, and
//! nothing is lost.
//!
//! Each seed has a phase, so that all of them come up equally often. The phase is prepared and asked for;
//! where it shows on the disk, that is waited for; then the daemon is killed at a random point of the time
//! that is left until the answer. If the answer was there before the kill, it was no hit: the time until
//! then is known now, and the seed tries again.

mod phase;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minke_engine_client::WaitFor;
use rustix::process::{Pid, Signal, kill_process};

use self::phase::{Material, Phase, ask, shows};
use super::standing::{Counts, Standing};
use crate::support::{Site, docker28, wait_until};

/// How long a phase takes as far as is known before it was seen once.
const GUESS: Duration = Duration::from_millis(15);
/// How long the kernel may take to remove links and namespaces.
const CLEARED: Duration = Duration::from_secs(30);
/// Between two looks at that.
const LOOKS: Duration = Duration::from_millis(50);
/// Attempts of one seed to hit its phase.
const ATTEMPTS: u32 = 20;

const SERVE: &str = "while true; do echo served | nc -l -p 80; done";
const COUNT: &str = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done";
const ASK: &str = "while true; do ping -c1 -W2 web > /dev/null && echo reached; sleep 0.05; done";
const ENDS: &str =
    "trap 'echo last words; exit 42' TERM; echo ready; while true; do sleep 0.02; done";

/// Numbers that a seed determines (xorshift).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// What all seeds share.
struct Soak {
    site: Site,
    material: Material,
    /// How long each phase takes from where it shows to the answer.
    lengths: BTreeMap<Phase, Duration>,
    /// What the engine holds between two seeds.
    rest: Counts,
    /// Names in the image store between two seeds.
    store: Vec<String>,
    /// Process and start of each container that must not notice anything.
    steady: String,
}

/// A phase that goes on.
struct Asked {
    asking: JoinHandle<bool>,
    answered: Arc<AtomicBool>,
}

impl Asked {
    /// Asks in a thread of its own, which says in the end whether there was a good answer.
    fn start(soak: &Soak, phase: Phase) -> Asked {
        let answered = Arc::new(AtomicBool::new(false));
        let done = answered.clone();
        let work: Box<dyn FnOnce() -> bool + Send> = match soak.material.command(phase) {
            Some(words) => {
                let child = soak.site.spawn(&docker28(), &words);
                Box::new(move || child.wait_with_output().unwrap().status.success())
            }
            None => {
                let (client, image) = (soak.site.client(), soak.material.image.clone());
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                Box::new(move || runtime.block_on(ask(&client, phase, &image)).is_ok())
            }
        };
        let asking = std::thread::spawn(move || {
            let good = work();
            done.store(true, Ordering::SeqCst);
            good
        });
        Asked { asking, answered }
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Soak {
    fn new() -> Soak {
        let site = Site::new();
        let cli = |words: &[&str]| site.docker(words).ok();
        cli(&["network", "create", "team"]);
        let run = ["run", "-d", "--network", "team", "--name"];
        let shell = ["busybox", "sh", "-c"];
        cli(&[&run[..], &["web", "-p", "18110:80"], &shell, &[SERVE]].concat());
        cli(&[&run[..], &["asks"], &shell, &[ASK]].concat());
        cli(&[&run[..], &["counts"], &shell, &[COUNT]].concat());
        wait_until("the port", || site.say_of_port("127.0.0.1", 18110));
        let material = Material::new(&site);
        let (rest, store) = (held(&site), Vec::new());
        let mut soak = Soak {
            steady: steady_ones(&site),
            site,
            material,
            lengths: BTreeMap::new(),
            rest,
            store,
        };
        // A daemon that has taken over holds what the next ones will hold.
        soak.site.kill_engine();
        soak.site.start_engine();
        soak.rest = held(&soak.site);
        soak.store = soak.names_in_store();
        soak
    }

    /// Everything in the image store by name, but for the numbers of its documents.
    fn names_in_store(&self) -> Vec<String> {
        let store = self.site.data().join("images");
        let mut found = Vec::new();
        for folder in
            ["images", "layers", "blobs", "partial", "pending", "staging", "trash", "replaced"]
        {
            for entry in std::fs::read_dir(store.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                found.push(format!("{folder}/{name}"));
            }
        }
        found.sort();
        found
    }

    /// Kills the daemon in the middle of a phase. The daemon is gone afterwards, hit or not.
    fn kill_in(&mut self, phase: Phase, random: &mut Random) -> bool {
        let length = self.lengths.get(&phase).copied().unwrap_or(GUESS);
        let offset = Duration::from_micros(random.below(length.as_micros() as u64));
        if phase == Phase::Adopt {
            self.site.kill_engine();
            self.site.spawn_engine();
            let socket = self.site.socket();
            wait_until("a socket that listens", || {
                std::os::unix::net::UnixStream::connect(&socket).ok()
            });
        }
        let shim = (phase == Phase::Shim).then(|| shim_of(&self.site, "work"));
        let asked = Asked::start(self, phase);
        while !shows(&self.site, phase) && !asked.is_answered() {
            std::thread::yield_now();
        }
        if let Some(shim) = shim {
            kill_process(shim, Signal::KILL).unwrap();
        }
        let begun = Instant::now();
        while begun.elapsed() < offset && !asked.is_answered() {
            std::thread::sleep(Duration::from_micros(100));
        }
        let took = asked.is_answered().then(|| begun.elapsed());
        self.site.kill_engine();
        let good = asked.asking.join().unwrap();
        assert!(took.is_none() || good, "{phase:?} failed by itself\n{}", self.site.log());
        if let Some(took) = took {
            self.lengths.insert(phase, took.max(Duration::from_micros(200)));
        } else if !good {
            let known = self.lengths.entry(phase).or_insert(GUESS);
            // Longer than was thought: the later part of it is to be hit, too.
            *known = (*known).max(offset * 5 / 4);
        }
        !good
    }

    /// Kills in the phase, as often as it takes to hit it.
    fn hit(&mut self, phase: Phase, random: &mut Random) -> u32 {
        for attempt in 1..=ATTEMPTS {
            self.material.prepare(&self.site, phase);
            if self.kill_in(phase, random) {
                return attempt;
            }
            self.site.start_engine();
            self.material.clear(&self.site, phase);
        }
        panic!("{phase:?} was answered before the kill {ATTEMPTS} times");
    }

    /// One seed: its container ends while no daemon is there, or shortly before.
    fn one(&mut self, seed: u64) -> (Phase, u32) {
        let mut random = Random::of(seed);
        let phase = Phase::ALL[(seed as usize - 1) % Phase::ALL.len()];
        let name = format!("ends-{seed}");
        let site = &self.site;
        site.docker(&["run", "-d", "--name", &name, "busybox", "sh", "-c", ENDS]).ok();
        let ready = log_of(site, &name);
        wait_until("the trap", || (lines(site, &ready) == 1).then_some(()));
        let pid = site.docker(&["inspect", "-f", "{{.State.Pid}}", &name]).ok();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let asks = log_of(site, "asks");
        let early = random.below(3) == 0;
        if early {
            kill_process(pid, Signal::TERM).unwrap();
        }
        let attempts = self.hit(phase, &mut random);
        if !early {
            kill_process(pid, Signal::TERM).unwrap();
        }
        // Nobody is there now: ports and names answer all the same.
        let site = &self.site;
        let before = lines(site, &asks);
        wait_until("the port without a daemon", || site.say_of_port("127.0.0.1", 18110));
        wait_until("the name without a daemon", || (lines(site, &asks) > before).then_some(()));
        self.site.start_engine();
        let site = &self.site;
        assert_eq!(steady_ones(site), self.steady, "{phase:?}, seed {seed}: what ran does not");
        let code = site.block_on(site.client().wait(&name, WaitFor::NotRunning)).unwrap();
        assert_eq!(code, 42, "{phase:?}, seed {seed}");
        let log = site.docker(&["logs", &name]).ok();
        assert_eq!(log, "ready\nlast words\n", "{phase:?}, seed {seed}");
        site.docker(&["rm", "-v", &name]).ok();
        self.goes_on(phase, seed);
        self.material.clear(&self.site, phase);
        let end = Instant::now() + CLEARED;
        while held(&self.site) != self.rest && Instant::now() < end {
            std::thread::sleep(LOOKS);
        }
        assert_eq!(held(&self.site), self.rest, "{phase:?}, seed {seed}: something stays");
        wait_until("a store without leftovers", || {
            (self.names_in_store() == self.store).then_some(())
        });
        (phase, attempts)
    }

    /// What was interrupted is done or undone, nothing is torn, and it can be asked for again.
    fn goes_on(&self, phase: Phase, seed: u64) {
        let site = &self.site;
        let report = site.block_on(site.client().verify(false, |_| {})).unwrap();
        assert_eq!(report.damaged, [], "{phase:?}, seed {seed}");
        let status = site.docker(&["inspect", "-f", "{{.State.Status}}", "work"]);
        let status = status.stdout.trim();
        match phase {
            Phase::Shim => {
                let code = site.docker(&["wait", "work"]).ok();
                assert_eq!(code.trim(), "137", "seed {seed}");
                site.docker(&["start", "work"]).ok();
            }
            Phase::RemoveImage | Phase::Adopt => {}
            Phase::Pull => drop(site.docker(&["pull", "-q", &self.material.image]).ok()),
            Phase::Unpack | Phase::Build | Phase::Commit | Phase::Load => {
                site.docker(&self.material.command(phase).unwrap()).ok();
            }
            _ => match status {
                "running" => {
                    assert_eq!(site.docker(&["exec", "work", "echo", "alive"]).ok(), "alive\n");
                }
                "created" | "exited" => drop(site.docker(&["start", "work"]).ok()),
                other => {
                    let may_be_gone = matches!(phase, Phase::Create | Phase::Remove);
                    assert!(may_be_gone && other.is_empty(), "{phase:?}, seed {seed}: {other:?}");
                }
            },
        }
    }
}

/// What there is of the engine. Its descriptors went with the daemon that was killed.
fn held(site: &Site) -> Counts {
    Counts { descriptors: 0, ..Standing::of(site).counts }
}

/// What must not change: process and start of each steady container.
fn steady_ones(site: &Site) -> String {
    let form = "{{.Name}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}";
    site.docker(&["inspect", "-f", form, "web", "asks", "counts"]).ok()
}

fn lines(site: &Site, log: &std::path::Path) -> usize {
    assert!(log.starts_with(site.data()), "{log:?}");
    std::fs::read(log).unwrap().iter().filter(|byte| **byte == b'\n').count()
}

fn log_of(site: &Site, name: &str) -> std::path::PathBuf {
    site.docker(&["inspect", "-f", "{{.LogPath}}", name]).ok().trim().into()
}

fn shim_of(site: &Site, name: &str) -> Pid {
    let id = site.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    let file = site.data().join("containers").join(id.trim()).join("shim/shim.pid");
    let text = std::fs::read_to_string(file).unwrap();
    let (pid, _) = minke_engine_shim::identity::parse(&text).unwrap();
    Pid::from_raw(pid as i32).unwrap()
}

fn table(hits: &BTreeMap<Phase, (u32, u32)>) -> String {
    let mut text = String::from(
        "| the daemon was killed in the middle of | times | and just after it |\n|---|---:|---:|\n",
    );
    for phase in Phase::ALL {
        let (times, late) = hits.get(&phase).copied().unwrap_or_default();
        text.push_str(&format!("| {} | {times} | {late} |\n", phase.word()));
    }
    text
}

#[test]
fn containers_outlive_a_daemon_that_is_killed_at_any_point() {
    let seeds = u64::from(super::count("MINKE_SEEDS", Phase::ALL.len() as u32));
    let mut soak = Soak::new();
    let mut hits: BTreeMap<Phase, (u32, u32)> = BTreeMap::new();
    for seed in 1..=seeds {
        let (phase, attempts) = soak.one(seed);
        let (times, late) = hits.entry(phase).or_default();
        *times += 1;
        *late += attempts - 1;
    }
    // Every line, in order, however often the daemon was killed.
    let log = soak.site.docker(&["logs", "counts"]).ok();
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    assert_eq!(hits.len(), Phase::ALL.len().min(seeds as usize), "{hits:?}");
    let text = table(&hits);
    super::report(&text);
    super::report(&format!(
        "\n{seeds} kills before the answer, each followed by the checks: what ran kept its process; its \
         port and its name answered while no daemon was there; a container that ended meanwhile has its \
         exit code and its last line; what was interrupted was done or undone, no file of the image store \
         was torn, and it could be asked for again; afterwards there were the same layers, containers, \
         volumes, mounts, cgroups, namespaces, links, rules and files of the store as before. The log of \
         a container that wrote all the time has all of its {} lines.\n",
        numbers.len()
    ));
    println!("{text}");
}
