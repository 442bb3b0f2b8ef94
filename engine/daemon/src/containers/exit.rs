//! What happens when a container ends.
//!
//! Order: the shim's word (or, if it was killed, what its cgroups hold), network and volumes, the
//! document, the events, then whoever waits; after that the restart policy or the auto-removal. The root
//! file system goes beside all that ([`super::unmount`]).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use minke_engine_images::Use;
use minke_engine_network::NetworkRecord;
use minke_engine_shim::exit::ExitRecord;
use minke_engine_shim::protocol::{Exit, Response};
use minke_engine_shim::{cgroup, identity};

use super::container::Container;
use super::document::{MountKind, Status};
use super::remove::{self, Removal};
use super::restart::{self, End};
use super::{membership, shm, start, stop, subpaths, unmount};
use crate::daemon::Daemon;
use crate::error::Error;
use crate::shim::Connection;
use crate::{damage, stamp, users};

/// How long the remains of a container whose shim was killed may take to die.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// How long the end of a container waits for what its volumes still have to write.
const WRITE_OUT: Duration = Duration::from_secs(20);

/// Waits in the background for the container's end. `waiting` has asked for it already.
pub(crate) fn watch(daemon: &Daemon, container: &Arc<Container>, waiting: Connection) {
    let (daemon, container) = (daemon.clone(), container.clone());
    tokio::spawn(async move {
        // The whole connection moves here: without its writing half the shim would hang up.
        let mut waiting = waiting;
        let exit = match waiting.reader.next().await {
            Ok(Some(Response::Exited(exit))) => Some(exit),
            _ => None,
        };
        ended(&daemon, &container, exit).await;
    });
}

/// The shim's record of the end, or what must be assumed without one.
pub(crate) async fn settle(container: &Container, exit: Option<Exit>) -> Exit {
    if let Some(exit) = exit {
        return exit;
    }
    let dir = container.shim_dir();
    // A shim that is about to write its record is let finish.
    for _ in 0..200 {
        let alive = std::fs::read_to_string(dir.join("shim.pid"))
            .is_ok_and(|text| identity::is_alive(&text));
        if !alive {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let record = std::fs::read_to_string(dir.join("exit")).ok();
    if let Some(record) = record.and_then(|text| ExitRecord::parse(&text)) {
        return record.exit;
    }
    kill_remains(&dir, &container.id).await;
    Exit { code: 137, signal: 9, oom: false, finished_at: stamp::now() as u64 }
}

/// Ends the shim of a container that has not come to run, and waits a little for that: the next start
/// works in the same directory.
pub(crate) async fn end_shim(container: &Container) {
    if let Ok(mut connection) = Connection::open(&container.shim_dir()).await {
        // One whose container could not be made is about to end by itself, and says no.
        let _ = connection.stop().await;
    }
    settle(container, None).await;
}

/// Kills what is left of a container whose shim is gone, by its cgroups.
pub(crate) async fn kill_remains(shim_dir: &Path, id: &str) {
    let directories = cgroup::listed(shim_dir);
    let cleaned =
        tokio::task::spawn_blocking(move || cgroup::kill_and_remove(&directories, CLEAN_UP));
    if !matches!(cleaned.await, Ok(Ok(()))) {
        tracing::warn!(container = id, "the cgroups of a container could not be removed");
    }
}

/// Brings a container that ran to its end.
pub(crate) async fn ended(daemon: &Daemon, container: &Arc<Container>, exit: Option<Exit>) {
    let since = container.lock().running_since.take();
    let ended = Instant::now();
    let exit = settle(container, exit).await;
    if exit.signal != 0 {
        damage::after_end(container, daemon, Some(exit.signal));
    }
    let left = take_down(daemon, container).await;
    container.lock().tasks.end_all();
    let stamps = (container.lock().state.started_at, exit.finished_at as i64);
    let ran_for = restart::ran_for(since, ended, stamps);
    let (wait, stopped) = {
        let cell = container.lock();
        let end = End {
            exit_code: i64::from(exit.code),
            ran_for,
            asked_for: cell.is_end_asked_for(),
            restarts: cell.state.restart_count,
            last_wait: cell.state.backoff,
        };
        let wait = restart::after_end(&cell.config.host_config.restart_policy, end);
        (wait, cell.stopping && !cell.restarting)
    };
    container.record_state(|state| {
        state.status = if wait.is_some() { Status::Restarting } else { Status::Exited };
        state.pid = 0;
        state.manually_stopped |= stopped;
        state.exit_code = i64::from(exit.code);
        state.oom_killed = exit.oom;
        state.finished_at = exit.finished_at as i64;
        if let Some(wait) = wait {
            state.backoff = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            state.restart_count += 1;
        }
        if let Some(health) = &mut state.health {
            health.status = "unhealthy".to_owned();
        }
    });
    publish_end(daemon, container, exit, ran_for);
    for record in &left {
        membership::tell(daemon, container, record, "disconnect");
    }
    match wait {
        Some(wait) => {
            // Who waits for an end has seen one, though the container is about to run again.
            container.phase.send_modify(|phase| {
                phase.exits += 1;
                phase.exit_code = i64::from(exit.code);
            });
            restart_after(daemon, container, wait);
        }
        None => finish(daemon, container, i64::from(exit.code)),
    }
}

fn publish_end(daemon: &Daemon, container: &Container, exit: Exit, ran_for: Duration) {
    let mut attributes = container.attributes();
    if exit.oom {
        daemon.events.publish("container", "oom", &container.id, attributes.clone());
    }
    attributes.insert("exitCode".to_owned(), exit.code.to_string());
    attributes.insert("execDuration".to_owned(), ran_for.as_secs().to_string());
    daemon.events.publish("container", "die", &container.id, attributes);
}

/// Tells whoever waits, and removes what asked to be removed.
pub(crate) fn finish(daemon: &Daemon, container: &Arc<Container>, exit_code: i64) {
    // Asked first: a restart goes on as soon as it is told.
    let auto_remove = {
        let cell = container.lock();
        cell.config.host_config.auto_remove && !cell.restarting
    };
    container.phase.send_modify(|phase| {
        phase.running = false;
        phase.exits += 1;
        phase.exit_code = exit_code;
    });
    if auto_remove {
        let (daemon, container) = (daemon.clone(), container.clone());
        tokio::spawn(async move {
            let removal = Removal { force: true, volumes: true };
            match remove::remove(&daemon, &container, removal).await {
                // Whoever killed it may have removed it.
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => tracing::warn!(
                    container = container.id,
                    error = error.message(),
                    "a container could not be removed after its end"
                ),
            }
        });
    }
}

/// Starts a container again after its back-off.
pub(crate) fn restart_after(daemon: &Daemon, container: &Arc<Container>, wait: Duration) {
    let (owner, daemon) = (container.clone(), daemon.clone());
    // The timer is its own task so that cancelling it can never cut a start in half.
    let timer = tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        tokio::spawn(async move { start_again(&daemon, &owner).await });
    });
    container.lock().tasks.restart = Some(timer.abort_handle());
}

