//! Output of a container without a terminal: frames of an 8-byte head (stream, length) and bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Which output a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// Also everything of a container with a terminal.
    Stdout,
    /// Standard error of a container without a terminal.
    Stderr,
}

/// A piece of output. Of a log, one line with its line end (unless the container left it out).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Where it came from.
    pub source: LogSource,
    /// What was written.
    pub bytes: Bytes,
}

/// No frame of an engine is larger; a larger one is not a frame.
const LARGEST_FRAME: usize = 16 << 20;

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct FrameDecoder {
    buffer: BytesMut,
    raw: bool,
}

impl FrameDecoder {
    /// A decoder for a container with a terminal: its bytes have no frames.
    pub(crate) fn raw() -> Self {
        FrameDecoder { raw: true, ..Self::default() }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; an error says that these are no frames.
    pub(crate) fn next(&mut self) -> Result<Option<LogChunk>, String> {
        if self.raw {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let bytes = self.buffer.split().freeze();
            return Ok(Some(LogChunk { source: LogSource::Stdout, bytes }));
        }
        let Some(head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let source = match head[0] {
            0 | 1 => LogSource::Stdout,
            2 => LogSource::Stderr,
            other => return Err(format!("a frame says stream {other}")),
        };
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > LARGEST_FRAME {
            return Err(format!("a frame says {length} bytes"));
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        Ok(Some(LogChunk { source, bytes: self.buffer.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for (kind, text) in [(1u8, "out\n"), (2, "err\n"), (1, "")] {
            stream.extend_from_slice(&[kind, 0, 0, 0]);
            stream.extend_from_slice(&(text.len() as u32).to_be_bytes());
            stream.extend_from_slice(text.as_bytes());
        }
        let mut decoder = FrameDecoder::default();
        let mut chunks = Vec::new();
        for byte in stream {
            decoder.feed(&[byte]);
            while let Some(chunk) = decoder.next().unwrap() {
                chunks.push((chunk.source, String::from_utf8(chunk.bytes.to_vec()).unwrap()));
            }
        }
        assert_eq!(
            chunks,
            [
                (LogSource::Stdout, "out\n".to_owned()),
                (LogSource::Stderr, "err\n".to_owned()),
                (LogSource::Stdout, String::new()),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_frames_are_refused() {
        let mut decoder = FrameDecoder::default();
        decoder.feed(b"hello, world");
        assert!(decoder.next().is_err());
        let mut decoder = FrameDecoder::default();
        decoder.feed(&[1, 0, 0, 0, 0xff, 0, 0, 0]);
        assert!(decoder.next().is_err());
    }
}
