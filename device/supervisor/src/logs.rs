//! Follows what the containers say and puts it into the device's log.
//!
//! A container's lines are kept by the engine; a cursor for each says how far they have been taken.
//! Taken means "in the spool", so a crash of this process, whenever it comes, repeats some lines and
//! loses none; neither does a clock that goes back ([`resume`]).

mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use minke_common_model::ids::ServiceId;
use minke_device_cloud_client::{LogLine, LogSink};
use minke_engine_client::{Engine, LogChunk, LogOptions, LogSource};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::reconcile::Status;
use crate::state::{ContainerId, ContainerStatus};
use resume::{Clock, Resume};

#[cfg(test)]
mod tests;

/// Between two writes of the cursors, which are not synced: flash is worth more than a repeated line.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest line that is kept in one piece, in bytes.
const MAX_LINE: usize = 64 * 1024;

type Cursors = BTreeMap<String, i128>;

/// The task that has a follower for each container.
pub(crate) struct LogCollector<E> {
    engine: E,
    sink: LogSink,
    status: watch::Receiver<Status>,
    /// Whether lines go anywhere: the configuration variable `SUPERVISOR_LOG_CONTROL`.
    is_wanted: Arc<AtomicBool>,
    path: PathBuf,
    /// Containers whose log is being read.
    followed: watch::Sender<BTreeSet<ContainerId>>,
    /// Nanoseconds since 1970 of the last line taken, by container.
    cursors: Arc<Mutex<Cursors>>,
    clock: Clock,
    /// No line that is still to be taken was written before, in nanoseconds since 1970.
    floor: i128,
}

impl<E: Engine> LogCollector<E> {
    pub fn new(
        engine: E,
        sink: LogSink,
        status: watch::Receiver<Status>,
        is_wanted: Arc<AtomicBool>,
        path: PathBuf,
        followed: watch::Sender<BTreeSet<ContainerId>>,
    ) -> LogCollector<E> {
        followed.send_replace(BTreeSet::new());
        let saved = std::fs::read(&path).ok();
        let cursors = saved.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let cursors = Arc::new(Mutex::new(cursors.unwrap_or_default()));
        let now = now();
        // A clock goes back while a device is off: nothing new was written before it was switched on.
        let uptime = i128::from(rustix::system::sysinfo().uptime);
        let (clock, floor) = (Clock::new(now), now - (uptime + 1) * 1_000_000_000);
        LogCollector { engine, sink, status, is_wanted, path, followed, cursors, clock, floor }
    }

    /// Follows until the status has no sender any more.
    pub async fn run(mut self) {
        let mut followers: JoinSet<(ContainerId, bool)> = JoinSet::new();
        let mut drained: BTreeSet<ContainerId> = BTreeSet::new();
        let mut save = tokio::time::interval(SAVE_INTERVAL);
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saved = Cursors::new();
        loop {
            self.follow_new(&mut followers, &mut drained);
            // Every arm is cancel-safe.
            tokio::select! {
                changed = self.status.changed() => if changed.is_err() { return },
                Some(ended) = followers.join_next(), if !followers.is_empty() => {
                    if let Ok((id, is_complete)) = ended {
                        self.followed.send_modify(|followed| drop(followed.take(&id)));
                        if is_complete {
                            drained.insert(id);
                        }
                    }
                }
                _ = save.tick() => {
                    self.look_at_the_clock(&mut followers);
                    self.save(&mut saved);
                }
            }
        }
    }

    /// The engine leaves out what is older than where a follower began, so after a clock that went
    /// back they all begin anew.
    fn look_at_the_clock(&mut self, followers: &mut JoinSet<(ContainerId, bool)>) {
        let now = now();
        if !self.clock.went_back(now) {
            return;
        }
        warn!("the clock went back; the logs are taken up again");
        self.floor = now - 2 * SAVE_INTERVAL.as_nanos() as i128;
        // They share this thread: none takes another line once it is aborted.
        *followers = JoinSet::new();
        self.followed.send_if_modified(|followed| {
            followed.clear();
            // Nobody is told: all are followed again before anybody can look.
            false
        });
    }

    fn follow_new(
        &mut self,
        followers: &mut JoinSet<(ContainerId, bool)>,
        drained: &mut BTreeSet<ContainerId>,
    ) {
        let status = self.status.borrow_and_update();
        if status.target.is_none() || status.engine_error.is_some() {
            return;
        }
        let containers = &status.observed.containers;
        drained.retain(|id| {
            containers.get(id).is_some_and(|container| !container.status.is_running())
        });
        let mut cursors = self.cursors.lock().expect("no panic while it is held");
        cursors.retain(|id, _| containers.contains_key(&ContainerId(id.clone())));
        drop(cursors);
        for (id, container) in containers {
            let has_said_nothing = container.status == ContainerStatus::Created;
            if has_said_nothing || drained.contains(id) || self.followed.borrow().contains(id) {
                continue;
            }
            self.followed.send_modify(|followed| followed.extend([id.clone()]));
            let follower = Follower {
                engine: self.engine.clone(),
                sink: self.sink.clone(),
                is_wanted: self.is_wanted.clone(),
                cursors: self.cursors.clone(),
                floor: self.floor,
                id: id.clone(),
                service_id: container.service_id,
            };
            followers.spawn(follower.run());
        }
    }

