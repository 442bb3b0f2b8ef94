//! The logs of all devices: a directory each, open while in use.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use crate::entry::Entry;
use crate::segment::{self, Segment};

/// Limits of a [`Logs`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Entries that can be read back per device, at least.
    pub history: usize,
    /// How long a log is kept that nothing is added to.
    pub retention: Duration,
    /// Bytes of one segment; a device has two.
    pub segment_bytes: u64,
    /// Devices whose files are open at once.
    pub open_devices: usize,
    /// Entries that a slow follower may fall behind before it loses some.
    pub follow_buffer: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            history: 1000,
            retention: Duration::from_secs(30 * 24 * 60 * 60),
            segment_bytes: 4 * 1024 * 1024,
            open_devices: 512,
            follow_buffer: 1024,
        }
    }
}

/// Which device a log is of: its row and its uuid, so that neither a row number nor a uuid that is
/// used again opens the log of a device that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// Row id.
    pub id: i64,
    /// The device's uuid.
    pub uuid: String,
}

/// Why a log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A uuid that cannot be part of a file name.
    #[error("{0:?} is not a device uuid")]
    Uuid(String),
    /// A file operation failed.
    #[error("{doing} the log of device {uuid}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// Whose log.
        uuid: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The logs' directory cannot be used.
    #[error("opening the directory of logs {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Everything that is logged; cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    options: Options,
    devices: Mutex<HashMap<DeviceKey, Arc<Mutex<DeviceLog>>>>,
}

#[derive(Debug)]
struct DeviceLog {
    directory: PathBuf,
    current: Option<Segment>,
    live: broadcast::Sender<Arc<Entry>>,
}

/// A log from here on.
#[derive(Debug)]
pub struct Follow {
    receiver: broadcast::Receiver<Arc<Entry>>,
}

/// What a follower gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A new entry.
    Entry(Arc<Entry>),
    /// So many entries were lost because the follower was too slow.
    Missed(u64),
}

