//! The part of a virtual device that stays outside: makes the namespaces, the link, and waits.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use minke_common_model::config_json::ConfigJson;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::cleanup::clean;
use super::network::{self, Attachment};
use super::{REBOOT, VirtualOptions, identity, ready};

/// How long a device may take to get ready.
const READY: Duration = Duration::from_secs(90);
/// How long it may take to switch off.
const GRACE: Duration = Duration::from_secs(10);

/// Whether the device in `data` runs.
pub fn is_running(data: &Path) -> bool {
    match File::open(lock_path(data)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
        Err(_) => false,
    }
}

fn lock_path(data: &Path) -> PathBuf {
    data.join("run/lock")
}

/// Runs the device until SIGTERM or SIGINT, or until it switches itself off.
pub fn run(options: VirtualOptions) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(options.data.join("run"))
        .with_context(|| format!("cannot make {}", options.data.display()))?;
    let data = fs::canonicalize(&options.data).context("cannot find the data directory")?;
    clean(&data)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path(&data))
        .context("cannot open the device's lock")?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("the device in {} is running already", data.display());
    }
    let config = identity::prepare(options.config.as_deref(), &data.join("config.json"))?;
    let outcome = Outside { options, data: data.clone(), config }.run();
    // The lock goes first: what follows is what a next start would do.
    drop(lock);
    let cleaned = clean(&data);
    let code = outcome?;
    cleaned?;
    Ok(code)
}

struct Outside {
    options: VirtualOptions,
    data: PathBuf,
    config: ConfigJson,
}

/// Why the wait for the inside ended.
enum End {
    Exited(ExitStatus),
    Asked,
}

impl Outside {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let attachment = network::prepare(self.options.bridge.as_deref(), &self.data)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async {
            let mut is_first = true;
            loop {
                match self.boot(&attachment, is_first).await? {
                    Some(code) => return Ok(code),
                    None => info!("the device restarts"),
                }
                is_first = false;
            }
        })
    }

    /// From power on to power off; `None` for a restart.
    async fn boot(
        &self,
        attachment: &Attachment,
        is_first: bool,
    ) -> anyhow::Result<Option<ExitCode>> {
        for socket in ["run/engine.sock", "run/keeper.sock"] {
            // Of the boot before: nobody listens there.
            let _ = fs::remove_file(self.data.join(socket));
        }
        let mut child = self.spawn()?;
        let connected = attachment.connect(child.id()).and_then(|link| {
            let mut input = child.stdin.take().context("the device has no input")?;
            let mut line = serde_json::to_vec(&link)?;
            line.push(b'\n');
            input.write_all(&line).context("cannot tell the device its address")
        });
        if let Err(error) = connected {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        let end = self.wait(&mut child, attachment, is_first).await;
        let status = match end {
            Ok(End::Exited(status)) => status,
            Ok(End::Asked) => switch_off(&mut child).await?,
            Err(error) => {
                switch_off(&mut child).await?;
                return Err(error);
            }
        };
        match status.code() {
            Some(code) if code == i32::from(REBOOT) => Ok(None),
            Some(0) => Ok(Some(ExitCode::SUCCESS)),
            _ => bail!("the device's init ended: {status}; see its log"),
        }
    }

    /// Starts pid 1 in namespaces of its own. It dies with this process.
    fn spawn(&self) -> anyhow::Result<Child> {
        let own = File::open("/proc/self/ns/pid").context("cannot open the pid namespace")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("virtual-init").arg("--data").arg(&self.data);
        command.arg("--hostname").arg(self.hostname());
        let server = identity::insecure_registry(&self.config);
        for registry in self.options.insecure_registries.iter().chain(&server) {
            command.arg("--insecure-registry").arg(registry);
        }
        for mirror in &self.options.registry_mirrors {
            command.arg("--registry-mirror").arg(mirror);
        }
        // Standard output is for the ready line alone.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // SAFETY: system calls only, between fork and exec; they neither allocate nor lock.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // Ctrl-C in a terminal is the outside's to hear.
                rustix::process::setsid()?;
                unshare_unsafe(
                    UnshareFlags::NEWNS
                        | UnshareFlags::NEWNET
                        | UnshareFlags::NEWUTS
                        | UnshareFlags::NEWIPC,
                )?;
                Ok(())
            });
        }
        // SAFETY: only children of this thread are concerned, and it goes back right after.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.context("cannot make a pid namespace")?;
        let child = command.spawn().context("cannot start the device's init");
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Process))
            .context("cannot leave the pid namespace")?;
        child
    }

    fn hostname(&self) -> String {
        let uuid = self.config.uuid.as_ref().map_or("", |uuid| uuid.as_str());
        let wanted = self.options.name.clone().or_else(|| self.config.hostname.clone());
        wanted.unwrap_or_else(|| uuid.chars().take(7).collect())
    }

    async fn wait(
        &self,
        child: &mut Child,
        attachment: &Attachment,
        is_first: bool,
    ) -> anyhow::Result<End> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut children = signal(SignalKind::child())?;
        let started = Instant::now();
        let mut is_ready = !is_first;
        let socket = self.data.join("run/engine.sock");
        let port = self.config.port();
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for the device")? {
                return Ok(End::Exited(status));
            }
            if !is_ready
                && ready::engine_answers(&socket)
                && ready::supervisor_answers(attachment.address(), port)
            {
                is_ready = true;
                self.announce(attachment, &socket, port)?;
            }
            if !is_ready && started.elapsed() > READY {
                bail!(
                    "the device is not ready after {} s; see {}",
                    READY.as_secs(),
                    self.data.join("log").display()
                );
            }
            let pause = Duration::from_millis(if is_ready { 3_600_000 } else { 20 });
            // Every arm is cancel-safe.
            tokio::select! {
                _ = terminate.recv() => return Ok(End::Asked),
                _ = interrupt.recv() => return Ok(End::Asked),
                _ = children.recv() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn announce(&self, attachment: &Attachment, socket: &Path, port: u16) -> anyhow::Result<()> {
        let address = attachment.address();
        let line = json!({
            "uuid": self.config.uuid,
            "address": address,
            "engine_socket": socket,
            "supervisor": format!("http://{address}:{port}"),
        });
        let mut output = std::io::stdout().lock();
        writeln!(output, "{line}").and_then(|()| output.flush()).context("cannot say it is ready")
    }
}

/// Asks the inside to end, and ends it when it does not.
async fn switch_off(child: &mut Child) -> anyhow::Result<ExitStatus> {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let until = Instant::now() + GRACE;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the device")? {
            return Ok(status);
        }
        if Instant::now() > until {
            child.kill().context("cannot end the device")?;
            let _ = child.wait();
            return Ok(ExitStatus::default());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
