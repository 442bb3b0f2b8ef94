//! Further processes in running containers.
//!
//! An exec is a session of the container's shim, named by the exec's id. Its document in `execs/`
//! is there so that ids and exit codes outlive the daemon; it is not synced, as a power cut ends the
//! process anyway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use minke_engine_client::wire::{CreateExec, ExecDetails, ExecProcess};
use minke_engine_runtime::spec::{self, ExecSpec};
use minke_engine_shim::protocol::{Request, Response, Size, Streams};
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::document::Status;
use super::prepare;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::shim::{Connection, ShimError};
use crate::{durable, ids, launch};

/// Finished execs that are kept for inspection, a container.
const KEPT: usize = 64;
/// Execs that nobody has started and that are kept for whoever will, a container. Beyond it the oldest go:
/// those are most likely of clients that have gone.
const UNSTARTED: usize = 1024;
/// How often and how long a command that is to be killed is given time to have started.
const STARTING_TRIES: u32 = 100;
const STARTING_PAUSE: Duration = Duration::from_millis(50);
/// The exit code of an exec whose shim is gone: it was killed with it.
const LOST: i64 = 137;

/// An exec and how far it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) body: CreateExec,
    pub(crate) progress: Progress,
    pub(crate) pid: u32,
    /// Counts up within a container: the oldest go first.
    sequence: u64,
    /// Size of a terminal that does not exist yet.
    #[serde(skip)]
    pub(crate) early_size: Option<(u16, u16)>,
}

/// How far an exec is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Progress {
    #[default]
    Created,
    Running,
    Ended(i64),
}

/// Makes an exec in a running container; its id.
pub(crate) fn create(
    daemon: &Daemon,
    container: &Arc<Container>,
    body: CreateExec,
) -> Result<String> {
    check_running(container)?;
    if body.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::Invalid("No exec command specified".to_owned()));
    }
    let id = ids::random();
    let text = body.cmd.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    {
        let mut cell = container.lock();
        let sequence = cell.execs.values().map(|exec| exec.sequence + 1).max().unwrap_or(0);
        make_room(container, &mut cell.execs);
        cell.execs.insert(id.clone(), Exec { body, sequence, ..Exec::default() });
    }
    store(container, &id);
    tell(daemon, container, &format!("exec_create: {text}"), &id, None);
    Ok(id)
}

fn check_running(container: &Container) -> Result<()> {
    match container.status() {
        Status::Running => Ok(()),
        Status::Paused => Err(Error::Conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.id
        ))),
        Status::Restarting => Err(Error::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(container.not_running()),
    }
}

/// Forgets the oldest execs, so that there is room for one more. What is over and what is still to come
/// are counted apart: the one must not displace the other.
fn make_room(container: &Container, execs: &mut BTreeMap<String, Exec>) {
    forget_oldest(container, execs, KEPT, |exec| matches!(exec.progress, Progress::Ended(_)));
    forget_oldest(container, execs, UNSTARTED, |exec| exec.progress == Progress::Created);
}

fn forget_oldest(
    container: &Container,
    execs: &mut BTreeMap<String, Exec>,
    limit: usize,
    counts: impl Fn(&Exec) -> bool,
) {
    while execs.values().filter(|exec| counts(exec)).count() >= limit {
        let oldest = execs.iter().filter(|(_, exec)| counts(exec)).min_by_key(|(_, e)| e.sequence);
        let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
        execs.remove(&id);
        // A document that stays is read by the next daemon and goes in its turn.
        let _ = std::fs::remove_file(document_path(container, &id));
    }
}

fn document_path(container: &Container, id: &str) -> PathBuf {
    container.dir.join("execs").join(id)
}

fn store(container: &Container, id: &str) {
    let exec = container.lock().execs.get(id).cloned();
    let Some(bytes) = exec.and_then(|exec| serde_json::to_vec(&exec).ok()) else { return };
    let path = document_path(container, id);
    if let Some(parent) = path.parent() {
        let _ = std::fs::create_dir(parent);
    }
    if let Err(error) = durable::write_soon(&path, &bytes) {
        tracing::warn!(exec = id, error = error.message(), "an exec's document is not stored");
    }
}

/// Reads what an earlier daemon knew, and asks the shim how it went on.
pub(crate) async fn adopt(daemon: &Daemon, container: &Arc<Container>) {
    let Ok(entries) = std::fs::read_dir(container.dir.join("execs")) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(Some(exec)) = durable::read_json::<Exec>(&path) else { continue };
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let progress = exec.progress;
        container.lock().execs.insert(id.clone(), exec);
        if matches!(progress, Progress::Ended(_)) {
            continue;
        }
        // The last daemon may have died between the start and its note of it.
        let known = match Connection::open(&container.shim_dir()).await {
            Ok(mut connection) => connection.state(&id).await.map(drop),
            Err(error) => Err(error),
        };
        // A shim that says nothing now is waited for, and tells then.
        let known = matches!(known, Ok(()) | Err(ShimError::Silent));
        if known {
            if let Some(exec) = container.lock().execs.get_mut(&id) {
                exec.progress = Progress::Running;
            }
            wait_in_background(daemon, container, id);
        } else if progress == Progress::Running {
            ended(daemon, container, &id, LOST);
        }
    }
}

