//! The exact tar of a layer, put together again from its manifest and its view.
//!
//! Every file is hashed as it is read; a byte that differs ends the stream with an error that names the
//! file. Reads are dropped from the page cache: verification must not push out what containers use.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags, fadvise};

use crate::layer::beneath::Beneath;
use crate::layer::manifest::{Change, Changes, Footer, Manifest, Record};
use crate::layer::{EXTRA, LayerError, MANIFEST, VIEW};

/// Contents at least this long leave the page cache after they were read.
const DROP_FROM_CACHE: u64 = 1 << 20;
/// A gentle reader rests after this many bytes…
const STRIDE: usize = 1 << 20;
/// … for so many times as long as they took.
const REST: u32 = 3;
/// However slow the disk was.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// A reader of a layer's tar.
pub struct Rebuilt {
    manifest: Manifest,
    view: Beneath,
    extra: PathBuf,
    state: State,
    changes: Changes,
    gait: Option<Gait>,
}

/// How a gentle reader goes: it has the disk for a quarter of the time at most.
struct Gait {
    since: Instant,
    read: usize,
}

impl Gait {
    /// Rests when enough was read.
    fn after(&mut self, bytes: usize) {
        self.read += bytes;
        if self.read >= STRIDE {
            std::thread::sleep((self.since.elapsed() * REST).min(LONGEST_REST));
            *self = Gait { since: Instant::now(), read: 0 };
        }
    }
}

enum State {
    /// Between records.
    Next,
    /// Giving out raw bytes.
    Raw(io::Cursor<Vec<u8>>),
    /// Giving out a file.
    Contents(Box<Contents>),
    /// After the last record.
    Done,
}

struct Contents {
    path: Vec<u8>,
    file: File,
    hash: [u8; 32],
    hasher: blake3::Hasher,
    pieces: std::vec::IntoIter<(u64, u64)>,
    offset: u64,
    left: u64,
    size: u64,
}

impl Rebuilt {
    /// Opens the layer in directory `layer`.
    pub fn open(layer: &Path) -> Result<Self, LayerError> {
        let manifest = Manifest::open(&layer.join(MANIFEST))?;
        let changes = Changes::of(manifest.footer());
        Ok(Self {
            manifest,
            changes,
            view: Beneath::open(&layer.join(VIEW))?,
            extra: layer.join(EXTRA),
            state: State::Next,
            gait: None,
        })
    }

    /// Takes its time, and reads files from the medium and not from the page cache (but for the pages
    /// that somebody has mapped).
    pub(crate) fn gently(self) -> Self {
        Self { gait: Some(Gait { since: Instant::now(), read: 0 }), ..self }
    }

    /// What the manifest says about the whole layer.
    pub fn footer(&self) -> &Footer {
        self.manifest.footer()
    }

    fn advance(&mut self) -> Result<State, LayerError> {
        Ok(match self.manifest.record()? {
            None => State::Done,
            Some(Record::Raw(bytes)) => State::Raw(io::Cursor::new(bytes)),
            Some(Record::Contents { entry, path, size, hash, pieces }) => {
                let file = self.open_contents(entry, &path)?;
                if self.gait.is_some() {
                    // The advice drops clean pages. It is only a hint.
                    let _ = fadvise(&file, 0, None, Advice::DontNeed);
                }
                let length = file.metadata();
                let length = length.map_err(|e| LayerError::io("reading", &path, e))?.len();
                if pieces.is_none() && length != size {
                    return Err(LayerError::damaged(&path, "its size differs"));
                }
                let pieces = pieces.unwrap_or_else(|| vec![(0, size)]).into_iter();
                let hasher = blake3::Hasher::new();
                let (offset, left) = (0, 0);
                State::Contents(Box::new(Contents {
                    path,
                    file,
                    hash,
                    hasher,
                    pieces,
                    offset,
                    left,
                    size,
                }))
            }
        })
    }

    fn open_contents(&self, entry: u64, path: &[u8]) -> Result<File, LayerError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOATIME;
        let found = match self.changes.contents_after(entry, path) {
            None => self.view.plain(path, flags),
            Some((Change::Moved(number), replaced)) => {
                let extra = Beneath::open(&self.extra)?;
                extra.plain(&[number.to_string().as_bytes(), &path[replaced..]].concat(), flags)
            }
            Some(_) => {
                return Err(LayerError::Manifest("it needs contents that were dropped"));
            }
        };
        match found {
            Ok(fd) => Ok(File::from(fd)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                Err(LayerError::damaged(path, "it is missing"))
            }
            Err(error) => Err(LayerError::io("opening", path, error)),
        }
    }
}

impl Contents {
    /// Nothing at the end, when the hash was found right.
    fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, LayerError> {
        while self.left == 0 {
            match self.pieces.next() {
                Some((offset, length)) => (self.offset, self.left) = (offset, length),
                None => return self.end().map(|()| None),
            }
        }
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut into[..most], self.offset);
        let read = read.map_err(|error| LayerError::io("reading", &self.path, error))?;
        if read == 0 {
            return Err(LayerError::damaged(&self.path, "it is too short"));
        }
        self.hasher.update(&into[..read]);
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(Some(read))
    }

    fn end(&self) -> Result<(), LayerError> {
        if self.size >= DROP_FROM_CACHE {
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        if self.hasher.finalize() == self.hash {
            Ok(())
        } else {
            Err(LayerError::damaged(&self.path, "its contents differ"))
        }
    }
}

impl Read for Rebuilt {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let given = match &mut self.state {
                State::Next => {
                    self.state = self.advance().map_err(io::Error::other)?;
                    continue;
                }
                State::Raw(bytes) => bytes.read(into)?,
                State::Contents(contents) => {
                    contents.read(into).map_err(io::Error::other)?.unwrap_or(0)
                }
                State::Done => return Ok(0),
            };
            if given > 0 {
                if let Some(gait) = &mut self.gait {
                    gait.after(given);
                }
                return Ok(given);
            }
            self.state = State::Next;
        }
    }
}
