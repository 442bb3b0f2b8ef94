//! A byte stream read in large pieces, hashed as it passes, given out in blocks without copying.
//!
//! Everything that comes out was counted and hashed; the DiffID of a layer is the hash at the end.

use std::io::{self, Read};

use minke_common_model::digest::{Digest, Hasher};

use crate::layer::LayerError;

const BUFFER: usize = 128 << 10;

/// A hashed and counted stream.
pub struct Stream<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hasher: Hasher,
    given: u64,
    received: u64,
    limit: u64,
}

impl<R: Read> Stream<R> {
    /// Reads `source`, refusing to go beyond `limit` bytes.
    pub fn new(source: R, limit: u64) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            hasher: Hasher::new(),
            given: 0,
            received: 0,
            limit,
        }
    }

    /// Bytes given out so far.
    pub fn offset(&self) -> u64 {
        self.given
    }

    /// The next bytes, at most `most`; empty at the end of the stream.
    pub fn piece(&mut self, most: u64) -> Result<&[u8], LayerError> {
        if self.start == self.end {
            self.fill()?;
        }
        let length = (self.end - self.start).min(usize::try_from(most).unwrap_or(usize::MAX));
        let from = self.start;
        self.start += length;
        self.given += length as u64;
        Ok(&self.buffer[from..from + length])
    }

    /// Appends exactly `length` bytes to `into`.
    pub fn take(&mut self, length: u64, into: &mut Vec<u8>) -> Result<(), LayerError> {
        let mut left = length;
        while left > 0 {
            let piece = self.piece(left)?;
            if piece.is_empty() {
                return Err(LayerError::Truncated);
            }
            into.extend_from_slice(piece);
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// The next 512 bytes, or nothing at the end of the stream.
    pub fn block(&mut self) -> Result<Option<[u8; 512]>, LayerError> {
        let mut block = [0; 512];
        let mut filled = 0;
        while filled < block.len() {
            let piece = self.piece((block.len() - filled) as u64)?;
            if piece.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(LayerError::Truncated) };
            }
            block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(Some(block))
    }

    /// Reads what is left and returns the digest and the length of all, and the source.
    pub fn finish(mut self) -> Result<(Digest, u64, R), LayerError> {
        while !self.piece(u64::MAX)?.is_empty() {}
        Ok((self.hasher.finish(), self.given, self.source))
    }

    fn fill(&mut self) -> Result<(), LayerError> {
        self.start = 0;
        self.end = 0;
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(length) => {
                    self.end = length;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        self.received += self.end as u64;
        if self.received > self.limit {
            return Err(LayerError::Limit { what: "the size of the layer", limit: self.limit });
        }
        self.hasher.update(&self.buffer[..self.end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_all_and_gives_all() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        let mut stream = Stream::new(&bytes[..], u64::MAX);
        let first = stream.block().unwrap().unwrap();
        assert_eq!(first, bytes[..512]);
        let mut taken = Vec::new();
        stream.take(200_000, &mut taken).unwrap();
        assert_eq!(taken, bytes[512..200_512]);
        assert_eq!(stream.offset(), 200_512);
        let (digest, length, _) = stream.finish().unwrap();
        assert_eq!((digest, length), (Digest::of(&bytes), 300_000));
    }

    #[test]
    fn stops_at_the_limit() {
        let mut stream = Stream::new(io::repeat(0), 1 << 20);
        let error = stream.take(u64::MAX, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, LayerError::Limit { limit: 1_048_576, .. }));
    }
}
