//! Stops, kills, pauses, restarts and waits.

use std::sync::Arc;
use std::time::Duration;

use minke_engine_shim::cgroup::{self, Freezer};
use minke_engine_shim::identity;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::MutexGuard;

use super::container::Container;
use super::document::Status;
use super::{signals, start};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::shim::{Connection, ShimError};

/// Seconds between the stop signal and SIGKILL, unless the container says otherwise.
const DEFAULT_GRACE: i64 = 10;
/// How long a container may take to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// How long the end of a container may take to be recorded when its shim is gone.
const RECORDED: Duration = Duration::from_secs(5);
/// How long a shim that has not answered may still take to tell the end of its container.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the processes of a container may take to stand still.
const FREEZING: Duration = Duration::from_secs(10);
/// How often it is looked at what nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How a container is to be stopped; what is missing comes from the container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) seconds: Option<i64>,
    pub(crate) signal: String,
}

/// Stops a container for somebody who asked for it.
pub(crate) async fn stop(daemon: &Daemon, container: &Arc<Container>, how: Stop) -> Result<()> {
    let ran = container.status().counts_as_running();
    let _turn = turn_within(daemon, container, grace(container, &how)).await;
    match container.status().counts_as_running() {
        true => stop_locked(daemon, container, how, true).await,
        // Another stop was faster.
        false if ran => Ok(()),
        false => Err(Error::NotModified),
    }
}

/// The time between the stop signal and SIGKILL.
fn grace(container: &Container, how: &Stop) -> Duration {
    let own = container.lock().config.config.stop_timeout;
    match how.seconds.or(own).unwrap_or(DEFAULT_GRACE) {
        ..0 => Duration::MAX,
        seconds => Duration::from_secs(seconds.unsigned_abs()),
    }
}

/// Takes the lifecycle lock for a stop. One that lasts longer than `patience`, or for ever, may hold it.
async fn turn_within<'a>(
    daemon: &Daemon,
    container: &'a Arc<Container>,
    patience: Duration,
) -> MutexGuard<'a, ()> {
    match tokio::time::timeout(patience, container.lifecycle.lock()).await {
        Ok(turn) => turn,
        Err(_) if container.lock().stopping => turn_to_kill(daemon, container).await,
        Err(_) => container.lifecycle.lock().await,
    }
}

/// Takes the lifecycle lock of a container that is not to live until then: a stop that holds it sees the
/// end.
pub(super) async fn turn_to_kill<'a>(
    daemon: &Daemon,
    container: &'a Arc<Container>,
) -> MutexGuard<'a, ()> {
    if let Ok(turn) = container.lifecycle.try_lock() {
        return turn;
    }
    if container.status().has_process() {
        container.lock().stopping = true;
        // If this fails, what comes with the lock says so.
        let _ = signal_and_tell(daemon, container, signals::KILL).await;
    }
    container.lifecycle.lock().await
}

/// Stops a container whose lifecycle lock is held. `for_good`: policies that respect a manual stop
/// do not start it again.
async fn stop_locked(
    daemon: &Daemon,
    container: &Arc<Container>,
    how: Stop,
    for_good: bool,
) -> Result<()> {
    let own_signal = container.lock().config.config.stop_signal.clone();
    let signal = match how.signal.as_str() {
        "" => signals::parse(&own_signal, signals::TERM)?,
        given => signals::parse(given, signals::TERM)?,
    };
    container.lock().stopping = true;
    if for_good {
        // A disk that is full must not keep what fills it running.
        container.record_state(|state| state.manually_stopped = true);
    }
    if container.status() == Status::Restarting {
        give_up_restart(container);
    }
    if container.status() == Status::Paused {
        unpause_locked(daemon, container)?;
    }
    let patience = match signal_and_tell(daemon, container, signal).await {
        Ok(()) => grace(container, &how),
        // What cannot be asked to end does not become ready for it: nothing is worth waiting for.
        Err(error) => {
            let error = error.message();
            tracing::warn!(container = container.id, error, "is killed: it cannot be asked to end");
            Duration::ZERO
        }
    };
    if tokio::time::timeout(patience, wait_not_running(container)).await.is_err() {
        signal_and_tell(daemon, container, signals::KILL).await?;
        wait_killed(container).await?;
    }
    daemon.events.publish("container", "stop", &container.id, container.attributes());
    Ok(())
}

