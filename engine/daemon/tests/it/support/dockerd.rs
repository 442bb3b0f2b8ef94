//! Docker's own daemon 20.10, in the network namespace and below the directory of a test's site.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::{Outcome, Site, wait_until};
use super::tools;

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running dockerd. It has no bridge: its containers have a loopback, or the site's network.
pub struct Dockerd<'s> {
    site: &'s Site,
    child: Child,
    dir: PathBuf,
    cgroup: String,
}

impl Dockerd<'_> {
    /// Starts it and waits until it answers.
    pub fn start(site: &Site) -> Dockerd<'_> {
        let dir = site.dir.path().join("dockerd");
        std::fs::create_dir(&dir).unwrap();
        let programs = tools::docker20_programs();
        let mut path = std::env::join_paths(&programs).unwrap();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let dockerd = programs.iter().map(|folder| folder.join("dockerd")).find(|p| p.is_file());
        let dockerd = dockerd.expect("Debian's docker.io has a dockerd");
        let cgroup = format!("minke-peer-{}", std::process::id());
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let below = |name: &str| dir.join(name).display().to_string();
        let child = Command::new(dockerd)
            .args(["--data-root", &below("data"), "--exec-root", &below("exec")])
            .args(["--pidfile", &below("pid"), "--host", &format!("unix://{}", below("socket"))])
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--experimental"])
            .args(["--cgroup-parent", &format!("/{cgroup}")])
            .env("PATH", path)
            .env("HOME", &dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Dockerd { site, child, dir, cgroup };
        wait_until("dockerd's socket", || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("dockerd ended: {status}\n{}", daemon.log());
            }
            daemon.try_version().filter(|outcome| outcome.code == 0)
        });
        daemon
    }

    fn try_version(&self) -> Option<Outcome> {
        let there = self.dir.join("socket").exists();
        there.then(|| self.docker(&tools::docker28(), &["version"], b""))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Runs a docker CLI against it.
    pub fn docker(&self, cli: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
        let host = format!("unix://{}", self.dir.join("socket").display());
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
        let _ = self.child.kill();
        let _ = self.child.wait();
        let containerd = std::fs::read_to_string(self.dir.join("exec/containerd/containerd.pid"));
        let pid = containerd.ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- what dockerd logged:\n{}", self.log());
        }
        for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Only empty ones go.
            let _ = std::fs::remove_dir(root.path().join(&self.cgroup));
        }
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup));
    }
}
