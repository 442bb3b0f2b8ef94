//! What extended headers say of the entry that follows them: names that are too long for its header, and
//! in pax also numbers and capabilities.

use std::io;

use minke_common_model::pax;
use rustix::fs::{Timespec, Timestamps};
use tar::Header;

use super::invalid;
use crate::build::owners::Owner;

/// What extended headers said about the next entry.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    /// What a program may do besides what its user may.
    pub(super) capability: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Timespec>,
    size: Option<u64>,
}

impl Extended {
    /// Takes over the records of a pax header.
    pub(super) fn add(&mut self, body: &[u8]) -> io::Result<()> {
        for record in pax::records(body) {
            let (key, value) = record.map_err(|wrong| invalid(wrong.into()))?;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"SCHILY.xattr.security.capability" => self.capability = Some(value.to_vec()),
                b"uid" => self.uid = Some(number(key, value)?),
                b"gid" => self.gid = Some(number(key, value)?),
                b"size" => self.size = Some(number(key, value)?),
                b"mtime" => {
                    self.mtime = Some(moment(value).ok_or_else(|| wrong(key, value))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The owner that the archive names.
    pub(super) fn owner(&self, header: &Header) -> Owner {
        let id = |said: Option<u32>, number: io::Result<u64>| {
            said.or_else(|| u32::try_from(number.ok()?).ok()).unwrap_or(0)
        };
        Owner { uid: id(self.uid, header.uid()), gid: id(self.gid, header.gid()) }
    }

    pub(super) fn times(&self, header: &Header) -> Timestamps {
        let seconds = || header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0);
        let time = self.mtime.unwrap_or_else(|| Timespec { tv_sec: seconds(), tv_nsec: 0 });
        Timestamps { last_access: time, last_modification: time }
    }

    /// Refuses a size that only the extended header says, as some say that of files over 8 GiB: the
    /// header's own is the one by which the next entry is found.
    pub(super) fn check_size(&self, path: &str, size: u64) -> io::Result<()> {
        match self.size {
            Some(said) if said != size => Err(invalid(format!(
                "`{path}` has {said} bytes, which its header cannot say: pack it in the GNU format"
            ))),
            _ => Ok(()),
        }
    }
}

fn wrong(key: &[u8], value: &[u8]) -> io::Error {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    invalid(format!("the extended record `{}={}` is no number", shown(key), shown(value)))
}

fn number<T: TryFrom<u64>>(key: &[u8], value: &[u8]) -> io::Result<T> {
    let found = pax::number(value).and_then(|number| T::try_from(number).ok());
    found.ok_or_else(|| wrong(key, value))
}

/// Seconds with a fraction, counted from the epoch; earlier ones are negative.
fn moment(value: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9.9}").parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    match text.starts_with('-') && nanos > 0 {
        true => Some(Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanos }),
        false => Some(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_fractions_and_may_be_before_the_epoch() {
        let read = |text: &str| moment(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(read("12"), Some((12, 0)));
        assert_eq!(read("12.5"), Some((12, 500_000_000)));
        assert_eq!(read("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(read("-12.25"), Some((-13, 750_000_000)));
        for bad in ["", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for record in [&b"9 uid=-1\n"[..], b"18 gid=4294967296\n", b"11 mtime=x\n"] {
            let error = Extended::default().add(record).unwrap_err().to_string();
            assert!(error.contains("is no number"), "{error}");
        }
    }
}
