//! One engine under measurement: its namespaces, its registry, its daemon and its command line.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minke_tests_testkit::{Binaries, wait_until};
use serde_json::json;

use super::measure::{id_of, must, processes_called, proportional, request};
use super::place::Place;
use super::priority::Group;

/// Where each engine's own registry listens, in its network namespace.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// How long an engine may take to start or end.
pub const READY: Duration = Duration::from_secs(60);

const TRUE: &[&str] = &["true"];
const SLEEP: &[&str] = &["sleep", "1000000"];
const EXEC: &str = r#"{"Cmd":["true"],"AttachStdout":true,"AttachStderr":true}"#;

/// What an engine is made of.
pub struct Setup {
    pub name: &'static str,
    /// Program and arguments of the daemon.
    pub daemon: Vec<String>,
    /// Program and first arguments of the command line.
    pub client: Vec<String>,
    /// What comes before the name of an image on Docker Hub.
    pub image_prefix: String,
    /// What a pull needs to be told besides.
    pub pull_options: Vec<String>,
    /// Open files and processes that a container may have at most, where the engine must be told.
    pub limits: Option<[u64; 2]>,
    /// Programs that stay beside a container.
    pub beside: &'static [&'static str],
    pub path: String,
    pub socket: PathBuf,
    /// Run once in the engine's mount namespace before anything else.
    pub prepare: &'static str,
}

/// An engine with its namespaces, running or not.
pub struct Engine {
    setup: Setup,
    group: Group,
    place: Place,
    /// Holds the namespaces while no engine runs in them.
    holder: Child,
    registry: Child,
    daemon: Option<Child>,
}

impl Engine {
    pub fn new(setup: Setup, binaries: &Binaries, registry_data: &Path) -> Result<Engine> {
        let group = Group::make(setup.name)?;
        let wait = format!("ip link set lo up; {}; echo ready; exec sleep 1000000", setup.prepare);
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--kill-child", "sh", "-ec", &wait])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot make namespaces")?;
        let mut ready = String::new();
        if let Some(stdout) = holder.stdout.as_mut() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready)
                .context("cannot wait for namespaces")?;
        }
        let place = Place::of(holder.id(), &group)?;
        let registry = place
            .command(&binaries.path("minke-cloud").to_string_lossy())
            .args(["registry", "--open", "--listen", REGISTRY, "--data"])
            .arg(registry_data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a registry")?;
        Ok(Engine { setup, group, place, holder, registry, daemon: None })
    }

    pub fn name(&self) -> &'static str {
        self.setup.name
    }

    /// CPU time that the engine, its command line and its helpers have used.
    pub fn cpu(&self) -> Option<Duration> {
        self.group.cpu()
    }

    /// Starts the daemon and returns how long it took until its socket answered.
    pub fn start(&mut self) -> Result<Duration> {
        let name = self.setup.name;
        let begun = Instant::now();
        let daemon = self
            .command(&self.setup.daemon)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.daemon = Some(daemon);
        let socket = &self.setup.socket;
        wait_until(&format!("the socket of {name}"), READY, || {
            Ok(request(socket, "GET", "/_ping", "").ok().filter(|answer| answer.0 == 200))
        })?;
        Ok(begun.elapsed())
    }

    pub fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_until(&format!("the end of {}", self.setup.name), READY, || {
            daemon.try_wait().context("cannot wait for an engine")
        })?;
        Ok(())
    }

    pub fn pid(&self) -> Result<i32> {
        let name = self.setup.name;
        let daemon = self.daemon.as_ref().with_context(|| format!("{name} is not running"))?;
        Ok(daemon.id() as i32)
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = self.place.command_in_group(&words[0]);
        command.args(&words[1..]).env("PATH", &self.setup.path);
        command
    }

    /// The engine's command line.
    pub fn client(&self, words: &[&str]) -> Result<()> {
        let output = self
            .command(&self.setup.client)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("cannot start a command line")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} on {}: {}", words.join(" "), self.setup.name, said.trim());
        }
        Ok(())
    }

    /// Pulls an image through the engine's own registry.
    pub fn pull(&self, image: &str) -> Result<()> {
        let name = format!("{}{image}", self.setup.image_prefix);
        let mut words = vec!["pull", "--quiet"];
        words.extend(self.setup.pull_options.iter().map(String::as_str));
        words.push(&name);
        self.client(&words)
    }

    pub fn remove_image(&self, image: &str) -> Result<()> {
        self.client(&["image", "rm", &format!("{}{image}", self.setup.image_prefix)])
    }

    fn create(&self, command: &[&str]) -> Result<String> {
        let image = format!("{}busybox", self.setup.image_prefix);
        let mut body = json!({ "Image": image, "Cmd": command });
        if let Some([files, processes]) = self.setup.limits {
            let limit = |name: &str, most: u64| json!({ "Name": name, "Soft": most, "Hard": most });
            let limits = [limit("nofile", files), limit("nproc", processes)];
            body["HostConfig"] = json!({ "Ulimits": limits });
        }
        id_of(&must(&self.setup.socket, "POST", "/containers/create", &body.to_string())?)
    }

    /// Create, start, wait and remove at the API.
    pub fn cycle(&self) -> Result<()> {
        let socket = &self.setup.socket;
        let id = self.create(TRUE)?;
        must(socket, "POST", &format!("/containers/{id}/start"), "")?;
        must(socket, "POST", &format!("/containers/{id}/wait"), "")?;
        must(socket, "DELETE", &format!("/containers/{id}"), "").map(drop)
    }

    pub fn start_sleeper(&self) -> Result<String> {
        let id = self.create(SLEEP)?;
        must(&self.setup.socket, "POST", &format!("/containers/{id}/start"), "")?;
        Ok(id)
    }

    pub fn remove(&self, id: &str) -> Result<()> {
        must(&self.setup.socket, "DELETE", &format!("/containers/{id}?force=1"), "").map(drop)
    }

    pub fn exec(&self, container: &str) -> Result<()> {
        let socket = &self.setup.socket;
        let id = id_of(&must(socket, "POST", &format!("/containers/{container}/exec"), EXEC)?)?;
        must(socket, "POST", &format!("/exec/{id}/start"), r#"{"Detach":false}"#).map(drop)
    }

    /// Runs a container that does nothing, and removes it, by the command line.
    pub fn run_true(&self, options: &[&str]) -> Result<()> {
        let image = format!("{}busybox", self.setup.image_prefix);
        let limits: Vec<String> = self.setup.limits.map_or_else(Vec::new, |[files, processes]| {
            vec![format!("--ulimit=nofile={files}"), format!("--ulimit=nproc={processes}")]
        });
        let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
        self.client(&[&["run", "--rm"], &limits[..], options, &[&image, "true"]].concat())
    }

    /// What the processes beside containers use, proportionally, in KiB: without the containers' own, which
    /// are their children.
    pub fn beside(&self) -> u64 {
        let programs = self.setup.beside.iter().flat_map(|name| processes_called(name));
        programs.filter_map(proportional).sum()
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
        self.group.remove();
    }
}
