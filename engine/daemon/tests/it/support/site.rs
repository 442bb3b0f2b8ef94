//! A daemon in a network namespace of its own.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use minke_engine_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

use super::tools;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a shim may take to end behind its container before it is killed.
const SHIM_END: Duration = Duration::from_secs(2);

/// A daemon, and what it works on.
pub struct Site {
    pub dir: TempDir,
    engine: Option<Child>,
    arguments: Vec<String>,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its standard output; it must have ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }
}

/// This moment as `docker events` takes it. It cuts what is relative to now, like `0s`, to its second.
pub fn now() -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// Waits until `found` says something.
#[track_caller]
pub fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not come to pass in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Site {
    /// A running daemon with the test image.
    pub fn new() -> Site {
        let site = Site::empty(&[]);
        site.load_image();
        site
    }

    /// A running daemon without images, with further arguments.
    pub fn empty(arguments: &[&str]) -> Site {
        let mut site = Site::stopped();
        site.restart_with(arguments);
        site
    }

    /// A place for a daemon.
    pub fn stopped() -> Site {
        // SAFETY: only this thread and what it starts get a new network namespace; no descriptor of it
        // is shared with another thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).unwrap() };
        tools::loopback_up();
        Site { dir: tempfile::tempdir().unwrap(), engine: None, arguments: Vec::new() }
    }

    /// Where the daemon keeps everything.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// A client of the daemon.
    pub fn client(&self) -> Client {
        Client::unix(self.socket())
    }

    /// The daemon's process id.
    pub fn engine_pid(&self) -> u32 {
        self.engine.as_ref().expect("a daemon runs").id()
    }

    /// Starts the daemon and waits until it answers everything.
    pub fn start_engine(&mut self) {
        self.spawn_engine();
        wait_until("the engine's socket", || {
            let engine = self.engine.as_mut().unwrap();
            if let Some(status) = engine.try_wait().unwrap() {
                panic!("the engine ended: {status}\n{}", self.log());
            }
            self.try_docker(&["info"]).filter(|outcome| outcome.code == 0)
        });
    }

    /// Starts the daemon.
    pub fn spawn_engine(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("engine.log"))
            .unwrap();
        let child = Command::new(tools::engine())
            .arg("--data")
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.arguments)
            .env("MINKE_SHIM", tools::shim())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.engine = Some(child);
    }

    /// Starts the daemon with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.start_engine();
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("engine.log")).unwrap_or_default()
    }

    /// Kills the daemon as a crash would.
    pub fn kill_engine(&mut self) {
        self.end_engine(Signal::KILL);
    }

    /// Asks the daemon to end, and waits for it.
    pub fn stop_engine(&mut self) {
        self.end_engine(Signal::TERM);
    }

    fn end_engine(&mut self, signal: Signal) {
        if let Some(mut engine) = self.engine.take() {
            kill_process(Pid::from_raw(engine.id() as i32).unwrap(), signal).unwrap();
            engine.wait().unwrap();
        }
    }

    /// Loads the test image.
    pub fn load_image(&self) {
        let archive = super::image_archive();
        let outcome = self.command(&tools::docker28(), &["load"], &archive);
        assert!(outcome.ok().contains("Loaded image: busybox:latest"));
    }

    /// Runs the newer docker CLI.
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        self.cli(&tools::docker28(), arguments)
    }

    /// Runs a docker CLI.
    pub fn cli(&self, docker: &Path, arguments: &[&str]) -> Outcome {
        self.command(docker, arguments, b"")
    }

    fn try_docker(&self, arguments: &[&str]) -> Option<Outcome> {
        self.socket().exists().then(|| self.docker(arguments))
    }

    /// Runs a docker CLI with input.
    pub fn command(&self, docker: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.spawn(docker, arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that does not read its input ends before it gets all of it.
            let _ = stdin.write_all(&input);
        });
        let outcome = finish(child);
        writer.join().unwrap();
        outcome
    }

    /// Starts a docker CLI in the background.
    pub fn spawn(&self, docker: &Path, arguments: &[&str]) -> Child {
        self.prepare(docker).args(arguments).spawn().unwrap()
    }

    fn prepare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.dir.path().join("docker-config"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a line of shell at a terminal (of `script`), with `$docker` as the CLI.
    pub fn at_terminal(&self, docker: &Path, line: &str, input: &[u8]) -> Outcome {
        let line = line.replace("$docker", &docker.to_string_lossy());
        self.command_of("script", &["-qec", &line, "/dev/null"], input)
    }

    /// Runs another program in the site's network namespace.
    pub fn command_of(&self, program: &str, arguments: &[&str], input: &[u8]) -> Outcome {
        self.command(Path::new(program), arguments, input)
    }

    /// The first line that a port of this namespace says.
    pub fn say_of_port(&self, address: &str, port: u16) -> Option<String> {
        let stream = std::net::TcpStream::connect((address, port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).ok()?;
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    /// Does something in a running container's network namespace.
    pub fn inside<T: Send>(&self, container: &str, work: impl FnOnce() -> T + Send) -> T {
        let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", container]).ok();
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        let enter = || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Runs `work` with a runtime of one thread: this one, which is in the namespace.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    }

    /// The links of the site's network namespace.
    pub fn links(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        let mut links: Vec<String> = names.map(|(name, _)| name.trim().to_owned()).collect();
        links.sort();
        links
    }

    /// What of this engine is in the kernel: mounts and cgroups.
    pub fn traces(&self) -> Vec<String> {
        let mut found = self.mounts();
        let netns = format!("{}/run/netns", self.data().display());
        found.retain(|mount| !mount.starts_with(&netns) || mount.len() > netns.len());
        for cgroup in self.cgroups() {
            for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        found
    }

    /// What is there when containers have ended or were removed, and stays: traces, and files of removed
    /// containers. Mounts and files may take a moment longer than the answer.
    pub fn remains(&self) -> Vec<String> {
        let hidden = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes()[0] == b'.';
        let look = || {
            let entries = std::fs::read_dir(self.data().join("containers")).unwrap().flatten();
            let files = entries.filter(hidden).map(|entry| entry.path().display().to_string());
            self.traces().into_iter().chain(files).collect::<Vec<_>>()
        };
        wait_for(PATIENCE, || look().is_empty());
        look()
    }

    fn mounts(&self) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.dir.path().to_string_lossy().into_owned();
        let mut mounts: Vec<String> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|path| path.starts_with(&below))
            .map(str::to_owned)
            .collect();
        mounts.sort_by_key(|path| std::cmp::Reverse(path.len()));
        mounts
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let Ok(id) = std::fs::read_to_string(self.data().join("engine-id")) else {
            return Vec::new();
        };
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            roots.push(entry.path());
        }
        let own = roots.into_iter().map(|root| root.join("minke").join(id.trim()));
        own.filter(|path| path.is_dir()).collect()
    }
}

fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the engine logged:\n{}", self.log());
        }
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        let cgroups = self.cgroups();
        let mut below = Vec::new();
        for cgroup in &cgroups {
            for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    below.push(entry.path());
                }
            }
        }
        let _ = minke_engine_shim::cgroup::kill_and_remove(&below, Duration::from_secs(10));
        self.end_shims();
        for cgroup in cgroups {
            // Its parent is shared with engines that start now.
            let _ = std::fs::remove_dir(&cgroup);
        }
        for mount in self.mounts() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Site {
    /// Shims end by themselves when their containers do; those of containers that never ran do not.
    fn end_shims(&self) {
        let containers = self.data().join("containers");
        for entry in std::fs::read_dir(containers).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path().join("shim/shim.pid"));
            let Ok(text) = text else { continue };
            wait_for(SHIM_END, || !minke_engine_shim::identity::is_alive(&text));
            if minke_engine_shim::identity::is_alive(&text)
                && let Some((pid, _)) = minke_engine_shim::identity::parse(&text)
                && let Some(pid) = Pid::from_raw(pid as i32)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn wait_for(time: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}
