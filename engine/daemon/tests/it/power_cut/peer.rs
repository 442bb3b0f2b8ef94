//! The engines that are looked at.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Site, docker20_programs, engine, shim};

/// How long an engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine.
pub enum Peer {
    Minke,
    /// The same program; the kernel tells it that it synced, and does not.
    MinkeWithoutSyncs,
    /// Debian's.
    Dockerd,
}

/// An engine that runs.
pub struct Running {
    child: Child,
}

impl Peer {
    pub fn name(&self) -> &'static str {
        match self {
            Peer::Minke => "minke",
            Peer::MinkeWithoutSyncs => "minke without syncs",
            Peer::Dockerd => "dockerd 20.10",
        }
    }

    pub fn is_minke(&self) -> bool {
        !matches!(self, Peer::Dockerd)
    }

    /// Starts it on the site's data directory and waits until it answers.
    pub fn start(&self, site: &Site) -> Result<Running, String> {
        let log = std::fs::File::create(site.dir.path().join("engine.log")).unwrap();
        let mut command = match self {
            Peer::Minke | Peer::MinkeWithoutSyncs => minke(site),
            Peer::Dockerd => dockerd(site),
        };
        if matches!(self, Peer::MinkeWithoutSyncs) {
            // SAFETY: two system calls and no allocation.
            unsafe { command.pre_exec(pretend_to_sync) };
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut running = Running { child };
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(format!("it ended with {status}: {}", last_lines(&site.log())));
            }
            if site.socket().exists() && site.docker(&["info"]).code == 0 {
                return Ok(running);
            }
            if begun.elapsed() > PATIENCE {
                running.stop();
                return Err(format!("it does not answer: {}", last_lines(&site.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

fn minke(site: &Site) -> Command {
    let mut command = Command::new(engine());
    command.arg("--data").arg(site.data()).arg("--socket").arg(site.socket());
    command.env("MINKE_SHIM", shim());
    command
}

fn dockerd(site: &Site) -> Command {
    let dir = site.dir.path();
    // What it keeps of a boot is gone after a reboot.
    let _ = std::fs::remove_dir_all(dir.join("exec"));
    let _ = std::fs::remove_file(dir.join("pid"));
    let programs = docker20_programs();
    let mut path = std::env::join_paths(&programs).unwrap();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let daemon = programs.iter().map(|folder| folder.join("dockerd")).find(|it| it.is_file());
    let mut command = Command::new(daemon.expect("Debian's docker.io has a dockerd"));
    command
        .arg(format!("--data-root={}", site.data().display()))
        .arg(format!("--exec-root={}", dir.join("exec").display()))
        .arg(format!("--pidfile={}", dir.join("pid").display()))
        .arg(format!("--host=unix://{}", site.socket().display()))
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
        .env("PATH", path);
    command
}

impl Running {
    /// Asks it to end, and makes it.
    pub fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let begun = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if begun.elapsed() > PATIENCE {
                let _ = kill_process(pid, Signal::KILL);
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every call that makes data durable answers at once from now on, also in children.
fn pretend_to_sync() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let equal = |call: libc::c_long, to: u8| line(EQUAL, to, 0, call as u32);
    let mut lines = [
        line(LOAD, 0, 0, 0),
        equal(libc::SYS_fsync, 6),
        equal(libc::SYS_fdatasync, 5),
        equal(libc::SYS_syncfs, 4),
        equal(libc::SYS_sync, 3),
        equal(libc::SYS_msync, 2),
        equal(libc::SYS_sync_file_range, 1),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO),
    ];
    let program = libc::sock_fprog { len: lines.len() as u16, filter: lines.as_mut_ptr() };
    // SAFETY: the program lives until the call returns.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