fn wait_in_background(daemon: &Daemon, container: &Arc<Container>, id: String) {
    let (daemon, container) = (daemon.clone(), container.clone());
    tokio::spawn(async move {
        let exit = match Connection::open_patiently(&container.shim_dir()).await {
            Ok(mut connection) => connection.wait(&id).await,
            Err(_) => None,
        };
        ended(&daemon, &container, &id, exit.map_or(LOST, |exit| i64::from(exit.code)));
    });
}

/// Starts an exec; the connection that is bound to it.
pub(crate) async fn start(
    daemon: &Daemon,
    container: &Arc<Container>,
    id: &str,
    streams: Streams,
    size: Option<Size>,
) -> Result<Connection> {
    start_claimed(daemon, container, claim(container, id)?, streams, size).await
}

/// An exec that nobody else will start.
pub(crate) struct Claimed {
    id: String,
    body: CreateExec,
    early: Option<(u16, u16)>,
}

/// Starts an exec that was claimed.
pub(crate) async fn start_claimed(
    daemon: &Daemon,
    container: &Arc<Container>,
    claimed: Claimed,
    streams: Streams,
    size: Option<Size>,
) -> Result<Connection> {
    let Claimed { id, body, early } = claimed;
    let id = id.as_str();
    let size = size.or(early.map(|(rows, columns)| Size { rows, columns }));
    match launch_in(daemon, container, id, &body, streams, size).await {
        Ok((connection, pid)) => {
            if let Some(exec) = container.lock().execs.get_mut(id) {
                exec.pid = pid;
            }
            store(container, id);
            let text = body.cmd.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
            tell(daemon, container, &format!("exec_start: {text}"), id, None);
            Ok(connection)
        }
        Err(error) => {
            let code = match &error {
                Error::Start { failure, .. } => i64::from(failure.exit_code()),
                _ => 126,
            };
            ended(daemon, container, id, code);
            Err(error)
        }
    }
}

/// Takes an exec for starting it: it is started once.
pub(crate) fn claim(container: &Container, id: &str) -> Result<Claimed> {
    check_running(container)?;
    let mut cell = container.lock();
    let missing = || Error::NotFound(format!("No such exec instance: {id}"));
    let exec = cell.execs.get_mut(id).ok_or_else(missing)?;
    match exec.progress {
        Progress::Created => exec.progress = Progress::Running,
        Progress::Running => {
            return Err(Error::Conflict(format!("exec command {id} is already running")));
        }
        Progress::Ended(_) => {
            return Err(Error::Conflict(format!("exec command {id} has already run")));
        }
    }
    Ok(Claimed { id: id.to_owned(), body: exec.body.clone(), early: exec.early_size })
}

async fn launch_in(
    daemon: &Daemon,
    container: &Arc<Container>,
    id: &str,
    body: &CreateExec,
    streams: Streams,
    size: Option<Size>,
) -> Result<(Connection, u32)> {
    let mut of_container = prepare::spec_of_processes(daemon, container)?;
    // The kernel may have been given a profile, or lost it, since the start.
    of_container.apparmor = container.lock().state.apparmor.clone();
    let facts = launch::gather(&of_container)?;
    let wanted = ExecSpec {
        args: body.cmd.clone().unwrap_or_default(),
        env: body.env.clone(),
        cwd: body.working_dir.clone(),
        user: body.user.clone(),
        tty: body.tty,
        privileged: body.privileged,
    };
    let process = spec::process(&wanted, &of_container, &facts)?;
    let process = serde_json::to_vec(&process).map_err(Error::system("describing the process"))?;
    let request = Request::Exec {
        session: id.to_owned(),
        process,
        tty: body.tty,
        streams,
        size: size.or(body.console_size.map(|[rows, columns]| Size { rows, columns })),
    };
    let mut connection = container.connect().await?;
    let pid = connection.exec(&request).await.map_err(|error| match error {
        ShimError::Failed { failure, message } => Error::Start { failure, message },
        other => Error::system("starting the process")(other),
    })?;
    Ok((connection, pid))
}

/// Records the end of an exec.
pub(crate) fn ended(daemon: &Daemon, container: &Arc<Container>, id: &str, code: i64) {
    if let Some(exec) = container.lock().execs.get_mut(id) {
        exec.progress = Progress::Ended(code);
        exec.pid = 0;
    }
    store(container, id);
    tell(daemon, container, "exec_die", id, Some(code));
    // The shim need not keep it any longer.
    let (container, id) = (container.clone(), id.to_owned());
    tokio::spawn(async move {
        if let Ok(mut connection) = container.connect().await {
            let _ = connection.ask(&Request::Forget { session: id }).await;
        }
    });
}

/// Publishes that something happened to an exec.
pub(crate) fn tell(
    daemon: &Daemon,
    container: &Container,
    action: &str,
    id: &str,
    code: Option<i64>,
) {
    let mut attributes = container.attributes();
    attributes.insert("execID".to_owned(), id.to_owned());
    if let Some(code) = code {
        attributes.insert("exitCode".to_owned(), code.to_string());
    }
    daemon.events.publish("container", action, &container.id, attributes);
}

