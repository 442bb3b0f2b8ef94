//! What a layer's PAX extended headers say.

use minke_common_model::pax::{self, number};

use crate::layer::LayerError;

/// More extended attributes on one file are an error.
const MAX_XATTRS: usize = 256;

/// What the records of one or more extended headers say about the next entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// GNU's three ways to describe holes in PAX records.
#[derive(Debug, Clone, Default)]
pub(crate) struct PaxSparse {
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Offsets and lengths in turn (versions 0.0 and 0.1).
    pub map: Option<Vec<u64>>,
}

impl Pax {
    /// Adds the records of one header; `offset` is where it stands, for errors.
    pub(crate) fn add(&mut self, records: &[u8], offset: u64) -> Result<(), LayerError> {
        let wrong = |why| LayerError::Header { offset, why };
        for record in pax::records(records) {
            let (key, value) = record.map_err(wrong)?;
            self.record(key, value).ok_or_else(|| wrong("an extended record has a wrong value"))?;
        }
        Ok(())
    }

    /// Adds the records of a global header. They are kept to the end of the tar and copied for every
    /// entry, so all of them together may hold `limit` bytes.
    pub(crate) fn add_global(
        &mut self,
        records: &[u8],
        offset: u64,
        limit: usize,
    ) -> Result<(), LayerError> {
        self.add(records, offset)?;
        if self.held() > limit {
            let (what, limit) = ("the size of all global headers", limit as u64);
            return Err(LayerError::Limit { what, limit });
        }
        Ok(())
    }

    /// Bytes of memory that it holds, near enough.
    fn held(&self) -> usize {
        let texts = [&self.path, &self.link, &self.sparse.name].into_iter().flatten();
        let texts = texts.map(Vec::len).sum::<usize>();
        let map = self.sparse.map.as_ref().map_or(0, |map| size_of_val(&map[..]));
        let xattrs = self.xattrs.iter().map(|(name, value)| name.len() + value.len());
        texts + map + xattrs.sum::<usize>()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = optional(value, number)?,
            b"uid" => self.uid = optional(value, number)?,
            b"gid" => self.gid = optional(value, number)?,
            b"mtime" => self.mtime = optional(value, time)?,
            b"GNU.sparse.major" => self.sparse.major = Some(number(value)?),
            b"GNU.sparse.name" => self.sparse.name = text(value)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = Some(number(value)?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|b| *b == b',').filter(|part| !part.is_empty());
                self.sparse.map = Some(numbers.map(number).collect::<Option<_>>()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.map.get_or_insert_default().push(number(value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() >= MAX_XATTRS {
                        return None;
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// A text without NUL; empty takes an earlier one back.
fn text(value: &[u8]) -> Option<Option<Vec<u8>>> {
    if value.contains(&0) {
        return None;
    }
    Some((!value.is_empty()).then(|| value.to_vec()))
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

/// `[-]seconds[.fraction]`.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let seconds = i64::try_from(number(&value[..dot])?).ok()?;
    let mut nanos = 0;
    let fraction = value.get(dot + 1..).unwrap_or_default();
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines() {
        let mut pax = Pax::default();
        let record = b"31 SCHILY.xattr.user.a=x\ny=z\0\n\n";
        assert_eq!(record.len(), 31);
        pax.add(record, 0).unwrap();
        assert_eq!(pax.xattrs, vec![(b"user.a".to_vec(), b"x\ny=z\0\n".to_vec())]);
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"7.x"), None);
    }

    #[test]
    fn what_is_held_is_counted_and_what_is_replaced_is_not() {
        let mut pax = Pax::default();
        for _ in 0..3 {
            pax.add(b"20 linkpath=target\n\n24 SCHILY.xattr.a=12345\n", 0).unwrap();
            pax.add(b"22 GNU.sparse.map=0,1\n16 comment=none\n", 0).unwrap();
        }
        assert_eq!(pax.held(), "target\n".len() + "a12345".len() + 2 * 8);
        pax.add(b"24 GNU.sparse.offset=10\n13 linkpath=\n", 0).unwrap();
        assert_eq!(pax.held(), "a12345".len() + 3 * 8);
    }

    #[test]
    fn broken_records_are_errors() {
        for record in [&b"9 a=b\n"[..], b"12 path=a\0b\n"] {
            assert!(Pax::default().add(record, 0).is_err(), "{record:?}");
        }
    }
}
