//! What a new daemon does with what an earlier one left: the reconciliation at start.
//!
//! For each container's documents: a shim that still runs is taken over; one that ended meanwhile is
//! brought to its end as if it had ended now (with its own time and code); then restart policies are
//! honoured. What no document names (directories, mounts, cgroups, shims) goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use minke_engine_images::Use;
use minke_engine_shim::protocol::{Request, SessionState, Status as SessionStatus};
use minke_engine_shim::{cgroup, identity};

use super::container::{Container, running_since};
use super::document::{ConfigDocument, StateDocument, Status};
use super::{create, exec, exit, health, remove, restart, start, stop};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::shim::{Connection, ShimError};
use crate::{durable, removal, rootfs};

/// How many containers are taken over at once.
const AT_ONCE: usize = 32;
/// How long the start of the engine waits for a shim. What has not answered is taken over when it does.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Reads every container and puts documents and reality together.
pub(crate) async fn adopt_all(daemon: &Daemon) -> Result<()> {
    let (mut found, mut leftovers) = (Vec::new(), Vec::new());
    for path in entries(&daemon.containers_dir())? {
        match load(&path) {
            Ok(Some(container)) => found.push(Arc::new(container)),
            Ok(None) => leftovers.push(path),
            Err(error) => {
                // Somebody may want to look at it; it must not keep the engine from starting.
                tracing::error!(path = %path.display(), error = error.message(), "left alone");
            }
        }
    }
    for container in &found {
        let name = container.name();
        if let Err(error) = daemon.containers.take_name(&name, &container.id) {
            tracing::error!(container = container.id, error = error.message(), "has no name");
        }
        daemon.containers.add(container.clone());
        pin(daemon, container);
        // A creation that was cut off after its document is finished.
        let document = container.lock().config.clone();
        if let Err(error) = create::make_volumes(daemon, &document) {
            tracing::error!(container = container.id, error = error.message(), "lacks a volume");
        }
    }
    for path in leftovers {
        remove::finish_cut_off(daemon, &path);
        discard(&path);
    }
    let alive = |container: &Arc<Container>| is_alive(daemon, container);
    let running: Vec<_> = found.iter().filter(|c| alive(c)).cloned().collect();
    let is_running = |id: &str| running.iter().any(|container| container.id == id);
    daemon.networks.restore(is_running).await?;
    let taking = futures_util::stream::iter(&running);
    taking.for_each_concurrent(AT_ONCE, |container| take_over(daemon, container)).await;
    for container in found.iter().filter(|container| !is_running(&container.id)) {
        collect(daemon, container).await;
    }
    remove_strays(daemon, is_running);
    for container in &found {
        start_by_policy(daemon, container);
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(Error::file("reading", directory))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// A container's documents; `None` for a directory that is none.
fn load(path: &Path) -> Result<Option<Container>> {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    if hidden {
        return Ok(None);
    }
    let Some(config) = durable::read_json::<ConfigDocument>(&path.join("config.json"))? else {
        return Ok(None);
    };
    let state: Option<StateDocument> = durable::read_json(&path.join("state.json"))?;
    Ok(Some(Container::new(path.to_owned(), config, state.unwrap_or_default())))
}

/// Removes the remains of a creation or removal that was cut off.
fn discard(path: &Path) {
    // Its shim, if it has one, dies with its cgroups.
    let _ = cgroup::kill_and_remove(&cgroup::listed(&path.join("shim")), Duration::from_secs(2));
    for mount in rootfs::mounts_below(path) {
        let _ = rootfs::unmount_all(&mount);
    }
    if let Err(error) = removal::remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "a leftover cannot be removed");
    }
}

fn pin(daemon: &Daemon, container: &Container) {
    let (image, running) = {
        let cell = container.lock();
        (cell.config.image_id.clone(), cell.state.status.has_process())
    };
    let how = if running { Use::Running } else { Use::Stopped };
    let pinned = image.parse().map(|image| daemon.images.pin(&image, &container.id, how));
    if !matches!(pinned, Ok(Ok(()))) {
        tracing::warn!(container = container.id, image, "the image of a container is missing");
    }
}