async fn start_again(daemon: &Daemon, container: &Arc<Container>) {
    let _lifecycle = container.lifecycle.lock().await;
    if container.status() != Status::Restarting {
        return;
    }
    if container.lock().is_end_asked_for() {
        // Whoever asked may not have come as far as this.
        stop::give_up_restart(container);
        return;
    }
    if let Err(error) = start::start_locked(daemon, container, true).await {
        let message = error.message();
        tracing::warn!(container = container.id, error = message, "a restart failed");
        let wait = {
            let cell = container.lock();
            let end = End {
                exit_code: cell.state.exit_code,
                ran_for: Duration::ZERO,
                asked_for: cell.is_end_asked_for(),
                restarts: cell.state.restart_count,
                last_wait: cell.state.backoff,
            };
            restart::after_end(&cell.config.host_config.restart_policy, end)
        };
        if let Some(wait) = wait {
            container.record_state(|state| {
                state.status = Status::Restarting;
                state.restart_count += 1;
                state.backoff = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            });
            restart_after(daemon, container, wait);
        } else {
            let exit_code = container.lock().state.exit_code;
            finish(daemon, container, exit_code);
        }
    }
}

/// Takes network and mounts of a container down; the networks that it has left. Goes on after a
/// failure: what is left over is found at the next start of the engine.
pub(crate) async fn take_down(daemon: &Daemon, container: &Container) -> Vec<NetworkRecord> {
    let mut left = Vec::new();
    let users = users::of(daemon, &container.lock().config.host_config);
    if container.has_own_network() || users.is_some() {
        match daemon.networks.release(&container.id).await {
            Ok(records) => left = records,
            Err(error) => {
                let error: Error = error.into();
                let message = error.message();
                tracing::warn!(
                    container = container.id,
                    error = message,
                    "leaving networks failed"
                );
            }
        }
    }
    unmount::begin(container);
    let unmounted = shm::unmount(container).and_then(|()| subpaths::unmount(daemon, &container.id));
    if let Err(error) = unmounted {
        tracing::warn!(container = container.id, error = error.message(), "unmounting failed");
    }
    // After the parts of volumes: the last mount of a file system is the one that takes long to go.
    release_volumes(daemon, container).await;
    pin_as_stopped(daemon, container);
    left
}

/// Lets go of a container's volumes. What is mounted on them is written out first, which takes as long as
/// its disk or its server takes: after a while the end is told all the same, and only who needs the volume
/// again waits.
async fn release_volumes(daemon: &Daemon, container: &Container) {
    let mounts = container.lock().config.mounts.clone();
    let volumes = mounts.into_iter().filter(|mount| mount.kind == MountKind::Volume);
    let mut names: Vec<String> = volumes.map(|mount| mount.volume).collect();
    // Before anything is waited for: afterwards the container may run again, and have them again.
    names.retain(|name| match daemon.volumes.leave(name, &container.id) {
        Ok(mounted) => mounted,
        Err(Error::NotFound(_)) => false,
        Err(error) => {
            tracing::warn!(volume = name, error = error.message(), "a volume stays mounted");
            false
        }
    });
    if names.is_empty() {
        return;
    }
    let daemon = daemon.clone();
    let work = move || names.iter().for_each(|name| take_volume_down(&daemon, name));
    let down = tokio::task::spawn_blocking(work);
    match tokio::time::timeout(WRITE_OUT, down).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "taking volumes down was cut off"),
        Err(_) => tracing::warn!(container = container.id, "volumes are still being written out"),
    }
}

fn take_volume_down(daemon: &Daemon, name: &str) {
    let runs = |container: &Arc<Container>| {
        let cell = container.lock();
        cell.state.status.has_process()
            && cell.config.mounts.iter().any(|mount| mount.volume == name)
    };
    let running = || {
        let users = daemon.containers.all().into_iter().filter(runs);
        users.map(|container| container.id.clone()).collect()
    };
    if let Err(error) = daemon.volumes.take_down(name, running) {
        tracing::warn!(volume = name, error = error.message(), "a volume stays mounted");
    }
}

/// Says that a container which does not run has its image.
pub(crate) fn pin_as_stopped(daemon: &Daemon, container: &Container) {
    let image = container.lock().config.image_id.parse();
    if let Ok(image) = image
        && daemon.images.pin(&image, &container.id, Use::Stopped).is_err()
    {
        tracing::debug!(container = container.id, "the image of a container is gone");
    }
}
