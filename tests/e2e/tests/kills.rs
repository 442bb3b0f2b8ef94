//! Whatever is killed in the middle of an update, the update comes to the same end, and what ran goes
//! on while the daemon that started it is away.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::{Container, DEVICE, Follower, PATIENCE, PHASES, Phase, TestSite};
use minke_tests_testkit::{Remains, Signal, Site, get, kill, request, signal, wait_until};
use serde_json::Value;

/// How many kills there are, unless MINKE_SEEDS says otherwise.
const SEEDS: u64 = 20;
/// Further kills for phases that chance has left out.
const EXTRA: u64 = 14;
/// How long an update may take, with a kill in it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
/// The service that the releases differ in.
const SERVICE: &str = "api";
/// Bytes that each release brings anew, so that there is something to pull and unpack.
const BALLAST: usize = 16 << 20;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine,
    Supervisor,
    Both,
    Shim,
}

const VICTIMS: [Victim; 4] = [Victim::Engine, Victim::Supervisor, Victim::Both, Victim::Shim];

/// A release and the state in which an undisturbed update to it leaves the device.
struct Wanted {
    release: i64,
    commit: String,
    greeting: String,
    state: State,
}

/// All that a device holds when it has arrived; container ids are left out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    remains: Remains,
    /// Image and status by container.
    containers: BTreeMap<String, (String, String)>,
    volumes: String,
    networks: String,
}

impl State {
    fn of(test: &TestSite) -> Result<State> {
        let docker = test.docker()?;
        let containers = docker.containers()?;
        let names = containers.iter().map(|(name, it)| (it.id.clone(), name.clone())).collect();
        let plain = |it: Container| (it.image, it.status);
        Ok(State {
            remains: test.inside()?.remains(&names)?,
            containers: containers.into_iter().map(|(name, it)| (name, plain(it))).collect(),
            volumes: docker.run(&["volume", "ls", "--format", "{{.Name}}"])?,
            networks: docker.run(&["network", "ls", "--format", "{{.Name}}"])?,
        })
    }
}

/// Splitmix64: the same seed gives the same kills.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (value ^ (value >> 31)) % limit
    }
}

#[test]
fn an_update_survives_kills_at_any_point() -> Result<()> {
    let seeds = match std::env::var("MINKE_SEEDS") {
        Ok(text) => text.parse().context("MINKE_SEEDS is no number")?,
        Err(_) => SEEDS,
    };
    let mut test = TestSite::with_device()?;
    let mut wanted = releases(&mut test)?;
    for one in &mut wanted {
        pin(&test, one.release)?;
        arrive(&test, one)?;
        one.state = settled(&test)?;
    }
    let mut hit: BTreeMap<Phase, u64> = BTreeMap::new();
    let mut next = 0;
    for seed in 0..seeds {
        let phase = PHASES[(seed % 7) as usize];
        kill_once(&test, &wanted[next], seed, phase, &mut hit)?;
        next = 1 - next;
    }
    for seed in seeds..seeds + EXTRA {
        let Some(phase) = PHASES.into_iter().find(|phase| !hit.contains_key(phase)) else { break };
        kill_once(&test, &wanted[next], seed, phase, &mut hit)?;
        next = 1 - next;
    }
    let histogram = histogram(&hit);
    println!("kills by the phase they hit:\n{histogram}");
    for phase in PHASES {
        assert!(hit.contains_key(&phase), "nothing was killed in {phase:?}: {hit:?}");
    }
    reboot(&test, &wanted[1 - next])?;
    test.site.stop()?;
    let kills: u64 = hit.values().sum();
    report(&format!(
        "{histogram}\n{kills} kills, of engine, supervisor, both and a shim in turn. Each time: the \
         page went on answering by its port, and the API by its name unless the kill came while it \
         was being replaced; the update came to its end; containers, shims, mounts, cgroups, links, \
         images and layers were those of an undisturbed update; the server knew. A reboot at the end \
         brought the same state back."
    ))
}

fn histogram(hit: &BTreeMap<Phase, u64>) -> String {
    let mut rows = "| killed during | times |\n|---|---:|\n".to_owned();
    for (phase, count) in hit {
        rows += &format!("| {} | {count} |\n", format!("{phase:?}").to_lowercase());
    }
    rows
}

/// Appends to the file that `cargo xtask soak` has named.
fn report(text: &str) -> Result<()> {
    let Some(path) = std::env::var_os("MINKE_SOAK_REPORT") else { return Ok(()) };
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    Ok(writeln!(file, "{text}")?)
}