/// Runs a command to its end without anybody attached; its exit code and the first `limit` bytes it
/// says. Dropping the future kills the command.
pub(crate) async fn run_to_end(
    daemon: &Daemon,
    container: &Arc<Container>,
    body: CreateExec,
    limit: usize,
) -> Result<(i64, Vec<u8>)> {
    let id = ids::random();
    let streams = Streams { stdin: false, stdout: true, stderr: true };
    // Armed before the start: it may be cut off in the middle of that.
    let mut guard = KillOnDrop { container: container.clone(), id: id.clone(), armed: true };
    let launched = launch_in(daemon, container, &id, &body, streams, None).await;
    guard.armed = launched.is_ok();
    let (mut connection, _) = launched?;
    let mut output = Vec::new();
    loop {
        match connection.reader.next().await.map_err(Error::system("reading a check's output"))? {
            Some(Response::Stdout(bytes) | Response::Stderr(bytes)) => {
                let room = limit - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Some(Response::Exited(exit)) => {
                guard.armed = false;
                let forget = Request::Forget { session: guard.id.clone() };
                // Without an answer the shim drops it in time by itself.
                let _ = connection.writer.send(&forget).await;
                return Ok((i64::from(exit.code), output));
            }
            Some(_) => {}
            None => return Err(container.not_running()),
        }
    }
}

struct KillOnDrop {
    container: Arc<Container>,
    id: String,
    armed: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (container, id) = (self.container.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            let Ok(mut connection) = container.connect().await else { return };
            // It may still be starting; it may also have ended by itself.
            for _ in 0..STARTING_TRIES {
                let signalled = connection.signal(&id, super::signals::KILL).await;
                let ended =
                    matches!(connection.state(&id).await, Ok(state) if state.exit.is_some());
                if signalled.is_ok() || ended {
                    break;
                }
                tokio::time::sleep(STARTING_PAUSE).await;
            }
            let _ = connection.wait(&id).await;
            let _ = connection.ask(&Request::Forget { session: id }).await;
        });
    }
}

/// Sets the size of an exec's terminal, now or when it starts.
pub(crate) async fn resize(container: &Arc<Container>, id: &str, size: Size) -> Result<()> {
    let running = {
        let mut cell = container.lock();
        let exec = cell
            .execs
            .get_mut(id)
            .ok_or_else(|| Error::NotFound(format!("No such exec instance: {id}")))?;
        exec.early_size = Some((size.rows, size.columns));
        exec.progress == Progress::Running
    };
    if running {
        let mut connection = container.connect().await?;
        connection.resize(id, size).await.map_err(Error::system("resizing the terminal"))?;
    }
    Ok(())
}

/// An exec as the API shows it.
pub(crate) fn show(container: &Container, id: &str) -> Result<ExecDetails> {
    let cell = container.lock();
    let exec = cell
        .execs
        .get(id)
        .ok_or_else(|| Error::NotFound(format!("No such exec instance: {id}")))?;
    let mut words = exec.body.cmd.clone().unwrap_or_default().into_iter();
    Ok(ExecDetails {
        id: id.to_owned(),
        running: exec.progress == Progress::Running,
        exit_code: match exec.progress {
            Progress::Ended(code) => Some(code),
            _ => None,
        },
        process_config: ExecProcess {
            tty: exec.body.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: exec.body.privileged,
            user: exec.body.user.clone(),
        },
        open_stdin: exec.body.attach_stdin,
        open_stderr: exec.body.attach_stderr,
        open_stdout: exec.body.attach_stdout,
        can_remove: false,
        container_id: container.id.clone(),
        detach_keys: exec.body.detach_keys.clone(),
        pid: i64::from(exec.pid),
    })
}

#[cfg(test)]
mod tests {
    use super::super::document::{ConfigDocument, StateDocument};
    use super::*;

    #[test]
    fn what_is_over_and_what_is_still_to_come_make_room_apart() {
        let dir = tempfile::tempdir().unwrap();
        let documents = (ConfigDocument::default(), StateDocument::default());
        let container = Container::new(dir.path().to_owned(), documents.0, documents.1);
        let kinds = [
            (Progress::Created, UNSTARTED),
            (Progress::Ended(0), KEPT),
            (Progress::Running, KEPT + UNSTARTED),
        ];
        let mut execs = BTreeMap::new();
        for (progress, count) in kinds {
            for sequence in 0..count as u64 {
                let exec = Exec { progress, sequence, ..Exec::default() };
                execs.insert(format!("{progress:?} {sequence}"), exec);
            }
        }
        let all = execs.len();
        make_room(&container, &mut execs);
        assert_eq!(execs.len(), all - 2);
        assert!(!execs.contains_key("Created 0") && !execs.contains_key("Ended(0) 0"));
        make_room(&container, &mut execs);
        assert_eq!(execs.len(), all - 2, "there is room already");
    }
}
