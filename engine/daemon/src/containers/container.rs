//! One container as the daemon holds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use minke_engine_client::wire::HostNetwork;
use minke_engine_shim::identity;
use minke_engine_shim::protocol::{Size, Streams};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::document::{ConfigDocument, StateDocument, Status};
use super::exec::Exec;
use super::unmount::Unmounting;
use crate::durable;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::shim::Connection;

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    cell: Mutex<Cell>,
    /// Held through a start, a stop, a removal: one at a time.
    pub(crate) lifecycle: Arc<tokio::sync::Mutex<()>>,
    pub(crate) unmounting: Unmounting,
    /// What waits look at.
    pub(crate) phase: watch::Sender<Phase>,
}

/// What changes about a container.
pub(crate) struct Cell {
    pub(crate) config: ConfigDocument,
    pub(crate) state: StateDocument,
    /// Since when it runs. The document's time is for people: the clock that it is from may be set.
    pub(crate) running_since: Option<Instant>,
    /// When its image was looked at last, if that was for its creation.
    pub(crate) looked_at: Option<Instant>,
    /// Clients that attached before the start.
    pub(crate) pending: Vec<PendingAttach>,
    /// A terminal size that came before the terminal.
    pub(crate) early_size: Option<Size>,
    pub(crate) execs: BTreeMap<String, Exec>,
    pub(crate) tasks: Tasks,
    /// Stops the restart policy for the end that comes.
    pub(crate) stopping: bool,
    /// Made to stand still while its document says that it runs.
    pub(crate) still: Stillness,
    /// The end that comes is half of a restart: no auto-removal.
    pub(crate) restarting: bool,
}

impl Cell {
    /// Whether somebody asked for the end that comes. A daemon that ended during a stop has left no more of
    /// it than what the document says; only a start by hand takes that back.
    pub(crate) fn is_end_asked_for(&self) -> bool {
        self.stopping || self.state.manually_stopped
    }
}

/// How often a container was made to stand still for a moment, and whether it is now. Equal before and
/// after: it went on all the time in between, if it did before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stillness {
    pub(crate) now: bool,
    times: u64,
}

impl Stillness {
    pub(crate) fn begin(&mut self) {
        self.now = true;
        self.times += 1;
    }

    pub(crate) fn end(&mut self) {
        self.now = false;
    }
}

/// A client that waits for the start.
pub(crate) struct PendingAttach {
    pub(crate) streams: Streams,
    pub(crate) bound: oneshot::Sender<Connection>,
}

/// What runs in the background for a container; replacing or dropping ends it.
#[derive(Default)]
pub(crate) struct Tasks {
    pub(crate) restart: Option<AbortHandle>,
    pub(crate) health: Option<AbortHandle>,
}