    fn save(&self, saved: &mut Cursors) {
        let now = self.cursors.lock().expect("no panic while it is held").clone();
        if now == *saved {
            return;
        }
        let beside = self.path.with_extension("tmp");
        let written = serde_json::to_vec(&now)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&beside, bytes))
            .and_then(|()| std::fs::rename(&beside, &self.path));
        match written {
            Ok(()) => *saved = now,
            Err(error) => warn!(%error, "how far logs were taken could not be kept"),
        }
    }
}

struct Follower<E> {
    engine: E,
    sink: LogSink,
    is_wanted: Arc<AtomicBool>,
    cursors: Arc<Mutex<Cursors>>,
    floor: i128,
    id: ContainerId,
    service_id: Option<ServiceId>,
}

impl<E: Engine> Follower<E> {
    /// Follows to the container's end; `false` when it broke before.
    async fn run(self) -> (ContainerId, bool) {
        let is_complete = self.follow().await;
        if !is_complete {
            // An engine that is restarting is not asked in a tight loop.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (self.id, is_complete)
    }

    async fn follow(&self) -> bool {
        let cursor =
            self.cursors.lock().expect("no panic while it is held").get(&self.id.0).copied();
        let resume = Resume::new(cursor, now(), self.floor);
        let options = LogOptions {
            follow: true,
            stdout: true,
            stderr: true,
            since: resume.since(),
            timestamps: true,
            tail: None,
        };
        let mut chunks = match self.engine.logs(&self.id.0, &options).await {
            Ok(chunks) => chunks.ready_chunks(256),
            Err(error) => {
                debug!(%error, "a container's log");
                return error.is_not_found();
            }
        };
        let mut lines = Lines::default();
        while let Some(batch) = chunks.next().await {
            for chunk in batch {
                match chunk {
                    Ok(chunk) => lines.feed(&chunk),
                    Err(error) => {
                        debug!(%error, "a container's log broke");
                        self.take(lines.whole(), resume);
                        return false;
                    }
                }
            }
            self.take(lines.whole(), resume);
        }
        self.take(lines.rest(), resume);
        true
    }

    fn take(&self, mut lines: Vec<Line>, resume: Resume) {
        let now = now();
        lines.retain(|line| resume.is_new(line.nanoseconds, now));
        let Some(last) = lines.iter().map(|line| line.nanoseconds).max() else { return };
        if self.is_wanted.load(Ordering::Relaxed) {
            self.sink.push(lines.into_iter().map(|line| LogLine {
                message: line.message,
                timestamp: (line.nanoseconds / 1_000_000).max(0) as u64,
                is_system: false,
                is_std_err: line.source == LogSource::Stderr,
                service_id: self.service_id,
            }));
        }
        self.cursors.lock().expect("no panic while it is held").insert(self.id.0.clone(), last);
    }
}

/// Nanoseconds since 1970.
fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

#[derive(Debug, PartialEq)]
struct Line {
    nanoseconds: i128,
    source: LogSource,
    message: String,
}

/// Puts lines together from pieces of two streams.
#[derive(Default)]
struct Lines {
    whole: Vec<Line>,
    partial: [Vec<u8>; 2],
}

impl Lines {
    fn feed(&mut self, chunk: &LogChunk) {
        let partial = &mut self.partial[usize::from(chunk.source == LogSource::Stderr)];
        for piece in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.len() >= MAX_LINE {
                let bytes = std::mem::take(partial);
                self.whole.extend(parse(&bytes, chunk.source));
            }
        }
    }

    fn whole(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.whole)
    }

    /// Also what has no line end.
    fn rest(mut self) -> Vec<Line> {
        for (bytes, source) in self.partial.iter().zip([LogSource::Stdout, LogSource::Stderr]) {
            self.whole.extend(parse(bytes, source));
        }
        self.whole
    }
}

/// Reads `2026-11-21T04:00:00.123456789Z message`.
fn parse(bytes: &[u8], source: LogSource) -> Option<Line> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    let (time, message) = text.split_once(' ').unwrap_or((text, ""));
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(Line { nanoseconds: time.as_nanosecond(), source, message: message.to_owned() })
}