/// Sends a signal and publishes it; a container that has just ended is fine.
async fn signal_and_tell(daemon: &Daemon, container: &Arc<Container>, signal: u8) -> Result<()> {
    if !container.status().has_process() {
        return Ok(());
    }
    if signal == signals::KILL {
        thaw_in_any_case(container);
    }
    match send_signal(container, signal).await {
        Ok(()) => {}
        Err(ShimError::Silent) if signal == signals::KILL => kill_with_shim(container).await,
        Err(_) if signal == signals::KILL && kill_without_shim(container).await => {}
        Err(error @ ShimError::Silent) => return Err(Error::system("sending the signal")(error)),
        // It may have ended just now, and that is not recorded yet.
        Err(_) if is_recorded(container, RECORDED).await => return Ok(()),
        Err(error) => return Err(Error::system("sending the signal")(error)),
    }
    let mut attributes = container.attributes();
    attributes.insert("signal".to_owned(), signal.to_string());
    daemon.events.publish("container", "kill", &container.id, attributes);
    Ok(())
}

/// Kills a container whose shim does not answer. False: nothing was there.
async fn kill_without_shim(container: &Container) -> bool {
    let directories = cgroup::listed(&container.shim_dir());
    let kill = move || !cgroup::kill_all(&directories);
    tokio::task::spawn_blocking(kill).await.unwrap_or(false)
}

/// Kills a container whose shim stands still. The shim goes too if it does not say what has become of the
/// container: who waits for it hears of the end by that.
async fn kill_with_shim(container: &Container) {
    kill_without_shim(container).await;
    if is_recorded(container, LAST_WORDS).await {
        return;
    }
    tracing::warn!(container = container.id, "the shim does not answer and is killed");
    if let Err(error) = kill_shim(container) {
        tracing::warn!(container = container.id, %error, "the shim cannot be killed");
    }
}

fn kill_shim(container: &Container) -> std::io::Result<()> {
    let text = std::fs::read_to_string(container.shim_dir().join("shim.pid"))?;
    let pid = identity::parse(&text).and_then(|(pid, _)| Pid::from_raw(i32::try_from(pid).ok()?));
    let Some(pid) = pid else { return Ok(()) };
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // Looked at when it is held: before, the number may have become that of another process.
    if identity::is_alive(&text) {
        pidfd_send_signal(&process, Signal::KILL)?;
    }
    Ok(())
}

/// Whether the end of a container is recorded within a time.
async fn is_recorded(container: &Container, within: Duration) -> bool {
    let recorded = async {
        while container.status().has_process() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(within, recorded).await.is_ok()
}

async fn send_signal(container: &Container, signal: u8) -> Result<(), ShimError> {
    Connection::open(&container.shim_dir()).await?.signal("", signal).await
}

/// Sends a signal for somebody who asked for it.
pub(crate) async fn kill(daemon: &Daemon, container: &Arc<Container>, signal: &str) -> Result<()> {
    let signal = signals::parse(signal, signals::KILL)?;
    let status = container.status();
    if status == Status::Restarting && matches!(signal, signals::KILL | signals::TERM) {
        let _turn = container.turn("killed").await?;
        container.lock().stopping = true;
        container.record_state(|state| state.manually_stopped = true);
        give_up_restart(container);
        return Ok(());
    }
    if !status.has_process() {
        return Err(Error::Conflict(format!(
            "cannot kill container: {0}: container {0} is not running",
            container.id
        )));
    }
    let own = container.lock().config.config.stop_signal.clone();
    // That it was stopped is written down when it ends: a signal other than this may be ignored.
    if signal == signals::KILL || signal == signals::parse(&own, signals::TERM)? {
        container.lock().stopping = true;
    }
    if signal == signals::KILL {
        container.record_state(|state| state.manually_stopped = true);
    }
    if status == Status::Paused && signal == signals::KILL {
        unpause_locked(daemon, container)?;
    }
    signal_and_tell(daemon, container, signal).await?;
    if signal == signals::KILL { wait_killed(container).await } else { Ok(()) }
}

/// Ends a container for its removal.
pub(crate) async fn kill_locked(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    container.lock().stopping = true;
    if container.status() == Status::Restarting {
        give_up_restart(container);
        return Ok(());
    }
    if container.status() == Status::Paused {
        unpause_locked(daemon, container)?;
    }
    signal_and_tell(daemon, container, signals::KILL).await?;
    wait_killed(container).await
}

/// Ends a container that waits for its restart.
pub(super) fn give_up_restart(container: &Container) {
    container.lock().tasks.end_all();
    container.record_state(|state| {
        if state.status == Status::Restarting {
            state.status = Status::Exited;
        }
    });
    container.phase.send_modify(|phase| {
        phase.running = false;
        phase.exits += 1;
    });
}

/// Stops a container if it runs, and starts it.
pub(crate) async fn restart(daemon: &Daemon, container: &Arc<Container>, how: Stop) -> Result<()> {
    let _turn = turn_within(daemon, container, grace(container, &how)).await;
    container.check_stays("restarted")?;
    if container.status().counts_as_running() {
        container.lock().restarting = true;
        let stopped = stop_locked(daemon, container, how, false).await;
        container.lock().restarting = false;
        stopped?;
    }
    start::start_locked(daemon, container, false).await?;
    daemon.events.publish("container", "restart", &container.id, container.attributes());
    Ok(())
}

/// Resolves when the container neither runs nor is about to. A restart that was decided on before
/// anybody asked for the stop is given up.
async fn wait_not_running(container: &Container) {
    let mut phase = container.phase.subscribe();
    while phase.borrow_and_update().running {
        if container.status() == Status::Restarting {
            give_up_restart(container);
            return;
        }
        // The decision itself is no change of phase: so it is looked for now and then.
        let _ = tokio::time::timeout(LOOK_AGAIN, phase.changed()).await;
    }
}

async fn wait_killed(container: &Container) -> Result<()> {
    match tokio::time::timeout(AFTER_KILL, wait_not_running(container)).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::Conflict(format!(
            "container {} did not end within {} s of SIGKILL",
            container.id,
            AFTER_KILL.as_secs()
        ))),
    }
}

