//! The compressed bytes of a layer on disk, while they come.
//!
//! ```text
//! download ─pieces─► keeper thread ─► partial file ─► follower ─► inflate ─► unpack
//!                        └─ SHA-256, progress             └ reads behind the keeper
//! ```
//!
//! The file stands between the two so that a slow unpacker never stops the download: a connection whose
//! receive window closes again and again loses far more time than writing and reading a cached page, and
//! what is on disk need not be fetched again after a crash.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use minke_common_model::digest::{Digest, Hasher};
use tokio::sync::mpsc;

use crate::progress::{ProgressEvent, Sink};
use crate::store::settle::Settling;

const PIECE: usize = 128 << 10;
const EVERY: Duration = Duration::from_millis(100);
const STACK: usize = 256 << 10;
/// Stands for failures that have no number of their own.
const EIO: i32 = 5;

/// The beginning of a blob on disk.
pub(crate) struct Partial {
    pub path: PathBuf,
    file: File,
    pub length: u64,
}

impl Partial {
    /// Opens what an earlier try left, or begins anew.
    pub(crate) fn open(path: &Path, size: u64) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let mut length = file.metadata()?.len();
        if length > size {
            file.set_len(0)?;
            length = 0;
        }
        Ok(Self { path: path.to_owned(), file, length })
    }
}

/// Removes kept bytes that are of no use.
pub(crate) fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "removing a partial download");
    }
}

/// What is known about a blob that comes.
pub(crate) struct Coming {
    pub partial: Partial,
    pub pieces: mpsc::Receiver<Bytes>,
    pub size: u64,
    /// The layer's name in progress lines.
    pub id: String,
    pub sink: Sink,
    pub settling: Settling,
}

/// What came in all.
pub(crate) struct Came {
    pub digest: Digest,
    pub length: u64,
    /// The disk would not take it.
    pub failure: Option<io::Error>,
    /// The follower was left waiting for bytes that never came.
    pub is_short: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Extent>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Extent {
    /// Bytes in the file.
    length: u64,
    /// No more will come.
    ended: bool,
    /// The follower is gone.
    unwanted: bool,
    /// The follower came to the end of the file before the end of the blob.
    starved: bool,
    /// The system's number of a failed write.
    failure: Option<i32>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Extent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Extent)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// A running keeper.
pub(crate) struct Keeping {
    thread: JoinHandle<Came>,
    shared: Arc<Shared>,
}

impl Keeping {
    /// Waits until nothing more comes. Whoever read from the follower has ended.
    pub(crate) fn finish(self) -> Came {
        let came = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let is_short = self.shared.lock().starved;
        Came { is_short, ..came }
    }
}

/// Starts to keep what comes; the follower reads it from the beginning.
pub(crate) fn keep(coming: Coming) -> io::Result<(Keeping, Follower)> {
    let shared = Arc::new(Shared::default());
    let follower = Follower {
        file: coming.partial.file.try_clone()?,
        shared: Arc::clone(&shared),
        buffer: vec![0; PIECE],
        start: 0,
        end: 0,
        at: 0,
        size: coming.size,
        id: coming.id.clone(),
        sink: Arc::clone(&coming.sink),
        told: Instant::now(),
    };
    let watched = Arc::clone(&shared);
    let keeper = Keeper { coming, shared, hasher: Hasher::new(), length: 0, told: Instant::now() };
    let thread = std::thread::Builder::new().name("images-keep".to_owned()).stack_size(STACK);
    let thread = thread.spawn(move || keeper.run())?;
    Ok((Keeping { thread, shared: watched }, follower))
}

struct Keeper {
    coming: Coming,
    shared: Arc<Shared>,
    hasher: Hasher,
    length: u64,
    told: Instant,
}

impl Keeper {
    fn run(mut self) -> Came {
        let failure = self.replay().and_then(|()| self.receive()).err();
        let number = failure.as_ref().map(|error| error.raw_os_error().unwrap_or(EIO));
        self.shared.change(|extent| {
            extent.ended = true;
            extent.failure = number;
        });
        let digest = self.hasher.finish();
        Came { digest, length: self.length, failure, is_short: false }
    }

    /// What an earlier try left is hashed and given on like the rest.
    fn replay(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        while self.length < self.coming.partial.length {
            let left = self.coming.partial.length - self.length;
            let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let read = self.coming.partial.file.read_at(&mut buffer[..most], self.length)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !self.passed(&buffer[..read]) {
                break;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        while let Some(piece) = self.coming.pieces.blocking_recv() {
            (&self.coming.partial.file).write_all(&piece)?;
            self.coming.settling.look(&self.coming.partial.file)?;
            if !self.passed(&piece) {
                break;
            }
        }
        Ok(())
    }

    /// Counts bytes that are in the file; false if nobody wants more.
    fn passed(&mut self, bytes: &[u8]) -> bool {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        let (length, id) = (self.length, &*self.coming.id);
        self.shared.change(|extent| extent.length = length);
        if length == self.coming.size {
            (self.coming.sink)(ProgressEvent::of(id, "Verifying Checksum"));
            (self.coming.sink)(ProgressEvent::of(id, "Download complete"));
        } else if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let event = ProgressEvent::at(id, "Downloading", length, self.coming.size);
            (self.coming.sink)(event);
        }
        !self.shared.lock().unwanted
    }
}

/// Reads the file behind the keeper and waits where it ends.
pub(crate) struct Follower {
    file: File,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at: u64,
    size: u64,
    id: String,
    sink: Sink,
    told: Instant,
}

impl Follower {
    /// Bytes in the file, more than `at` unless no more come.
    fn wait(&self) -> io::Result<Extent> {
        let mut extent = self.shared.lock();
        // The first bytes say how the rest is packed: a network may bring them one by one.
        let enough = self.at + if self.at == 0 { 4 } else { 1 };
        while extent.length < enough && !extent.ended {
            extent = self.shared.changed.wait(extent).unwrap_or_else(PoisonError::into_inner);
        }
        if extent.length == self.at && extent.length < self.size {
            extent.starved = true;
        }
        match extent.failure {
            Some(number) => Err(io::Error::from_raw_os_error(number)),
            None => Ok(*extent),
        }
    }

    fn tell(&mut self, extent: Extent) {
        if extent.ended && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            (self.sink)(ProgressEvent::at(&*self.id, "Extracting", self.at, self.size));
        }
    }
}

impl BufRead for Follower {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let extent = self.wait()?;
            let left = usize::try_from(extent.length - self.at).unwrap_or(usize::MAX);
            let most = left.min(self.buffer.len());
            let read = self.file.read_at(&mut self.buffer[..most], self.at)?;
            if read < most {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (self.start, self.end) = (0, read);
            self.at += read as u64;
            self.tell(extent);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}

impl Read for Follower {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.change(|extent| extent.unwanted = true);
    }
}
