//! Docker's own daemon 20.10, in the network namespace and below the directory of a test's site.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::{Outcome, Site, wait_until};
use super::tools;

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running dockerd.
pub struct Dockerd<'s> {
    site: &'s Site,
    child: Child,
    dir: PathBuf,
    cgroup: String,
    arguments: &'static [&'static str],
}

/// Without a bridge: its containers have a loopback, or the site's network.
const ALONE: [&str; 4] = ["--bridge", "none", "--iptables=false", "--ip6tables=false"];

impl Dockerd<'_> {
    /// Starts it without a bridge and waits until it answers: its containers have a loopback, or the
    /// site's network.
    pub fn start(site: &Site) -> Dockerd<'_> {
        Dockerd::start_with(site, &ALONE)
    }

    /// Starts it as people do, with a bridge and a process for each port.
    pub fn start_whole(site: &Site) -> Dockerd<'_> {
        Dockerd::start_with(site, &[])
    }

    fn start_with<'s>(site: &'s Site, arguments: &'static [&'static str]) -> Dockerd<'s> {
        let dir = site.dir.path().join("dockerd");
        std::fs::create_dir(&dir).unwrap();
        let cgroup = format!("minke-peer-{}", std::process::id());
        let child = spawn(&dir, &cgroup, arguments);
        let mut daemon = Dockerd { site, child, dir, cgroup, arguments };
        daemon.wait();
        daemon
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Where it keeps images and containers.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends it and its containerd with SIGKILL; what runs in containers goes on.
    pub fn kill(&mut self) {
        let containerd = self.containerd();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(pid) = containerd {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Starts it after it was killed. What it finds of its containerd keeps it from starting.
    pub fn start_again(&mut self) {
        let _ = std::fs::remove_dir_all(self.dir.join("exec"));
        let _ = std::fs::remove_file(self.dir.join("pid"));
        self.child = spawn(&self.dir, &self.cgroup, self.arguments);
        self.wait();
    }

    fn containerd(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.dir.join("exec/containerd/containerd.pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }

    fn wait(&mut self) {
        wait_until("dockerd's socket", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("dockerd ended: {status}\n{}", self.log());
            }
            self.try_version().filter(|outcome| outcome.code == 0)
        });
    }

    fn try_version(&self) -> Option<Outcome> {
        let there = self.socket().exists();
        there.then(|| self.docker(&tools::docker28(), &["version"], b""))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Runs a docker CLI against it.
    pub fn docker(&self, cli: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
        let host = format!("unix://{}", self.socket().display());
        let mut all = vec!["--host", host.as_str()];
        all.extend_from_slice(arguments);
        self.site.command(cli, &all, input)
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

fn spawn(dir: &Path, cgroup: &str, arguments: &[&str]) -> Child {
    let programs = tools::docker20_programs();
    let mut path = std::env::join_paths(&programs).unwrap();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path.push(":/usr/sbin:/sbin");
    let dockerd = programs.iter().map(|folder| folder.join("dockerd")).find(|p| p.is_file());
    let dockerd = dockerd.expect("Debian's docker.io has a dockerd");
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let below = |name: &str| dir.join(name).display().to_string();
    Command::new(dockerd)
        .args(["--data-root", &below("data"), "--exec-root", &below("exec")])
        .args(["--pidfile", &below("pid"), "--host", &format!("unix://{}", below("socket"))])
        .args(["--experimental", "--cgroup-parent", &format!("/{cgroup}")])
        .args(arguments)
        .env("PATH", path)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Dockerd<'_> {
    /// Ends what runs on without it, and takes down what is mounted.
    fn sweep(&self) {
        let dir = self.dir.display().to_string();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
            let text = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
            let mentions =
                |text: Vec<u8>, what: &str| String::from_utf8_lossy(&text).contains(what);
            let is_of_it =
                mentions(text("cmdline"), &dir) || mentions(text("cgroup"), &self.cgroup);
            if let Some(pid) = Pid::from_raw(pid).filter(|_| is_of_it) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for target in targets.filter(|target| target.starts_with(&dir)) {
            let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// Removes its cgroups, deepest first, once what was in them has ended.
    fn remove_cgroups(&self) {
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = roots.map(|root| root.path()).chain(["/sys/fs/cgroup".into()]);
        for top in roots.map(|root| root.join(&self.cgroup)).filter(|top| top.is_dir()) {
            for below in std::fs::read_dir(&top).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(below.path());
            }
            // Only empty ones go.
            let _ = std::fs::remove_dir(&top);
        }
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        self.end();
        self.sweep();
        if std::thread::panicking() {
            eprintln!("--- what dockerd logged:\n{}", self.log());
        }
        std::thread::sleep(Duration::from_millis(100));
        self.remove_cgroups();
    }
}