/// Whether the container's shim still runs, in this boot.
fn is_alive(daemon: &Daemon, container: &Container) -> bool {
    // A daemon that died between start and record leaves a shim that no state tells of: what the shim
    // itself says is what counts, but only of this boot.
    let text = std::fs::read_to_string(container.shim_dir().join("shim.pid"));
    let same_boot = {
        let cell = container.lock();
        cell.state.boot_id.is_empty() || cell.state.boot_id == daemon.boot_id
    };
    same_boot && text.is_ok_and(|text| identity::is_alive(&text))
}

/// What a shim says of its container.
struct Answer {
    connection: Connection,
    state: SessionState,
}

/// Asks a shim, for as long as it stands still.
async fn ask(dir: PathBuf) -> Result<Answer, ShimError> {
    loop {
        let mut connection = Connection::open_patiently(&dir).await?;
        match connection.state("").await {
            Err(ShimError::Silent) => {}
            state => return Ok(Answer { connection, state: state? }),
        }
    }
}

/// Takes over a container whose shim runs. If the shim stands still, that goes on in the background.
async fn take_over(daemon: &Daemon, container: &Arc<Container>) {
    let mut asking = Box::pin(ask(container.shim_dir()));
    if let Ok(answer) = tokio::time::timeout(FIRST_ANSWER, &mut asking).await {
        take_over_as(daemon, container, answer).await;
        return;
    }
    tracing::warn!(container = container.id, "the shim does not answer yet");
    // Whatever its document says: nobody may start it beside a shim that may have it. The document is
    // left alone until the shim says how it is.
    if !container.status().has_process() {
        container.lock().state.status = Status::Running;
    }
    container.phase.send_modify(|phase| phase.running = true);
    let (daemon, container) = (daemon.clone(), container.clone());
    tokio::spawn(async move {
        let answer = asking.await;
        if !take_over_as(&daemon, &container, answer).await {
            // When the engine started what policies want, this one counted as running.
            start_by_policy(&daemon, &container);
        }
    });
}

/// Takes over a container as its shim says that it is. False: it had not come to run.
async fn take_over_as(
    daemon: &Daemon,
    container: &Arc<Container>,
    answer: Result<Answer, ShimError>,
) -> bool {
    match answer {
        Ok(Answer { connection, state }) if state.status == SessionStatus::Running => {
            go_on(daemon, container, connection, &state).await;
            true
        }
        // It is as if it had not been started.
        Ok(Answer { connection, state }) if state.status != SessionStatus::Exited => {
            drop(connection);
            exit::end_shim(container).await;
            exit::take_down(daemon, container).await;
            forget_run(container);
            false
        }
        Ok(_) | Err(_) => {
            exit::ended(daemon, container, None).await;
            true
        }
    }
}

/// Goes on with a container that runs.
async fn go_on(
    daemon: &Daemon,
    container: &Arc<Container>,
    mut waiting: Connection,
    state: &SessionState,
) {
    let paused = container.status() == Status::Paused;
    if !paused {
        stop::thaw_in_any_case(container);
    }
    let endpoints = known_endpoints(daemon, container);
    container.lock().running_since = running_since(state.pid);
    container.record_state(|document| {
        document.status = if paused { Status::Paused } else { Status::Running };
        if document.pid != state.pid {
            document.started_at = i64::try_from(state.started_at).unwrap_or_default();
        }
        document.pid = state.pid;
        document.boot_id = daemon.boot_id.clone();
        if document.endpoints.is_empty() {
            document.endpoints = endpoints.clone();
        }
    });
    container.phase.send_modify(|phase| phase.running = true);
    pin(daemon, container);
    exec::adopt(daemon, container).await;
    if waiting.writer.send(&Request::Wait { session: String::new() }).await.is_err() {
        return exit::ended(daemon, container, None).await;
    }
    exit::watch(daemon, container, waiting);
    health::begin(daemon, container);
}