/// Stops every process of a container where it is.
pub(crate) async fn pause(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let _turn = container.turn("paused").await?;
    match container.status() {
        Status::Running => {}
        Status::Paused => {
            return Err(Error::Conflict(format!("container {} is already paused", container.id)));
        }
        _ => return Err(container.not_running()),
    }
    freeze(container).await?;
    container
        .change_state(|state| state.status = Status::Paused)
        .inspect_err(|_| thaw_in_any_case(container))?;
    daemon.events.publish("container", "pause", &container.id, container.attributes());
    Ok(())
}

/// Lets a paused container go on.
pub(crate) async fn unpause(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let _turn = container.turn("unpaused").await?;
    if container.status() != Status::Paused {
        return Err(Error::Conflict(format!("container {} is not paused", container.id)));
    }
    unpause_locked(daemon, container)
}

fn unpause_locked(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    thaw(container)?;
    container.change_state(|state| {
        if state.status == Status::Paused {
            state.status = Status::Running;
        }
    })?;
    daemon.events.publish("container", "unpause", &container.id, container.attributes());
    Ok(())
}

/// Makes every process of a container stand still. The kernel freezes one after another: resolves when
/// all do.
pub(super) async fn freeze(container: &Container) -> Result<()> {
    let freezer = freezer(container)?;
    set_frozen(&freezer, true)?;
    let all = async {
        while !freezer.is_frozen() {
            // It may be killed meanwhile.
            if !container.status().has_process() {
                return Err(container.not_running());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    if let Ok(done) = tokio::time::timeout(FREEZING, all).await {
        return done;
    }
    set_frozen(&freezer, false)?;
    Err(Error::System {
        doing: format!("pausing container {}", container.id),
        source: format!("its processes do not stand still after {} s", FREEZING.as_secs()).into(),
    })
}

/// Lets the processes of a container go on.
fn thaw(container: &Container) -> Result<()> {
    set_frozen(&freezer(container)?, false)
}

/// Lets the processes of a container go on whatever its document says. A daemon may have died between
/// the freezing and the document, or while it made an image; and what is frozen does not die on cgroups
/// of version 1.
pub(super) fn thaw_in_any_case(container: &Container) {
    let Ok(freezer) = freezer(container) else { return };
    if let Err(error) = set_frozen(&freezer, false) {
        tracing::warn!(container = container.id, error = error.message(), "stays frozen");
    }
}

fn freezer(container: &Container) -> Result<Freezer> {
    let directories = cgroup::listed(&container.shim_dir());
    let found = directories.iter().find_map(|directory| Freezer::of(directory));
    found.ok_or_else(|| Error::System {
        doing: "pausing the container".to_owned(),
        source: "the host has no freezer cgroup".into(),
    })
}

fn set_frozen(freezer: &Freezer, frozen: bool) -> Result<()> {
    freezer.set(frozen).map_err(Error::file("freezing", freezer.path()))
}
