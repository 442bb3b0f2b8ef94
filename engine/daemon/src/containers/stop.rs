//! Stops, kills, pauses, restarts and waits.

use std::sync::Arc;
use std::time::Duration;

use minke_engine_shim::cgroup::{self, Freezer};

use super::container::Container;
use super::document::Status;
use super::{signals, start};
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Seconds between the stop signal and SIGKILL, unless the container says otherwise.
const DEFAULT_GRACE: i64 = 10;
/// How long a container may take to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// How long the end of a container may take to be recorded when its shim is gone.
const RECORDED: Duration = Duration::from_secs(5);
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
    let _lifecycle = container.lifecycle.lock().await;
    if !container.status().counts_as_running() {
        return Err(Error::NotModified);
    }
    stop_locked(daemon, container, how, true).await
}

/// Stops a container whose lifecycle lock is held. `for_good`: policies that respect a manual stop
/// do not start it again.
async fn stop_locked(
    daemon: &Daemon,
    container: &Arc<Container>,
    how: Stop,
    for_good: bool,
) -> Result<()> {
    container.lock().stopping = true;
    if for_good {
        container.change_state(|state| state.manually_stopped = true)?;
    }
    if container.status() == Status::Restarting {
        give_up_restart(container)?;
    }
    let (own_seconds, own_signal) = {
        let cell = container.lock();
        (cell.config.config.stop_timeout, cell.config.config.stop_signal.clone())
    };
    let signal = match how.signal.as_str() {
        "" => signals::parse(&own_signal, signals::TERM)?,
        given => signals::parse(given, signals::TERM)?,
    };
    let seconds = how.seconds.or(own_seconds).unwrap_or(DEFAULT_GRACE);
    if container.status() == Status::Paused {
        unpause_locked(daemon, container)?;
    }
    signal_and_tell(daemon, container, signal).await?;
    let grace = match seconds {
        ..0 => Duration::MAX,
        _ => Duration::from_secs(seconds.unsigned_abs()),
    };
    match tokio::time::timeout(grace, wait_not_running(container)).await {
        Ok(ended) => ended?,
        Err(_) => {
            signal_and_tell(daemon, container, signals::KILL).await?;
            wait_killed(container).await?;
        }
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
    if let Err(error) = send_signal(container, signal).await {
        // It may have ended just now, and that is not recorded yet.
        let recorded = async {
            while container.status().has_process() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        return tokio::time::timeout(RECORDED, recorded).await.map_err(|_| error);
    }
    let mut attributes = container.attributes();
    attributes.insert("signal".to_owned(), signal.to_string());
    daemon.events.publish("container", "kill", &container.id, attributes);
    Ok(())
}

async fn send_signal(container: &Container, signal: u8) -> Result<()> {
    let sent = async {
        let mut connection = container.connect().await?;
        connection.signal("", signal).await.map_err(Error::system("sending the signal"))
    };
    sent.await
}

/// Sends a signal for somebody who asked for it.
pub(crate) async fn kill(daemon: &Daemon, container: &Arc<Container>, signal: &str) -> Result<()> {
    let signal = signals::parse(signal, signals::KILL)?;
    let status = container.status();
    if status == Status::Restarting && matches!(signal, signals::KILL | signals::TERM) {
        let _turn = container.turn("killed").await?;
        container.lock().stopping = true;
        container.change_state(|state| state.manually_stopped = true)?;
        return give_up_restart(container);
    }
    if !status.has_process() {
        return Err(Error::Conflict(format!(
            "cannot kill container: {0}: container {0} is not running",
            container.id
        )));
    }
    let own = container.lock().config.config.stop_signal.clone();
    if signal == signals::KILL || signal == signals::parse(&own, signals::TERM)? {
        container.lock().stopping = true;
        container.change_state(|state| state.manually_stopped = true)?;
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
        return give_up_restart(container);
    }
    if container.status() == Status::Paused {
        unpause_locked(daemon, container)?;
    }
    signal_and_tell(daemon, container, signals::KILL).await?;
    wait_killed(container).await
}

fn give_up_restart(container: &Container) -> Result<()> {
    container.lock().tasks.end_all();
    container.change_state(|state| {
        if state.status == Status::Restarting {
            state.status = Status::Exited;
        }
    })?;
    container.phase.send_modify(|phase| {
        phase.running = false;
        phase.exits += 1;
    });
    Ok(())
}

/// Stops a container if it runs, and starts it.
pub(crate) async fn restart(daemon: &Daemon, container: &Arc<Container>, how: Stop) -> Result<()> {
    let _turn = container.turn("restarted").await?;
    if container.status().counts_as_running() {
        // Its auto-removal would race the start.
        stop_locked(daemon, container, how, false).await?;
    }
    start::start_locked(daemon, container, false).await?;
    daemon.events.publish("container", "restart", &container.id, container.attributes());
    Ok(())
}

/// Resolves when the container neither runs nor is about to. A restart that was decided on before
/// anybody asked for the stop is given up.
async fn wait_not_running(container: &Container) -> Result<()> {
    let mut phase = container.phase.subscribe();
    while phase.borrow_and_update().running {
        if container.status() == Status::Restarting {
            return give_up_restart(container);
        }
        // The decision itself is no change of phase: so it is looked for now and then.
        let _ = tokio::time::timeout(LOOK_AGAIN, phase.changed()).await;
    }
    Ok(())
}

async fn wait_killed(container: &Container) -> Result<()> {
    match tokio::time::timeout(AFTER_KILL, wait_not_running(container)).await {
        Ok(ended) => ended,
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
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(FREEZING, all).await.is_ok() {
        return Ok(());
    }
    set_frozen(&freezer, false)?;
    Err(Error::System {
        doing: format!("pausing container {}", container.id),
        source: format!("its processes do not stand still after {} s", FREEZING.as_secs()).into(),
    })
}

/// Lets the processes of a container go on.
pub(super) fn thaw(container: &Container) -> Result<()> {
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