/// Pushes two releases of the example.
fn releases(test: &mut TestSite) -> Result<[Wanted; 2]> {
    let folder = test.weather.folder().join(SERVICE);
    let recipe = std::fs::read_to_string(folder.join("Dockerfile"))?;
    let recipe = recipe.replace("COPY api.pl", "COPY ballast /srv/ballast\nCOPY api.pl");
    std::fs::write(folder.join("Dockerfile"), recipe)?;
    let program = std::fs::read_to_string(folder.join("api.pl"))?;
    // Long enough for a kill while it is being stopped.
    let slow = program.replace("{ exit 0 }", "{ select undef, undef, undef, 0.3; exit 0 }");
    ensure!(slow != program, "api.pl ends in another way than this test expects");
    std::fs::write(folder.join("api.pl"), slow)?;
    let push = |test: &mut TestSite, greeting: &str| -> Result<Wanted> {
        let mut ballast = vec![0; BALLAST];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut ballast)?;
        std::fs::write(folder.join("ballast"), ballast)?;
        test.weather.change_greeting(greeting)?;
        let pushed = test.weather.push(&test.site)?;
        let release = pushed.last().and_then(|it| it["releaseId"].as_i64());
        let release = release.context("the push named no release")?;
        let shown = test.site.cli().json(&["release", "show", &release.to_string()])?;
        let commit = shown["commit"].as_str().context("the release has no commit")?.to_owned();
        let greeting = greeting.to_owned();
        let wanted = Wanted { release, commit, greeting, state: State::default() };
        arrive(test, &wanted)?;
        Ok(wanted)
    };
    Ok([push(test, "Hello from one")?, push(test, "Hello from the other")?])
}

