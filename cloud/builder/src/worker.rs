//! The engine that does the building: a `minke-device engine` process that the server starts,
//! watches, starts again when it dies, and stops.
//!
//! ```text
//!            spawn            exit            delay over
//!   (start) ──────> running ──────> waiting ────────────> running
//!                      │ stop          │ stop
//!                      └──────> stopped <┘
//! ```
//! A thread of its own owns the process: the kernel's parent-death signal follows the thread that
//! started a child, and this one lives as long as the worker, so a killed server leaves no engine.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minke_engine_client::Client;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How to run the worker engine.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The `minke-device` binary.
    pub device_binary: PathBuf,
    /// The engine's own data directory.
    pub data: PathBuf,
    /// The unix socket it listens on.
    pub socket: PathBuf,
    /// Mirror of docker.io for base images.
    pub registry_mirror: Option<String>,
    /// Registries (`host:port`) reached over plain HTTP.
    pub insecure_registries: Vec<String>,
}

/// Why the worker could not be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be started.
    #[error("starting the build engine {}", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory of it could not be made.
    #[error("making {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket did not answer in time.
    #[error("the build engine did not answer within {0:?}")]
    NotReady(Duration),
}

/// Shortest and longest wait before the engine is started again.
const DELAYS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// An engine that ran so long starts again after the shortest wait.
const STEADY: Duration = Duration::from_secs(60);
/// How long the engine may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    /// The child, as long as it is not reaped: a pid in here is no one else's.
    child: Option<Pid>,
    stopping: bool,
    finished: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running worker engine. Dropping it stops the engine without waiting.
pub struct Worker {
    client: Client,
    shared: Arc<Shared>,
}

impl Worker {
    /// Starts the engine and the thread that keeps it alive. Fails when it cannot be started at all;
    /// whether it answers is asked with [`Worker::ready`].
    pub async fn spawn(options: WorkerOptions) -> Result<Worker, WorkerError> {
        let parent = options.socket.parent().unwrap_or(Path::new("/"));
        for path in [options.data.as_path(), parent] {
            std::fs::create_dir_all(path)
                .map_err(|source| WorkerError::Directory { path: path.to_owned(), source })?;
        }
        let client = Client::unix(&options.socket);
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let binary = options.device_binary.clone();
        let start = |source| WorkerError::Start { binary: binary.clone(), source };
        let theirs = shared.clone();
        std::thread::Builder::new()
            .name("build-engine".into())
            .spawn(move || watch(&options, &theirs, sender))
            .map_err(start)?;
        match receiver.await {
            Ok(Ok(())) => Ok(Worker { client, shared }),
            Ok(Err(source)) => Err(start(source)),
            Err(_) => Err(start(io::Error::other("the thread ended"))),
        }
    }

    /// The engine's API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when the engine answers.
    pub async fn ready(&self, patience: Duration) -> Result<(), WorkerError> {
        let until = Instant::now() + patience;
        while self.client.ping().await.is_err() {
            if Instant::now() >= until {
                return Err(WorkerError::NotReady(patience));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Process id of the engine while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.shared.lock().child.map(|pid| pid.as_raw_pid() as u32)
    }

    /// Stops the engine and returns when it is gone.
    pub async fn stop(&self) {
        let shared = self.shared.clone();
        let stopped = tokio::task::spawn_blocking(move || stop(&shared, GRACE)).await;
        if stopped.is_err() {
            tracing::error!("the thread that stops the build engine ended early");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        signal(&mut self.shared.lock(), Signal::TERM);
        self.shared.changed.notify_all();
    }
}

fn signal(state: &mut State, signal: Signal) {
    state.stopping = true;
    if let Some(pid) = state.child {
        // It may have ended already; then there is nothing to signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn stop(shared: &Shared, grace: Duration) {
    let mut state = shared.lock();
    signal(&mut state, Signal::TERM);
    shared.changed.notify_all();
    let running = |state: &mut State| !state.finished;
    let (mut state, waited) = shared
        .changed
        .wait_timeout_while(state, grace, running)
        .unwrap_or_else(PoisonError::into_inner);
    if waited.timed_out() {
        signal(&mut state, Signal::KILL);
        let end = shared.changed.wait_while(state, running);
        drop(end);
    }
}

fn command(options: &WorkerOptions) -> Command {
    let mut command = Command::new(&options.device_binary);
    command.arg("engine").arg("--data").arg(&options.data).arg("--socket").arg(&options.socket);
    // Whoever pushes is root in the steps of a build, but nobody on this machine.
    command.args(["--build-worker", "--userns-remap", "default"]);
    if let Some(mirror) = &options.registry_mirror {
        command.arg("--registry-mirror").arg(mirror);
    }
    for registry in &options.insecure_registries {
        command.arg("--insecure-registry").arg(registry);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // A group of its own: Ctrl-C in a terminal is the server's to handle.
    command.process_group(0);
    let server = std::process::id();
    // SAFETY: two system calls between fork and exec; they neither allocate nor lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            // A server that was killed before this sends no signal any more.
            if std::os::unix::process::parent_id() != server {
                return Err(rustix::io::Errno::SRCH.into());
            }
            Ok(())
        });
    }
    command
}

/// The thread: starts, waits, starts again.
fn watch(
    options: &WorkerOptions,
    shared: &Shared,
    first: tokio::sync::oneshot::Sender<io::Result<()>>,
) {
    let mut first = Some(first);
    let mut delay = DELAYS.0;
    loop {
        let begun = Instant::now();
        match start(options, shared) {
            None => break,
            Some(Ok(mut child)) => {
                if let Some(first) = first.take() {
                    let _ = first.send(Ok(()));
                }
                let status = reap(&mut child, shared);
                if !shared.lock().stopping {
                    tracing::warn!(?status, "the build engine ended; starting it again");
                }
            }
            Some(Err(error)) => match first.take() {
                Some(first) => {
                    let _ = first.send(Err(error));
                    break;
                }
                None => tracing::warn!(%error, "the build engine cannot be started"),
            },
        }
        delay = if begun.elapsed() > STEADY { DELAYS.0 } else { delay };
        let state = shared.lock();
        let waiting = shared.changed.wait_timeout_while(state, delay, |s| !s.stopping);
        if waiting.unwrap_or_else(PoisonError::into_inner).0.stopping {
            break;
        }
        delay = (delay * 2).min(DELAYS.1);
    }
    shared.lock().finished = true;
    shared.changed.notify_all();
}

/// Starts the process unless it is time to stop; both under the lock, so none slips through.
fn start(options: &WorkerOptions, shared: &Shared) -> Option<io::Result<std::process::Child>> {
    let mut state = shared.lock();
    if state.stopping {
        return None;
    }
    let child = command(options).spawn();
    if let Ok(child) = &child {
        state.child = Pid::from_raw(child.id() as i32);
    }
    Some(child)
}

/// Waits for the end without reaping, then forgets the pid and reaps under the lock.
fn reap(child: &mut std::process::Child, shared: &Shared) -> io::Result<std::process::ExitStatus> {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options)
        {
        }
    }
    let mut state = shared.lock();
    state.child = None;
    child.wait()
}
