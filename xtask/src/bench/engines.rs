//! The same operations on both engines.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minke_tests_testkit::{Binaries, base_images, wait_until};

use super::Options;
use super::measure::{
    cpu, id_of, median, memory, must, peak_memory, processes_called, request, time,
};
use super::table::{Table, Value};
use crate::docker::Peer;

const REGISTRY: &str = "127.0.0.1:5000";
const CONTAINERS: usize = 20;
const READY: Duration = Duration::from_secs(60);
const TRUE: &str = r#"{"Image":"busybox","Cmd":["true"]}"#;
const SLEEP: &str = r#"{"Image":"busybox","Cmd":["sleep","1000000"]}"#;
const EXEC: &str = r#"{"Cmd":["true"],"AttachStdout":true,"AttachStderr":true}"#;

/// An engine with its namespace, running or not.
struct Engine {
    name: &'static str,
    /// Holds the network namespace while no engine runs in it.
    holder: Child,
    registry: Child,
    daemon: Option<Child>,
    /// Program and arguments of the daemon.
    command: Vec<String>,
    path: String,
    socket: PathBuf,
}

impl Engine {
    fn new(
        name: &'static str,
        command: Vec<String>,
        path: String,
        socket: PathBuf,
        binaries: &Binaries,
        registry_data: &Path,
    ) -> Result<Engine> {
        let holder = Command::new("unshare")
            .args(["--net", "--kill-child", "sh", "-c", "ip link set lo up && exec sleep 1000000"])
            .spawn()
            .context("cannot make a network namespace")?;
        let mut inside = inside(&holder, &binaries.path("minke-cloud").to_string_lossy());
        let registry = inside
            .args(["registry", "--open", "--listen", REGISTRY, "--data"])
            .arg(registry_data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a registry")?;
        Ok(Engine { name, holder, registry, daemon: None, command, path, socket })
    }

    /// Starts the daemon and returns how long it took until its socket answered.
    fn start(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut command = inside(&self.holder, &self.command[0]);
        let daemon = command
            .args(&self.command[1..])
            .env("PATH", &self.path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.daemon = Some(daemon);
        wait_until(&format!("the socket of {}", self.name), READY, || {
            Ok(request(&self.socket, "GET", "/_ping", "").ok().filter(|answer| answer.0 == 200))
        })?;
        Ok(begun.elapsed())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_until(&format!("the end of {}", self.name), READY, || {
            daemon.try_wait().context("cannot wait for an engine")
        })?;
        Ok(())
    }

    fn pid(&self) -> Result<i32> {
        let daemon =
            self.daemon.as_ref().with_context(|| format!("{} is not running", self.name))?;
        Ok(daemon.id() as i32)
    }

    /// The docker CLI, talking to this engine.
    fn docker(&self, words: &[&str]) -> Result<()> {
        let output = inside(&self.holder, "docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("cannot start the docker CLI")?;
        if !output.status.success() {
            bail!(
                "docker {} on {}: {}",
                words.join(" "),
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Create, start, wait and remove at the API.
    fn cycle(&self) -> Result<()> {
        let id = id_of(&must(&self.socket, "POST", "/containers/create", TRUE)?)?;
        must(&self.socket, "POST", &format!("/containers/{id}/start"), "")?;
        must(&self.socket, "POST", &format!("/containers/{id}/wait"), "")?;
        must(&self.socket, "DELETE", &format!("/containers/{id}"), "").map(drop)
    }

    fn start_sleeper(&self) -> Result<String> {
        let id = id_of(&must(&self.socket, "POST", "/containers/create", SLEEP)?)?;
        must(&self.socket, "POST", &format!("/containers/{id}/start"), "")?;
        Ok(id)
    }

    fn remove(&self, id: &str) -> Result<()> {
        must(&self.socket, "DELETE", &format!("/containers/{id}?force=1"), "").map(drop)
    }

    fn exec(&self, container: &str) -> Result<()> {
        let id =
            id_of(&must(&self.socket, "POST", &format!("/containers/{container}/exec"), EXEC)?)?;
        must(&self.socket, "POST", &format!("/exec/{id}/start"), r#"{"Detach":false}"#).map(drop)
    }

    /// What the engine's shims use, proportionally, in KiB.
    fn shims(&self) -> u64 {
        let name = if self.name == "dockerd" { "containerd-shim-runc-v2" } else { "minke-shim" };
        processes_called(name).into_iter().map(|pid| memory(pid).1).sum()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        for child in [&mut self.registry, &mut self.holder] {
            // Both may have ended by themselves, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `program` in the engine's network namespace. `nsenter` keeps the cgroup mounts visible.
fn inside(holder: &Child, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", holder.id())).arg("--").arg(program);
    command
}

pub fn compare(
    options: &Options,
    binaries: &Binaries,
    peer: &Peer,
    work: &Path,
    table: &mut Table,
) -> Result<()> {
    let images = work.join("images");
    store_images(binaries, &images)?;
    let mut engines = [dockerd(binaries, peer, work, &images)?, minke(binaries, work, &images)?];
    if options.wants("start") {
        start_up(options, &mut engines, table)?;
    }
    for engine in &mut engines {
        engine.start()?;
        engine.docker(&["pull", "--quiet", "busybox"])?;
    }
    if options.wants("memory") {
        idle_memory(&engines, table)?;
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

/// Fills a registry's data folder with the images that are pulled.
fn store_images(binaries: &Binaries, data: &Path) -> Result<()> {
    let mut registry = Command::new(binaries.path("minke-cloud"))
        .args(["registry", "--open", "--listen", REGISTRY, "--data"])
        .arg(data)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start a registry")?;
    let cache = crate::target().join("base-images");
    let stored =
        wait_until("the registry", READY, || Ok(std::net::TcpStream::connect(REGISTRY).ok()))
            .and_then(|_| base_images::build(&cache, REGISTRY, &mut |text| println!("{text}")))
            .and_then(|()| {
                base_images::build_large(&cache, REGISTRY, &mut |text| println!("{text}"))
            });
    registry.kill().context("cannot end the registry")?;
    registry.wait().context("cannot wait for the registry")?;
    stored
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    crate::command::run(Command::new("cp").arg("-a").arg(from).arg(to))
}

fn dockerd(binaries: &Binaries, peer: &Peer, work: &Path, images: &Path) -> Result<Engine> {
    let folder = work.join("dockerd");
    std::fs::create_dir_all(&folder).context("cannot make a folder")?;
    copy(images, &folder.join("registry"))?;
    let socket = folder.join("docker.sock");
    let command = [
        peer.programs.join("dockerd").display().to_string(),
        format!("--data-root={}", folder.join("data").display()),
        format!("--exec-root={}", folder.join("exec").display()),
        format!("--pidfile={}", folder.join("pid").display()),
        format!("--host=unix://{}", socket.display()),
        format!("--registry-mirror=http://{REGISTRY}"),
        format!("--insecure-registry={REGISTRY}"),
    ];
    Engine::new(
        "dockerd",
        command.to_vec(),
        peer.path(),
        socket,
        binaries,
        &folder.join("registry"),
    )
}

fn minke(binaries: &Binaries, work: &Path, images: &Path) -> Result<Engine> {
    let folder = work.join("minke");
    std::fs::create_dir_all(&folder).context("cannot make a folder")?;
    copy(images, &folder.join("registry"))?;
    let socket = folder.join("engine.sock");
    let command = [
        binaries.path("minke-device").display().to_string(),
        "engine".to_owned(),
        format!("--data={}", folder.join("data").display()),
        format!("--socket={}", socket.display()),
        format!("--registry-mirror=http://{REGISTRY}"),
        format!("--insecure-registry={REGISTRY}"),
    ];
    let path = std::env::var("PATH").unwrap_or_default();
    Engine::new("minke", command.to_vec(), path, socket, binaries, &folder.join("registry"))
}

/// Runs `work` on both engines in turn and adds a row with the medians.
fn alternate(
    options: &Options,
    engines: &[Engine; 2],
    table: &mut Table,
    (what, budget): (&str, &'static str),
    mut work: impl FnMut(&Engine) -> Result<()>,
) -> Result<()> {
    println!("measuring: {what}");
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..options.runs + 2 {
        for (engine, times) in engines.iter().zip(&mut times) {
            let taken = time(|| work(engine))?;
            // The first two rounds warm caches.
            if round >= 2 {
                times.push(taken);
            }
        }
    }
    let [peer, ours] = times.map(median);
    table.add(what, Some(Value::Time(peer)), Value::Time(ours), budget);
    Ok(())
}

fn start_up(options: &Options, engines: &mut [Engine; 2], table: &mut Table) -> Result<()> {
    println!("measuring: start to socket");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..options.runs.min(5) {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            times.push(engine.start()?);
            engine.stop()?;
        }
    }
    let [peer, ours] = times.map(median);
    table.add("engine start to socket", Some(Value::Time(peer)), Value::Time(ours), "≤ 50 ms");
    Ok(())
}

fn idle_memory(engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    let [peer, ours] = [memory(engines[0].pid()?), memory(engines[1].pid()?)];
    table.add("engine idle, RSS", Some(Value::Kib(peer.0)), Value::Kib(ours.0), "≤ 10 MB");
    table.add("engine idle, PSS", Some(Value::Kib(peer.1)), Value::Kib(ours.1), "");
    Ok(())
}

fn cycles(options: &Options, engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    let row = ("create+start+wait+remove, bridge, API", "≤ 60 ms");
    alternate(options, engines, table, row, Engine::cycle)?;
    let row = ("docker run --rm busybox true", "≤ 100 ms");
    alternate(options, engines, table, row, |engine| {
        engine.docker(&["run", "--rm", "busybox", "true"])
    })?;
    let row = ("docker run --rm --network none busybox true", "");
    alternate(options, engines, table, row, |engine| {
        engine.docker(&["run", "--rm", "--network", "none", "busybox", "true"])
    })
}

fn execs(options: &Options, engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    let sleepers = [engines[0].start_sleeper()?, engines[1].start_sleeper()?];
    let sleeper = |engine: &Engine| &sleepers[usize::from(engine.name != engines[0].name)];
    let row = ("exec, API", "≤ 12 ms");
    alternate(options, engines, table, row, |engine| engine.exec(sleeper(engine)))?;
    let row = ("docker exec C true", "≤ 30 ms");
    alternate(options, engines, table, row, |engine| {
        engine.docker(&["exec", sleeper(engine), "true"])
    })?;
    for engine in engines {
        engine.remove(sleeper(engine))?;
    }
    Ok(())
}

fn memory_per_container(engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    println!("measuring: memory of {CONTAINERS} containers");
    let mut each = Vec::new();
    for engine in engines {
        let before = engine.shims();
        let ids = (0..CONTAINERS).map(|_| engine.start_sleeper()).collect::<Result<Vec<_>>>()?;
        each.push(engine.shims().saturating_sub(before) / CONTAINERS as u64);
        for id in ids {
            engine.remove(&id)?;
        }
    }
    table.add(
        "shim of a container, PSS",
        Some(Value::Kib(each[0])),
        Value::Kib(each[1]),
        "≤ 0.3 MB",
    );
    Ok(())
}

fn pulls(engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    println!("measuring: pull");
    let mut times = Vec::new();
    let mut used = Vec::new();
    for engine in engines {
        let mut taken = Vec::new();
        let mut cpus = Vec::new();
        for _ in 0..3 {
            let before = cpu(engine.pid()?);
            taken.push(time(|| engine.docker(&["pull", "--quiet", base_images::LARGE]))?);
            cpus.push(cpu(engine.pid()?).saturating_sub(before));
            engine.docker(&["image", "rm", base_images::LARGE])?;
        }
        times.push(median(taken));
        used.push(median(cpus));
    }
    table.add("pull of a large image", Some(Value::Time(times[0])), Value::Time(times[1]), "≤ 3 s");
    table.add("… CPU of the engine", Some(Value::Time(used[0])), Value::Time(used[1]), "≤ 4 s");
    if let (Some(peer), Some(ours)) =
        (peak_memory(engines[0].pid()?), peak_memory(engines[1].pid()?))
    {
        table.add("… peak RSS of the daemon", Some(Value::Kib(peer)), Value::Kib(ours), "≤ 40 MB");
    }
    Ok(())
}