fn pin(test: &TestSite, release: i64) -> Result<()> {
    let uuid = &test.site.device(DEVICE)?.uuid;
    let path = format!("/v7/device(uuid='{uuid}')");
    let answer = test.call("PATCH", &path, &format!(r#"{{"is_pinned_on__release":{release}}}"#))?;
    ensure!(answer.status == 200, "pinning answered {}: {}", answer.status, answer.body);
    Ok(())
}

/// The greeting that the page gets from the API, by its name.
fn greeting(site: &Site) -> Option<String> {
    let url = format!("http://{}/cgi-bin/readings", site.device(DEVICE).ok()?.address);
    let answer = get(&url, Duration::from_secs(2)).ok().filter(|answer| answer.status == 200)?;
    let value: Value = serde_json::from_str(&answer.body).ok()?;
    Some(value["greeting"].as_str()?.to_owned())
}

/// Waits until the release answers and the server knows that it runs.
fn arrive(test: &TestSite, wanted: &Wanted) -> Result<()> {
    wait_until(&format!("`{}`", wanted.greeting), LIMIT, || {
        Ok(greeting(&test.site).filter(|it| *it == wanted.greeting))
    })?;
    wait_until(&format!("the report of release {}", wanted.release), LIMIT, || {
        Ok(is_reported(test, wanted)?.then_some(()))
    })
}

fn is_reported(test: &TestSite, wanted: &Wanted) -> Result<bool> {
    let row = test.device_row()?;
    let services = row["services"].as_array().cloned().unwrap_or_default();
    let runs = |it: &Value| it["status"] == "Running" && it["commit"] == wanted.commit.as_str();
    Ok(row["is_running"] == wanted.commit.as_str()
        && services.len() == 3
        && services.iter().all(runs))
}

/// The state once it does not change any more: what is not needed goes last.
fn settled(test: &TestSite) -> Result<State> {
    let is_clean =
        |state: &State| state.remains.unfinished.is_empty() && state.containers.len() == 3;
    wait_until("the device to tidy up", LIMIT, || {
        // Two images of Debian and busybox make three; those of the release before are gone.
        let state = State::of(test)?;
        let images: std::collections::BTreeSet<_> =
            state.containers.values().map(|(image, _)| image.clone()).collect();
        let is_rid = images.len() == state.remains.images.len();
        Ok((is_clean(&state) && is_rid).then_some(state))
    })
}

fn kill_once(
    test: &TestSite,
    wanted: &Wanted,
    seed: u64,
    aim: Phase,
    hit: &mut BTreeMap<Phase, u64>,
) -> Result<()> {
    let mut dice = Dice(seed);
    let victim = VICTIMS[(seed % 4) as usize];
    let inside = test.inside()?;
    let socket = test.site.device(DEVICE)?.engine_socket.clone();
    let follower = Follower::start(inside.clone(), &socket, SERVICE)?;
    // Looked for before, so that the kill comes when it should.
    let init = inside.init().context("the device has no first process")?;
    let shims: Vec<i32> = inside.shims().into_values().collect();
    let shim = shims.get(dice.below(shims.len().max(1) as u64) as usize).copied();
    let victims = match victim {
        Victim::Engine => vec![inside.applet("engine")],
        Victim::Supervisor => vec![inside.applet("supervisor")],
        Victim::Both => vec![inside.applet("engine"), inside.applet("supervisor")],
        Victim::Shim => vec![shim],
    };
    pin(test, wanted.release)?;
    follower.wait_for(aim, LIMIT).with_context(|| format!("seed {seed}"))?;
    let jitter = match aim {
        Phase::Unpack | Phase::Stop | Phase::Report => 100,
        _ => 6,
    };
    // What makes the point random; nothing is waited for.
    std::thread::sleep(Duration::from_millis(dice.below(jitter)));
    if matches!(victim, Victim::Engine | Victim::Both) {
        // So that nobody starts the engine again before the look at what goes on without it.
        signal(init, Signal::STOP)?;
    }
    let phase = follower.phase();
    let mut killed = 0;
    for pid in victims.into_iter().flatten() {
        killed += u32::from(kill(pid)?);
    }
    let phase = match phase {
        Phase::Report if is_reported(test, wanted)? => Phase::After,
        other => other,
    };
    if killed > 0 {
        *hit.entry(phase).or_default() += 1;
    }
    println!("seed {seed}: {victim:?} ({killed}) killed in {phase:?}, aimed at {aim:?}");
    let begun = std::time::Instant::now();
    if matches!(victim, Victim::Engine | Victim::Both) {
        let outcome = goes_on(test, phase);
        signal(init, Signal::CONT)?;
        outcome.with_context(|| format!("seed {seed}: while the engine was away"))?;
    }
    arrive(test, wanted).with_context(|| format!("seed {seed}"))?;
    undisturbed(test, wanted).with_context(|| format!("seed {seed}"))?;
    println!("seed {seed}: all is as it should be after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until the device is as an undisturbed update leaves it.
fn undisturbed(test: &TestSite, wanted: &Wanted) -> Result<()> {
    let mut last = State::default();
    wait_until("the state that an undisturbed update leaves", LIMIT, || {
        // The engine may be starting again.
        let Ok(state) = State::of(test) else { return Ok(None) };
        last = state;
        Ok((last == wanted.state).then_some(()))
    })
    .with_context(|| format!("{last:#?}\ninstead of {:#?}", wanted.state))
}

/// While the engine is away, what it had started answers: by its port, and by its name.
fn goes_on(test: &TestSite, phase: Phase) -> Result<()> {
    let inside = test.inside()?;
    wait_until("the engine's end", PATIENCE, || {
        Ok(inside.applet("engine").is_none().then_some(()))
    })?;
    let page = format!("http://{}/", test.site.device(DEVICE)?.address);
    let answer = get(&page, PATIENCE)?;
    ensure!(answer.status == 200, "the page answers {}", answer.status);
    if matches!(phase, Phase::Before | Phase::Pull | Phase::Unpack | Phase::Report | Phase::After) {
        // A program that was started this moment may not listen yet.
        wait_until("the API, asked by its name", PATIENCE, || Ok(greeting(&test.site)))?;
    }
    Ok(())
}

/// Restarts the device by its own API.
fn reboot(test: &TestSite, wanted: &Wanted) -> Result<()> {
    let inside = test.inside()?;
    let before = inside.boot_id()?;
    let url =
        format!("{}/v1/reboot?apikey={}", test.site.device(DEVICE)?.supervisor, inside.api_key()?);
    let json = [("Content-Type", "application/json")];
    let answer = request("POST", &url, &json, "{}", PATIENCE)?;
    ensure!(answer.status == 202, "the reboot was answered {}: {}", answer.status, answer.body);
    wait_until("the next boot", LIMIT, || Ok(inside.boot_id().ok().filter(|it| *it != before)))?;
    arrive(test, wanted)?;
    wait_until("the state from before the reboot", LIMIT, || {
        Ok(State::of(test).ok().filter(|state| *state == wanted.state).map(drop))
    })
}
