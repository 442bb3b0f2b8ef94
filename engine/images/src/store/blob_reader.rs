//! The compressed bytes of a layer on their way into the unpacker: first what an earlier try left on disk,
//! then what the download brings, which is kept on disk as well until the layer is whole.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use minke_common_model::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::progress::{ProgressEvent, Sink};

const PIECE: usize = 128 << 10;
const EVERY: Duration = Duration::from_millis(100);
/// zstd windows over 32 MiB are refused: they would break the memory limit.
const MAX_WINDOW_LOG: u32 = 25;

/// The beginning of a blob on disk.
pub(crate) struct Partial {
    pub path: PathBuf,
    pub file: File,
    pub length: u64,
}

impl Partial {
    /// Opens what an earlier try left, or begins anew.
    pub(crate) fn open(path: &Path, size: u64) -> io::Result<Self> {
        let options = || File::options().read(true).append(true).create(true).clone();
        let file = options().open(path)?;
        let mut length = file.metadata()?.len();
        if length > size {
            file.set_len(0)?;
            length = 0;
        }
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "removing a partial download");
        }
    }
}

/// Reads, hashes, keeps, and tells how far it is.
pub(crate) struct BlobReader {
    pub partial: Partial,
    replayed: u64,
    pieces: mpsc::Receiver<Bytes>,
    now: Bytes,
    hasher: Sha256,
    count: u64,
    size: u64,
    id: String,
    sink: Sink,
    told: Instant,
    /// The disk would not take the bytes.
    pub write_failed: bool,
}

impl BlobReader {
    pub(crate) fn new(
        partial: Partial,
        pieces: mpsc::Receiver<Bytes>,
        size: u64,
        id: String,
        sink: Sink,
    ) -> Self {
        Self {
            partial,
            replayed: 0,
            pieces,
            now: Bytes::new(),
            hasher: Sha256::new(),
            count: 0,
            size,
            id,
            sink,
            told: Instant::now(),
            write_failed: false,
        }
    }

    /// Bytes seen so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Reads the rest and returns the digest of all.
    pub(crate) fn finish(&mut self) -> io::Result<Digest> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        Ok(Digest::from_bytes(self.hasher.clone().finalize().into()))
    }

    fn next(&mut self) -> io::Result<Bytes> {
        if self.replayed < self.partial.length {
            let left = self.partial.length - self.replayed;
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let read = self.partial.file.read_at(&mut piece, self.replayed)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece.truncate(read);
            self.replayed += read as u64;
            return Ok(piece.into());
        }
        let Some(piece) = self.pieces.blocking_recv() else { return Ok(Bytes::new()) };
        if let Err(error) = self.partial.file.write_all(&piece) {
            self.write_failed = true;
            return Err(error);
        }
        Ok(piece)
    }

    fn tell(&mut self) {
        if self.count == self.size {
            (self.sink)(ProgressEvent::of(&*self.id, "Verifying Checksum"));
            (self.sink)(ProgressEvent::of(&*self.id, "Download complete"));
        } else if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let event = ProgressEvent::at(&*self.id, "Downloading", self.count, self.size);
            (self.sink)(event);
        }
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.now.is_empty() {
            self.now = self.next()?;
            // The first bytes say what the rest is: a network may bring them one by one.
            while self.count == 0 && (1..4).contains(&self.now.len()) {
                let more = self.next()?;
                if more.is_empty() {
                    break;
                }
                self.now = [&self.now[..], &more[..]].concat().into();
            }
            if !self.now.is_empty() {
                self.hasher.update(&self.now);
                self.count += self.now.len() as u64;
                self.tell();
            }
        }
        Ok(&self.now)
    }

    fn consume(&mut self, length: usize) {
        let _ = self.now.split_to(length);
    }
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// A layer's tar out of whatever it is compressed with. The bytes decide, not the media type.
pub(crate) enum Inflated<R: BufRead> {
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::Decoder<'static, R>>),
    Plain(R),
}

impl<R: BufRead> Inflated<R> {
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let head = source.fill_buf()?;
        if head.starts_with(&[0x1f, 0x8b]) {
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(source))))
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Ok(Self::Zstd(Box::new(decoder)))
        } else {
            Ok(Self::Plain(source))
        }
    }
}

impl<R: BufRead> Read for Inflated<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
            Self::Plain(source) => source.read(into),
        }
    }
}
