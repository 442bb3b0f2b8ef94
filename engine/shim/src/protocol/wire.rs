//! Fields of a frame: little-endian numbers, length-prefixed strings.

use super::{DecodeError, Exit, MAX_SESSION, Size};

/// Appends one frame.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, kind: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        Self { out, start }
    }
    pub(super) fn u8(self, value: u8) -> Self {
        self.out.push(value);
        self
    }
    pub(super) fn u16(self, value: u16) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }
    pub(super) fn u32(self, value: u32) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }
    pub(super) fn u64(self, value: u64) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }
    pub(super) fn string(self, value: &str) -> Self {
        let writer = self.u16(value.len() as u16);
        writer.out.extend_from_slice(value.as_bytes());
        writer
    }
    pub(super) fn rest(self, value: &[u8]) -> Self {
        self.out.extend_from_slice(value);
        self
    }
    pub(super) fn exit(self, exit: &Exit) -> Self {
        self.u32(exit.code).u8(exit.signal).u8(exit.oom.into()).u64(exit.finished_at)
    }
    pub(super) fn size(self, size: Size) -> Self {
        self.u16(size.columns).u16(size.rows)
    }
    pub(super) fn finish(self) {
        let length = (self.out.len() - self.start - 4) as u32;
        self.out[self.start..self.start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Takes a frame apart.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::BadBody)?;
        self.0 = tail;
        Ok(head)
    }
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }
    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue),
        }
    }
    pub(super) fn string(&mut self) -> Result<String, DecodeError> {
        let length = self.u16()?;
        let bytes = self.take(length.into())?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::BadValue)
    }
    pub(super) fn session(&mut self) -> Result<String, DecodeError> {
        let name = self.string()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.len() > MAX_SESSION || !name.bytes().all(plain) {
            return Err(DecodeError::BadValue);
        }
        Ok(name)
    }
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.u32()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
    pub(super) fn size(&mut self) -> Result<Size, DecodeError> {
        Ok(Size { columns: self.u16()?, rows: self.u16()? })
    }
    pub(super) fn exit(&mut self) -> Result<Exit, DecodeError> {
        Ok(Exit {
            code: self.u32()?,
            signal: self.u8()?,
            oom: self.bool()?,
            finished_at: self.u64()?,
        })
    }
    pub(super) fn end<T>(self, value: T) -> Result<T, DecodeError> {
        if self.0.is_empty() { Ok(value) } else { Err(DecodeError::BadBody) }
    }
}
