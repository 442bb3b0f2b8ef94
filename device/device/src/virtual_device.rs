//! A whole device in namespaces of its own.
//!
//! ```text
//!   minke-device virtual            outside: makes the bridge, waits, cleans up
//!     └─ virtual-init  (outside)    enters the namespaces, is replaced as a whole by a reboot
//!          └─ virtual-init (pid 1)  mounts, joins the bridge, starts and restarts the applets
//!               ├─ engine ── shims ── containers
//!               ├─ supervisor
//!               ├─ tunnel
//!               └─ keeper
//! ```
//! Invariants:
//!
//! * When the outermost process ends, however it ends, every process of the device ends with it, and
//!   with them their namespaces, mounts and links. What the kernel keeps beyond that (cgroups, an own
//!   bridge with its rules) is removed at the end, by `--cleanup`, or by the next start.
//! * The data directory is the device's disk: the same device starts again from it.

mod config;
pub mod init;
mod link;
mod mounts;
mod network;
mod remains;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use minke_common_model::config_json::ConfigJson;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};

use crate::arguments::Virtual;
use network::OwnNetwork;

/// What the first process ends with to be started again.
const REBOOT: i32 = 64;
const READY: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs a virtual device until SIGTERM, SIGINT or its own shutdown; or cleans up after one.
pub fn run(options: &Virtual) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.data)
        .with_context(|| format!("cannot make {}", options.data.display()))?;
    let mut options = options.clone();
    options.data = options
        .data
        .canonicalize()
        .with_context(|| format!("cannot find {}", options.data.display()))?;
    let _lock = remains::lock(&options.data)?;
    remains::remove(&options.data)?;
    OwnNetwork::remove(&options.data)?;
    if options.cleanup {
        return Ok(());
    }
    config::take(&options.data, &options.config())?;
    let own = match &options.bridge {
        Some(_) => None,
        None => {
            let network = OwnNetwork::make(&options.data)?;
            options.bridge = Some(network.bridge.clone());
            Some(network)
        }
    };
    let ended = boots(&options);
    let cleaned = remains::remove(&options.data);
    if own.is_some() {
        OwnNetwork::remove(&options.data)?;
    }
    ended.and(cleaned)
}

/// Boots the device, and again when it asks for that.
fn boots(options: &Virtual) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot watch for signals")?;
    }
    let mut announced = false;
    loop {
        let mut device = Booted::start(options)?;
        if !announced && device.wait_until_ready(options, &stop)? {
            println!("{}", device.announcement(options)?);
            announced = true;
        }
        match device.wait(&stop)? {
            Some(REBOOT) => {
                tracing::info!("the device restarts");
                drop(device);
                remains::remove(&options.data)?;
            }
            Some(0) | None => return Ok(()),
            Some(code) => bail!("the device's first process ended with {code}"),
        }
    }
}

/// A device between two boots. Dropping it is a power cut.
struct Booted {
    outer: Child,
    address: String,
}

impl Booted {
    fn start(options: &Virtual) -> anyhow::Result<Booted> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("virtual-init")
            .arg("--data")
            .arg(&options.data)
            .args(["--name", &options.name]);
        command.arg("--config").arg(options.data.join("config.json"));
        if let Some(bridge) = &options.bridge {
            command.args(["--bridge", bridge]);
        }
        for mirror in &options.registry_mirror {
            command.args(["--registry-mirror", mirror]);
        }
        for registry in &options.insecure_registry {
            command.args(["--insecure-registry", registry]);
        }
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        let mut outer = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the device's first process")?;
        let stdout = outer.stdout.take().context("the first process has no stdout")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).context("cannot hear the first process")?;
        let address = address.trim().to_owned();
        if address.is_empty() {
            let status = outer.wait().context("cannot wait for the first process")?;
            bail!("the device did not boot: its first process ended with {status}");
        }
        Ok(Booted { outer, address })
    }

    /// Waits until engine, supervisor and identity are there; `false` if it was stopped meanwhile.
    fn wait_until_ready(&mut self, options: &Virtual, stop: &AtomicBool) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while !self.is_ready(options) {
            if stop.load(Ordering::Relaxed) || self.outer.try_wait()?.is_some() {
                return Ok(false);
            }
            if begun.elapsed() > READY {
                bail!("the device is not ready after {} s", READY.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(true)
    }

    fn is_ready(&self, options: &Virtual) -> bool {
        let supervisor: Option<SocketAddr> =
            self.supervisor(&options.data).ok().and_then(|address| address.parse().ok());
        UnixStream::connect(engine_socket(&options.data)).is_ok()
            && supervisor.is_some_and(|it| TcpStream::connect_timeout(&it, LOOK_AGAIN * 10).is_ok())
            && uuid(&options.data).is_ok()
    }

    fn supervisor(&self, data: &Path) -> anyhow::Result<String> {
        Ok(format!("{}:{}", self.address, own_config(data)?.port()))
    }

    fn announcement(&self, options: &Virtual) -> anyhow::Result<Value> {
        Ok(json!({
            "uuid": uuid(&options.data)?,
            "address": self.address,
            "engine_socket": engine_socket(&options.data),
            "supervisor": format!("http://{}", self.supervisor(&options.data)?),
        }))
    }

    /// Waits for the end: the code of the first process, or `None` if the device was stopped.
    fn wait(&mut self, stop: &AtomicBool) -> anyhow::Result<Option<i32>> {
        loop {
            if let Some(status) = self.outer.try_wait().context("cannot wait for the device")? {
                return Ok(Some(status.code().unwrap_or(1)));
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            std::thread::sleep(LOOK_AGAIN * 5);
        }
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The kernel ends everything in the process namespace with its first process.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

fn engine_socket(data: &Path) -> std::path::PathBuf {
    data.join("run/engine.sock")
}

fn uuid(data: &Path) -> anyhow::Result<String> {
    let uuid = own_config(data)?.uuid.context("config.json has no uuid yet")?;
    Ok(uuid.to_string())
}

fn own_config(data: &Path) -> anyhow::Result<ConfigJson> {
    config::read(&data.join("config.json"))
}
