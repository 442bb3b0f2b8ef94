//! A layer's tar out of whatever it is compressed with, made ahead by a thread of its own.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::bufread::MultiGzDecoder;

/// zstd windows over 32 MiB are refused: they would break the memory limit.
const MAX_WINDOW_LOG: u32 = 25;
const BLOCK: usize = 128 << 10;
/// Blocks made ahead: what bounds its memory.
const AHEAD: usize = 4;
const STACK: usize = 256 << 10;

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

/// Reads `source` in a thread, a few blocks ahead of whoever reads this.
///
/// The thread ends with the stream, with an error, or soon after this is dropped.
pub(crate) struct ReadAhead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    now: Vec<u8>,
    at: usize,
}

impl ReadAhead {
    pub(crate) fn start(
        open: impl FnOnce() -> io::Result<Box<dyn Read>> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, blocks) = sync_channel(AHEAD);
        let (used, again) = sync_channel(AHEAD + 2);
        let read = move || match open() {
            Ok(source) => read_blocks(source, &sender, &again),
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("images-inflate".to_owned());
        thread.stack_size(STACK).spawn(read)?;
        Ok(Self { blocks, used, now: Vec::new(), at: 0 })
    }
}

/// A block that cannot be sent has no reader any more.
fn read_blocks(
    mut source: Box<dyn Read>,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    again: &Receiver<Vec<u8>>,
) {
    loop {
        let mut block = again.try_recv().unwrap_or_else(|_| vec![0; BLOCK]);
        block.resize(BLOCK, 0);
        match source.read(&mut block) {
            Ok(0) => return,
            Ok(length) => {
                block.truncate(length);
                if sender.send(Ok(block)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.now.len() {
            let Ok(block) = self.blocks.recv() else { return Ok(0) };
            let _ = self.used.try_send(std::mem::replace(&mut self.now, block?));
            self.at = 0;
        }
        let length = into.len().min(self.now.len() - self.at);
        into[..length].copy_from_slice(&self.now[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
