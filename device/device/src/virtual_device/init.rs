//! The first process of a virtual device.
//!
//! Started outside, it makes a process namespace and starts itself again as process 1 in it; that one
//! enters the other namespaces, mounts what they need, joins the bridge, prints its address, and from
//! then on starts applets, restarts them when they end, and reaps every orphan.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_parent_process_death_signal, wait};
use rustix::thread::UnshareFlags;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};

use super::{REBOOT, link, mounts};
use crate::arguments::Virtual;

/// An applet that ends sooner than this is restarted more slowly each time.
const STEADY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs until the device is restarted or turned off.
pub fn run(options: &Virtual) -> anyhow::Result<()> {
    if getpid() == Pid::INIT {
        return first_process(options);
    }
    // SAFETY: this process has one thread, and only its children enter the namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .context("cannot make a process namespace (virtual devices need root)")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    let status = command.status().context("cannot start the first process")?;
    std::process::exit(status.code().unwrap_or(1));
}

fn first_process(options: &Virtual) -> anyhow::Result<()> {
    // Before the signals could come: unhandled ones do not reach a first process.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGUSR2, SIGTERM])
        .context("cannot watch for signals")?;
    let address = link::enter(options)?;
    mounts::enter(options)?;
    rustix::system::sethostname(options.name.as_bytes()).context("cannot set the hostname")?;
    let run = options.data.join("run");
    // What a boot leaves behind is gone at the next one.
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot empty the run directory");
        }
        _ => {}
    }
    std::fs::create_dir_all(run.join("locks")).context("cannot make the run directory")?;
    let boot_id = run.join("boot-id");
    std::fs::write(&boot_id, new_boot_id()?).context("cannot write the boot id")?;
    // The engine tells by it that what ran before a reboot is gone.
    rustix::mount::mount_bind(&boot_id, "/proc/sys/kernel/random/boot_id")
        .context("cannot mount the boot id")?;
    println!("{address}");
    std::io::stdout().flush().context("cannot say the address")?;
    std::thread::Builder::new()
        .name("power".to_owned())
        .spawn(move || {
            // Ending the first process is what cuts the power.
            let signal = signals.forever().next();
            std::process::exit(if signal == Some(SIGINT) { REBOOT } else { 0 });
        })
        .context("cannot start a thread")?;
    Applets::new(options)?.keep_running()
}

fn new_boot_id() -> anyhow::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a boot id")
}

/// The applets by name, with the words that start them.
struct Applets {
    words: BTreeMap<&'static str, Vec<String>>,
    running: BTreeMap<i32, Running>,
    pauses: BTreeMap<&'static str, Duration>,
    /// When an applet that ended is to be started again.
    due: BTreeMap<&'static str, Instant>,
}

struct Running {
    name: &'static str,
    since: Instant,
}

impl Applets {
    fn new(options: &Virtual) -> anyhow::Result<Applets> {
        let words = words(options)?;
        let now = Instant::now();
        let due = words.keys().map(|name| (*name, now)).collect();
        Ok(Applets { words, running: BTreeMap::new(), pauses: BTreeMap::new(), due })
    }

    /// Starts what is due, reaps what ends, for ever.
    fn keep_running(mut self) -> anyhow::Result<()> {
        loop {
            self.start_due()?;
            let Some(pid) = self.wait_for_an_end()? else { continue };
            let Some(ended) = self.running.remove(&pid) else { continue };
            let pause = match self.pauses.get(ended.name) {
                _ if ended.since.elapsed() > STEADY => FIRST_PAUSE,
                Some(pause) => (*pause * 2).min(LONGEST_PAUSE),
                None => FIRST_PAUSE,
            };
            tracing::warn!(applet = ended.name, ?pause, "an applet ended and is started again");
            self.pauses.insert(ended.name, pause);
            self.due.insert(ended.name, Instant::now() + pause);
        }
    }

    fn start_due(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let due: Vec<&'static str> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| *name).collect();
        for name in due {
            self.due.remove(name);
            let child = Command::new("/proc/self/exe")
                .arg0("minke-device")
                .args(&self.words[name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start the {name}"))?;
            self.running.insert(child.id() as i32, Running { name, since: now });
        }
        Ok(())
    }

    /// Waits for the end of some child; `None` when something is due before that.
    fn wait_for_an_end(&self) -> anyhow::Result<Option<i32>> {
        let Some(at) = self.due.values().min() else {
            let ended = wait(WaitOptions::empty()).context("cannot wait for applets")?;
            return Ok(ended.map(|(pid, _)| pid.as_raw_nonzero().get()));
        };
        // Something waits to be started: look for ends now and then until it is due.
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => return Ok(Some(pid.as_raw_nonzero().get())),
            Ok(None) | Err(rustix::io::Errno::CHILD) => {}
            Err(error) => return Err(error).context("cannot wait for applets"),
        }
        let left = at.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(FIRST_PAUSE));
        Ok(None)
    }
}

fn words(options: &Virtual) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
    let data = options.data.to_str().context("the data directory's name is not UTF-8")?;
    let path = |name: &str| format!("{data}/{name}");
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut engine =
        own(&["engine", "--data", &path("engine"), "--socket", &path("run/engine.sock")]);
    for mirror in &options.registry_mirror {
        engine.extend(own(&["--registry-mirror", mirror]));
    }
    let server = plain_server(&options.data.join("config.json"));
    for registry in options.insecure_registry.iter().chain(&server) {
        engine.extend(own(&["--insecure-registry", registry]));
    }
    let supervisor = own(&[
        "supervisor",
        "--config",
        &path("config.json"),
        "--data",
        data,
        "--engine",
        &format!("unix://{}", path("run/engine.sock")),
        "--lock-root",
        &path("run/locks"),
        "--keeper",
        &path("run/keeper.sock"),
    ]);
    let keeper = own(&[
        "keeper",
        "--data",
        &path("keeper"),
        "--socket",
        &path("run/keeper.sock"),
        "--boot-id",
        &path("run/boot-id"),
        "--power",
        "init",
    ]);
    Ok(BTreeMap::from([
        ("engine", engine),
        ("supervisor", supervisor),
        ("tunnel", own(&["tunnel", "--data", data])),
        ("keeper", keeper),
    ]))
}

/// `host:port` of the server if it is reached by plain http, which its registry then is too.
fn plain_server(config: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(config).ok()?).ok()?;
    let rest = config["apiEndpoint"].as_str()?.strip_prefix("http://")?;
    rest.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::plain_server;

    #[test]
    fn only_a_plain_server_is_insecure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for (endpoint, expected) in [
            ("http://10.0.0.1:8080", Some("10.0.0.1:8080")),
            ("http://10.0.0.1:8080/", Some("10.0.0.1:8080")),
            ("https://example.com", None),
        ] {
            std::fs::write(&path, format!(r#"{{"apiEndpoint":"{endpoint}"}}"#)).unwrap();
            assert_eq!(plain_server(&path).as_deref(), expected);
        }
    }
}