impl Tasks {
    pub(crate) fn end_all(&mut self) {
        for task in [self.restart.take(), self.health.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

/// What waits look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) running: bool,
    /// How often it came to an end since this daemon holds it, whether it is started again or not.
    pub(crate) exits: u64,
    pub(crate) removed: bool,
    pub(crate) exit_code: i64,
}

impl Container {
    /// Resolves when the container has come to an end once more than now.
    pub(crate) fn next_end(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        let before = phase.borrow().exits;
        async move {
            // An error: it was removed.
            let _ = phase.wait_for(|now| now.exits != before).await;
        }
    }

    pub(crate) fn new(dir: PathBuf, config: ConfigDocument, state: StateDocument) -> Container {
        let phase = Phase {
            running: state.status.counts_as_running(),
            exit_code: state.exit_code,
            ..Phase::default()
        };
        Container {
            id: config.id.clone(),
            dir,
            cell: Mutex::new(Cell {
                config,
                state,
                running_since: None,
                looked_at: None,
                pending: Vec::new(),
                early_size: None,
                execs: BTreeMap::new(),
                tasks: Tasks::default(),
                stopping: false,
                still: Stillness::default(),
                restarting: false,
            }),
            lifecycle: Arc::default(),
            unmounting: Unmounting::default(),
            phase: watch::Sender::new(phase),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn status(&self) -> Status {
        self.lock().state.status
    }

    pub(crate) fn name(&self) -> String {
        self.lock().config.name.clone()
    }

    /// Takes its lifecycle lock for a change, which the error names (`started`). A container that goes
    /// meanwhile is not changed any more: its directory would come back.
    pub(crate) async fn turn(&self, change: &str) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        self.check_stays(change)?;
        let turn = self.lifecycle.lock().await;
        self.check_stays(change)?;
        Ok(turn)
    }

    /// Whether it is neither gone nor going.
    pub(crate) fn check_stays(&self, change: &str) -> Result<()> {
        if self.phase.borrow().removed {
            return Err(Error::NotFound(format!("No such container: {}", self.id)));
        }
        if self.status() == Status::Removing {
            return Err(Error::Conflict(format!(
                "container is marked for removal and cannot be {change}"
            )));
        }
        Ok(())
    }

    /// The shim's directory.
    pub(crate) fn shim_dir(&self) -> PathBuf {
        self.dir.join("shim")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        let local = self.lock().config.host_config.log_config.kind == "local";
        self.dir.join(format!("{}-{}.log", self.id, if local { "local" } else { "json" }))
    }

    /// Changes the configuration, durably.
    pub(crate) fn change_config(&self, change: impl FnOnce(&mut ConfigDocument)) -> Result<()> {
        let mut cell = self.lock();
        let mut config = cell.config.clone();
        change(&mut config);
        durable::write_json(&self.dir.join("config.json"), &config)?;
        cell.config = config;
        Ok(())
    }

    /// Writes both documents again as they are known.
    pub(crate) fn write_again(&self) -> Result<()> {
        self.change_config(|_| {})?;
        self.change_state(|_| {})
    }

    /// Changes the state, durably.
    pub(crate) fn change_state(&self, change: impl FnOnce(&mut StateDocument)) -> Result<()> {
        let mut cell = self.lock();
        let mut state = cell.state.clone();
        change(&mut state);
        state.version = super::document::VERSION;
        durable::write_json(&self.dir.join("state.json"), &state)?;
        cell.state = state;
        Ok(())
    }

    /// Changes the state even if it cannot be written: for what is so whether the disk takes it or
    /// not.
    pub(crate) fn record_state(&self, change: impl Fn(&mut StateDocument)) {
        if let Err(error) = self.change_state(&change) {
            tracing::error!(
                container = self.id,
                error = error.message(),
                "the container's state cannot be stored"
            );
            change(&mut self.lock().state);
        }
    }

    /// A connection to the running container's shim.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        if !self.status().has_process() {
            return Err(self.not_running());
        }
        Connection::open(&self.shim_dir()).await.map_err(Error::system("reaching the container"))
    }

    pub(crate) fn not_running(&self) -> Error {
        Error::Conflict(format!("container {} is not running", self.id))
    }

    /// What every event about it says.
    pub(crate) fn attributes(&self) -> Attributes {
        let cell = self.lock();
        let mut attributes: Attributes = cell.config.config.labels.clone();
        attributes.insert("image".to_owned(), cell.config.config.image.clone());
        attributes.insert("name".to_owned(), cell.config.name.clone());
        attributes
    }

    /// Whether its network namespace is its own.
    pub(crate) fn has_own_network(&self) -> bool {
        let cell = self.lock();
        !matches!(cell.config.host_config.network(), HostNetwork::Host | HostNetwork::Container(_))
    }
}

/// Since when a process runs; `None` if it has gone.
pub(crate) fn running_since(pid: u32) -> Option<Instant> {
    let ticks = identity::start_time(pid).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let age = age(&uptime, ticks, rustix::param::clock_ticks_per_second())?;
    Instant::now().checked_sub(age)
}

/// The age of a process that was started so many ticks after the start of the system.
fn age(uptime: &str, ticks: u64, ticks_per_second: u64) -> Option<Duration> {
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(uptime).ok()?;
    let started = Duration::from_millis(ticks.checked_mul(1000)?.checked_div(ticks_per_second)?);
    Some(uptime.saturating_sub(started))
}

/// Makes a container's directories.
pub(crate) fn make_directories(dir: &Path) -> Result<()> {
    for name in ["upper", "work", "rootfs", "shim", "bundle"] {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("making", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stood_still_in_between_is_not_who_went_on() {
        let mut still = Stillness::default();
        let before = still;
        assert_eq!(still, before);
        still.begin();
        assert!(still.now && still != before);
        still.end();
        assert!(!still.now && still != before);
        // What begins now has seen nothing of it.
        let later = still;
        assert_eq!(still, later);
    }

    #[test]
    fn an_end_stays_asked_for_under_the_next_daemon() {
        let state = StateDocument { manually_stopped: true, ..StateDocument::default() };
        let asked = |state| {
            let container = Container::new(PathBuf::new(), ConfigDocument::default(), state);
            container.lock().is_end_asked_for()
        };
        assert!(asked(state) && !asked(StateDocument::default()));
    }

    #[test]
    fn the_age_of_a_process_is_told_by_the_time_since_the_start_of_the_system() {
        let uptime = "350735.47 234388.90\n";
        assert_eq!(age(uptime, 35_073_047, 100), Some(Duration::from_secs(5)));
        assert_eq!(age(uptime, 35_080_000, 100), Some(Duration::ZERO));
        assert_eq!((age("", 1, 100), age(uptime, 1, 0)), (None, None));
        let own = running_since(std::process::id()).unwrap();
        assert!(own <= Instant::now() && own.elapsed() < Duration::from_secs(3600));
        assert_eq!(running_since(u32::MAX), None);
    }
}
