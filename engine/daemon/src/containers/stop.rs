//! Stops, kills, pauses, restarts and waits.

use std::sync::Arc;
use std::time::Duration;

use minke_engine_shim::cgroup;

use super::container::Container;
use super::document::Status;
use super::{signals, start};
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Seconds between the stop signal and SIGKILL, unless the container says otherwise.
const DEFAULT_GRACE: i64 = 10;
/// How long a container may take to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(30);

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
    let ended = if seconds < 0 {
        wait_not_running(container).await;
        true
    } else {
        let grace = Duration::from_secs(seconds.unsigned_abs());
        tokio::time::timeout(grace, wait_not_running(container)).await.is_ok()
    };
    if !ended {
        signal_and_tell(daemon, container, signals::KILL).await?;
        if tokio::time::timeout(AFTER_KILL, wait_not_running(container)).await.is_err() {
            return Err(Error::Conflict(format!(
                "container {} did not end within {} s of SIGKILL",
                container.id,
                AFTER_KILL.as_secs()
            )));
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
    if let Err(error) = send_signal(container, signal).await {
        return if container.status().has_process() { Err(error) } else { Ok(()) };
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
        let _lifecycle = container.lifecycle.lock().await;
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
    if signal == signals::KILL
        && tokio::time::timeout(AFTER_KILL, wait_not_running(container)).await.is_err()
    {
        return Err(Error::Conflict(format!("container {} did not end", container.id)));
    }
    Ok(())
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
    match tokio::time::timeout(AFTER_KILL, wait_not_running(container)).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::Conflict(format!("container {} did not end", container.id))),
    }
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
    let _lifecycle = container.lifecycle.lock().await;
    if container.status().counts_as_running() {
        // Its auto-removal would race the start.
        stop_locked(daemon, container, how, false).await?;
    }
    start::start_locked(daemon, container, false).await?;
    daemon.events.publish("container", "restart", &container.id, container.attributes());
    Ok(())
}

/// Resolves when the container neither runs nor is about to.
async fn wait_not_running(container: &Container) {
    let mut phase = container.phase.subscribe();
    // The sender lives as long as the container does.
    let _ = phase.wait_for(|phase| !phase.running).await;
}

/// Stops every process of a container where it is.
pub(crate) async fn pause(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let _lifecycle = container.lifecycle.lock().await;
    match container.status() {
        Status::Running => {}
        Status::Paused => {
            return Err(Error::Conflict(format!("container {} is already paused", container.id)));
        }
        _ => return Err(container.not_running()),
    }
    freeze(container, true)?;
    container.change_state(|state| state.status = Status::Paused)?;
    daemon.events.publish("container", "pause", &container.id, container.attributes());
    Ok(())
}

/// Lets a paused container go on.
pub(crate) async fn unpause(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let _lifecycle = container.lifecycle.lock().await;
    if container.status() != Status::Paused {
        return Err(Error::Conflict(format!("container {} is not paused", container.id)));
    }
    unpause_locked(daemon, container)
}

fn unpause_locked(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    freeze(container, false)?;
    container.change_state(|state| {
        if state.status == Status::Paused {
            state.status = Status::Running;
        }
    })?;
    daemon.events.publish("container", "unpause", &container.id, container.attributes());
    Ok(())
}

fn freeze(container: &Container, frozen: bool) -> Result<()> {
    for directory in cgroup::listed(&container.shim_dir()) {
        let (v1, v2) = (directory.join("freezer.state"), directory.join("cgroup.freeze"));
        let (path, word) = if v1.exists() {
            (v1, if frozen { "FROZEN" } else { "THAWED" })
        } else if v2.exists() {
            (v2, if frozen { "1" } else { "0" })
        } else {
            continue;
        };
        return std::fs::write(&path, word).map_err(Error::file("freezing", &path));
    }
    Err(Error::System {
        doing: "pausing the container".to_owned(),
        source: "the host has no freezer cgroup".into(),
    })
}