fn known_endpoints(
    daemon: &Daemon,
    container: &Container,
) -> std::collections::BTreeMap<String, minke_engine_client::wire::EndpointSettings> {
    let asked = container.lock().config.networks.clone();
    let records = daemon.networks.list();
    let mine = records.iter().filter_map(|record| {
        let endpoint = record.endpoints.get(&container.id)?;
        let asked = asked.get(&record.name).cloned().unwrap_or_default();
        let shown = crate::networks::show_endpoint(&asked, record, endpoint);
        Some((record.name.clone(), shown))
    });
    mine.collect()
}

fn forget_run(container: &Container) {
    if container.status().counts_as_running() {
        container.record_state(|state| {
            state.status = Status::Exited;
            state.pid = 0;
        });
    }
    container.phase.send_modify(|phase| phase.running = false);
}

/// Deals with a container whose shim does not run.
async fn collect(daemon: &Daemon, container: &Arc<Container>) {
    let status = container.status();
    if status.has_process() {
        // It ended, or the host went down, while no daemon was there.
        exit::ended(daemon, container, None).await;
        return;
    }
    // A daemon that died in the middle of a start or an end may have left mounts and cgroups.
    let listed = cgroup::listed(&container.shim_dir());
    if listed.iter().any(|directory| directory.exists()) {
        exit::settle(container, None).await;
    }
    exit::take_down(daemon, container).await;
    let (given_up, wait) = {
        let cell = container.lock();
        (cell.is_end_asked_for(), Duration::from_millis(cell.state.backoff))
    };
    match status {
        // The last daemon died in a stop that was giving the restart up.
        Status::Restarting if given_up => forget_run(container),
        Status::Restarting => exit::restart_after(daemon, container, wait),
        _ => {}
    }
    let auto_remove = container.lock().config.host_config.auto_remove;
    if status == Status::Exited && auto_remove {
        let (daemon, container) = (daemon.clone(), container.clone());
        tokio::spawn(async move {
            let how = remove::Removal { force: true, volumes: true };
            if let Err(error) = remove::remove(&daemon, &container, how).await {
                tracing::warn!(container = container.id, error = error.message(), "is left over");
            }
        });
    }
}

/// Starts what its policy wants running: after a reboot, or where the last daemon died before it
/// could.
fn start_by_policy(daemon: &Daemon, container: &Arc<Container>) {
    let wanted = {
        let cell = container.lock();
        let policy = &cell.config.host_config.restart_policy;
        let state = &cell.state;
        let ran = state.started_at != 0;
        let down = matches!(state.status, Status::Exited | Status::Created);
        down && restart::at_engine_start(policy, state.manually_stopped, ran)
    };
    if !wanted {
        return;
    }
    let (daemon, container) = (daemon.clone(), container.clone());
    tokio::spawn(async move {
        match start::start(&daemon, &container).await {
            Ok(()) | Err(Error::NotModified) => {}
            Err(error) => {
                tracing::warn!(container = container.id, error = error.message(), "not started");
            }
        }
    });
}

/// The engine's own cgroup in every hierarchy.
fn cgroup_parents(daemon: &Daemon) -> Vec<PathBuf> {
    let parent = daemon.cgroup_parent();
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(entries(Path::new("/sys/fs/cgroup")).unwrap_or_default());
    let directories = roots.iter().map(|root| root.join(parent.trim_start_matches('/')));
    directories.filter(|directory| directory.is_dir()).collect()
}

/// Removes cgroups below the engine's own that belong to no running container.
pub(crate) fn remove_strays(daemon: &Daemon, is_running: impl Fn(&str) -> bool) {
    for directory in cgroup_parents(daemon) {
        for stray in entries(&directory).unwrap_or_default().into_iter().filter(|p| p.is_dir()) {
            let name = stray.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !is_running(&name) {
                // What does not die within the time is looked at again at the next start.
                let _ = cgroup::kill_and_remove(&[stray], Duration::from_secs(2));
            }
        }
    }
}

/// Removes the engine's own cgroups, and the one they are in when it is empty.
pub(crate) fn remove_cgroup_parents(daemon: &Daemon) {
    for directory in cgroup_parents(daemon) {
        let _ = std::fs::remove_dir(&directory);
        // Other engines may have theirs in it: then it stays.
        let _ = directory.parent().map(std::fs::remove_dir);
    }
}
