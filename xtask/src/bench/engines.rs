//! The same operations on every engine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use minke_tests_testkit::{Binaries, base_images};

use super::engine::Engine;
use super::measure::{cpu, median, memory, peak_memory, time};
use super::table::{Budget, Table, Value};
use super::{Options, peers};
use crate::docker::Peer;

const CONTAINERS: usize = 20;
/// Without a request for so long, an engine is idle.
const IDLE: Duration = Duration::from_secs(10);

/// The peers first, ours last.
type Engines = [Engine; 3];

pub fn compare(
    options: &Options,
    binaries: &Binaries,
    peer: &Peer,
    work: &Path,
    table: &mut Table,
) -> Result<()> {
    let images = work.join("images");
    peers::store_images(binaries, &images)?;
    let mut engines = [
        peers::dockerd(binaries, peer, work, &images)?,
        peers::podman(binaries, work, &images)?,
        peers::minke(binaries, peer, work, &images)?,
    ];
    if options.wants("start") {
        start_up(options, &mut engines, table)?;
    }
    for engine in &mut engines {
        engine.start()?;
        engine.pull("busybox")?;
    }
    if options.wants("memory") {
        idle_memory(&engines, table)?;
        size_on_disk(binaries, table)?;
    }
    if options.wants("run") {
        cycles(options, &engines, table)?;
    }
    if options.wants("exec") {
        execs(options, &engines, table)?;
    }
    if options.wants("memory") {
        memory_per_container(&engines, table)?;
    }
    if options.wants("pull") {
        pulls(&engines, table)?;
    }
    Ok(())
}

/// A row of one value an engine.
fn add(
    table: &mut Table,
    what: &str,
    budget: Option<Budget>,
    engines: &Engines,
    mut value: impl FnMut(usize, &Engine) -> Result<Option<Value>>,
) -> Result<()> {
    let mut values = Vec::new();
    for (place, engine) in engines.iter().enumerate() {
        values.push(value(place, engine)?);
    }
    let ours = values.pop().flatten().context("our own engine has no value")?;
    table.compare(what, &values, ours, budget);
    Ok(())
}

/// Runs `work` on the engines in turn and adds rows with the medians of time and CPU time.
fn alternate(
    options: &Options,
    engines: &Engines,
    table: &mut Table,
    (what, budget): (&str, Option<Budget>),
    mut work: impl FnMut(usize, &Engine) -> Result<()>,
) -> Result<()> {
    println!("measuring: {what}");
    let mut times = [const { Vec::new() }; 3];
    let mut used = [const { Vec::new() }; 3];
    for round in 0..options.runs + 2 {
        for (place, engine) in engines.iter().enumerate() {
            let before = engine.cpu();
            let taken = time(|| work(place, engine))?;
            // The first two rounds warm caches.
            if round >= 2 {
                times[place].push(taken);
                used[place].extend(engine.cpu().zip(before).map(|(now, then)| now - then));
            }
        }
    }
    let value =
        |times: &Vec<Duration>| (!times.is_empty()).then(|| Value::Time(median(times.clone())));
    add(table, what, budget, engines, |place, _| Ok(value(&times[place])))?;
    if used.iter().any(Vec::is_empty) {
        return Ok(());
    }
    add(table, "… CPU time", None, engines, |place, _| Ok(value(&used[place])))
}

fn start_up(options: &Options, engines: &mut Engines, table: &mut Table) -> Result<()> {
    println!("measuring: start to socket");
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..options.runs.min(5) {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            times.push(engine.start()?);
            engine.stop()?;
        }
    }
    add(table, "engine start to socket", Some(Budget::Milliseconds(50)), engines, |place, _| {
        Ok(Some(Value::Time(median(times[place].clone()))))
    })
}

fn idle_memory(engines: &Engines, table: &mut Table) -> Result<()> {
    println!("measuring: memory after {} s without a request", IDLE.as_secs());
    std::thread::sleep(IDLE);
    add(table, "engine idle, RSS", Some(Budget::Megabytes(10.0)), engines, |_, engine| {
        Ok(Some(Value::Kib(memory(engine.pid()?).0)))
    })?;
    add(table, "engine idle, PSS", None, engines, |_, engine| {
        Ok(Some(Value::Kib(memory(engine.pid()?).1)))
    })
}