impl Follow {
    /// Waits for the next entry; `None` when the log is closed. Safe to cancel.
    pub async fn next(&mut self) -> Option<Followed> {
        match self.receiver.recv().await {
            Ok(entry) => Some(Followed::Entry(entry)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Followed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Logs {
    /// Opens the logs under `directory`, which is made if missing.
    pub fn open(directory: &Path, options: Options) -> Result<Logs, LogError> {
        fs::create_dir_all(directory)
            .map_err(|source| LogError::Directory { path: directory.to_owned(), source })?;
        let directory = directory.to_owned();
        Ok(Logs { shared: Arc::new(Shared { directory, options, devices: Mutex::default() }) })
    }

    /// Entries that can be read back per device, at least.
    pub fn history_limit(&self) -> usize {
        self.shared.options.history
    }

    /// Appends entries and shows them to followers. Blocks on the disk.
    pub fn append(&self, device: &DeviceKey, entries: Vec<Entry>) -> Result<(), LogError> {
        if entries.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry> = entries.into_iter().map(Entry::bounded).collect();
        let log = self.device(device)?;
        let mut log = lock(&log);
        log.append(&entries, &self.shared.options)
            .map_err(|source| file_error("writing", device, source))?;
        if log.live.receiver_count() > 0 {
            for entry in entries {
                let _ = log.live.send(Arc::new(entry));
            }
        }
        Ok(())
    }

    /// Makes durable what was appended so far. Blocks on the disk.
    pub fn sync(&self, device: &DeviceKey) -> Result<(), LogError> {
        let log = self.device(device)?;
        let mut log = lock(&log);
        match &mut log.current {
            Some(segment) => segment.sync().map_err(|source| file_error("syncing", device, source)),
            None => Ok(()),
        }
    }

    /// The last `count` entries taken in at or after `start` (milliseconds since the epoch), oldest
    /// first. Blocks on the disk.
    pub fn history(
        &self,
        device: &DeviceKey,
        count: usize,
        start: Option<i64>,
    ) -> Result<Vec<Entry>, LogError> {
        let log = self.device(device)?;
        let log = lock(&log);
        log.tail(count.min(self.shared.options.history), start)
            .map_err(|source| file_error("reading", device, source))
    }

    /// The history and what comes after it, without a gap between them. Blocks on the disk.
    pub fn follow(
        &self,
        device: &DeviceKey,
        count: usize,
        start: Option<i64>,
    ) -> Result<(Vec<Entry>, Follow), LogError> {
        let log = self.device(device)?;
        let log = lock(&log);
        let receiver = log.live.subscribe();
        let history = log
            .tail(count.min(self.shared.options.history), start)
            .map_err(|source| file_error("reading", device, source))?;
        Ok((history, Follow { receiver }))
    }

    /// Deletes logs that nothing was added to for longer than the retention, those of devices that
    /// are gone among them; answers how many. Also makes durable what streams that broke off left.
    /// Blocks on the disk.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, LogError> {
        let shared = &self.shared;
        let open: Vec<DeviceKey> = lock(&shared.devices).keys().cloned().collect();
        for device in open {
            self.sync(&device)?;
        }
        let failed = |source| LogError::Directory { path: shared.directory.clone(), source };
        let mut deleted = 0;
        for shelf in fs::read_dir(&shared.directory).map_err(failed)? {
            let shelf = shelf.map_err(failed)?.path();
            let Ok(logs) = fs::read_dir(&shelf) else { continue };
            for log in logs.flatten() {
                if is_expired(&log.path(), now, shared.options.retention) {
                    // The map's lock keeps the log from being opened meanwhile.
                    let mut devices = lock(&shared.devices);
                    devices.retain(|_, open| lock(open).directory != log.path());
                    fs::remove_dir_all(log.path()).map_err(failed)?;
                    deleted += 1;
                }
            }
        }
        Ok(deleted)
    }

    /// The device's log, opened if it is not.
    fn device(&self, key: &DeviceKey) -> Result<Arc<Mutex<DeviceLog>>, LogError> {
        let is_plain = key.uuid.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_plain || key.uuid.is_empty() || key.uuid.len() > 64 {
            return Err(LogError::Uuid(key.uuid.chars().take(64).collect()));
        }
        let mut devices = lock(&self.shared.devices);
        if let Some(log) = devices.get(key) {
            return Ok(Arc::clone(log));
        }
        if devices.len() >= self.shared.options.open_devices {
            devices.retain(|_, log| Arc::strong_count(log) > 1 || lock(log).is_needed());
        }
        let shelf = format!("{:02x}", key.id & 0xff);
        let directory = self.shared.directory.join(shelf).join(format!("{}-{}", key.id, key.uuid));
        let (live, _) = broadcast::channel(self.shared.options.follow_buffer);
        let log = Arc::new(Mutex::new(DeviceLog { directory, current: None, live }));
        devices.insert(key.clone(), Arc::clone(&log));
        Ok(log)
    }
}

impl DeviceLog {
    /// Whether it must stay open: somebody follows it, or it holds what is not durable yet. Whoever
    /// appended will ask for that, and another segment would know nothing of it.
    fn is_needed(&self) -> bool {
        self.live.receiver_count() > 0 || self.current.as_ref().is_some_and(Segment::is_dirty)
    }

    fn current_path(&self) -> PathBuf {
        self.directory.join("current")
    }

    fn previous_path(&self) -> PathBuf {
        self.directory.join("previous")
    }

    fn open(&mut self) -> io::Result<&mut Segment> {
        if self.current.is_none() {
            fs::create_dir_all(&self.directory)?;
            self.current = Some(Segment::open(&self.current_path())?);
            fs::File::open(&self.directory)?.sync_all()?;
        }
        Ok(self.current.as_mut().expect("opened above"))
    }

    fn append(&mut self, entries: &[Entry], options: &Options) -> io::Result<()> {
        for entries in entries.chunks(options.history.max(1)) {
            let segment = self.open()?;
            let is_full = segment.entries + entries.len() > options.history
                || segment.length() >= options.segment_bytes;
            if is_full && segment.entries > 0 {
                // Durable before the name changes: nothing syncs the previous segment later.
                segment.sync()?;
                self.current = None;
                fs::rename(self.current_path(), self.previous_path())?;
            }
            self.open()?.append(entries)?;
        }
        Ok(())
    }

    fn tail(&self, count: usize, start: Option<i64>) -> io::Result<Vec<Entry>> {
        let mut entries = segment::read(&self.current_path())?;
        if entries.len() < count {
            let newer = std::mem::replace(&mut entries, segment::read(&self.previous_path())?);
            entries.extend(newer);
        }
        entries.retain(|entry| start.is_none_or(|start| entry.created_at >= start));
        entries.drain(..entries.len().saturating_sub(count));
        Ok(entries)
    }
}

fn is_expired(log: &Path, now: SystemTime, retention: Duration) -> bool {
    let modified = fs::metadata(log.join("current")).and_then(|current| current.modified());
    modified.is_ok_and(|time| now.duration_since(time).is_ok_and(|idle| idle > retention))
}

fn file_error(doing: &'static str, device: &DeviceKey, source: io::Error) -> LogError {
    LogError::File { doing, uuid: device.uuid.clone(), source }
}

/// A panic while a log was held leaves at most a torn line, which reading skips.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