fn size_on_disk(binaries: &Binaries, table: &mut Table) -> Result<()> {
    let path = binaries.path("minke-device");
    let metadata =
        std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let size = Value::Kib(metadata.len().div_ceil(1024));
    table.add("minke-device on the disk", size, Some(Budget::Megabytes(12.0)));
    Ok(())
}

fn cycles(options: &Options, engines: &Engines, table: &mut Table) -> Result<()> {
    let row = ("create+start+wait+remove, bridge, API", Some(Budget::Milliseconds(60)));
    alternate(options, engines, table, row, |_, engine| engine.cycle())?;
    let row = ("run --rm busybox true, CLI", Some(Budget::Milliseconds(100)));
    alternate(options, engines, table, row, |_, engine| engine.run_true(&[]))?;
    let row = ("run --rm --network none busybox true, CLI", None);
    alternate(options, engines, table, row, |_, engine| engine.run_true(&["--network", "none"]))
}

fn execs(options: &Options, engines: &Engines, table: &mut Table) -> Result<()> {
    let sleepers = engines.iter().map(Engine::start_sleeper).collect::<Result<Vec<_>>>()?;
    let row = ("exec, API", Some(Budget::Milliseconds(12)));
    alternate(options, engines, table, row, |place, engine| engine.exec(&sleepers[place]))?;
    let row = ("exec C true, CLI", Some(Budget::Milliseconds(30)));
    alternate(options, engines, table, row, |place, engine| {
        engine.client(&["exec", &sleepers[place], "true"])
    })?;
    engines.iter().zip(&sleepers).try_for_each(|(engine, sleeper)| engine.remove(sleeper))
}

fn memory_per_container(engines: &Engines, table: &mut Table) -> Result<()> {
    println!("measuring: memory of {CONTAINERS} containers");
    add(table, "beside each container, PSS", Some(Budget::Megabytes(0.3)), engines, |_, engine| {
        let before = engine.beside();
        let ids = (0..CONTAINERS).map(|_| engine.start_sleeper()).collect::<Result<Vec<_>>>()?;
        let each = engine.beside().saturating_sub(before) / CONTAINERS as u64;
        ids.iter().try_for_each(|id| engine.remove(id))?;
        Ok(Some(Value::Kib(each)))
    })
}

fn pulls(engines: &Engines, table: &mut Table) -> Result<()> {
    println!("measuring: pull");
    let mut used: Vec<Option<Duration>> = Vec::new();
    add(table, "pull of a large image", Some(Budget::Seconds(3)), engines, |_, engine| {
        let (mut times, mut cpus) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let before = cpu_of_pulls(engine)?;
            times.push(time(|| engine.pull(base_images::LARGE))?);
            let after = cpu_of_pulls(engine)?;
            cpus.extend(after.zip(before).map(|(after, before)| after.saturating_sub(before)));
            engine.remove_image(base_images::LARGE)?;
        }
        used.push((!cpus.is_empty()).then(|| median(cpus)));
        Ok(Some(Value::Time(median(times))))
    })?;
    add(table, "… CPU time", Some(Budget::Seconds(4)), engines, |place, _| {
        Ok(used[place].map(Value::Time))
    })?;
    add(table, "… peak RSS of the daemon", Some(Budget::Megabytes(40.0)), engines, |_, engine| {
        let peak = peak_memory(engine.pid()?).filter(|_| !pulls_in_its_client(engine));
        Ok(peak.map(Value::Kib))
    })
}

/// podman pulls in its command line, which is gone when one looks: what its service uses is not it.
fn pulls_in_its_client(engine: &Engine) -> bool {
    engine.name() == "podman"
}

/// CPU time so far of whatever pulls; `None` where it cannot be known.
fn cpu_of_pulls(engine: &Engine) -> Result<Option<Duration>> {
    match engine.cpu() {
        Some(of_all) => Ok(Some(of_all)),
        None if pulls_in_its_client(engine) => Ok(None),
        None => Ok(Some(cpu(engine.pid()?))),
    }
}
