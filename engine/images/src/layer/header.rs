//! Headers of a tar as this engine writes them: ustar, and an extended one (pax) in front where the old
//! fields are too small.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr};
use tar::{EntryType, Header};

use crate::layer::entry::Attribute;
use crate::layer::{LayerError, names};
use crate::options::Limits;

/// What a header says.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its name.
    pub path: &'a [u8],
    /// What it makes.
    pub kind: EntryType,
    /// Permission bits with set-user-id and the like.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Bytes of contents that follow.
    pub size: u64,
    /// Target of a link.
    pub link: &'a [u8],
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: &'a [Attribute],
}

impl Default for Item<'_> {
    fn default() -> Self {
        Self {
            path: b"",
            kind: EntryType::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
        }
    }
}

pub(crate) fn write_error(source: io::Error) -> LayerError {
    LayerError::Io { doing: "writing", path: "the tar".into(), source }
}

impl Item<'_> {
    /// Writes the header; the contents and their padding are the caller's.
    pub fn write(&self, into: &mut impl Write, limits: &Limits) -> Result<(), LayerError> {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        set_name(&mut header.as_old_mut().name, b"path", self.path, &mut records);
        set_name(&mut header.as_old_mut().linkname, b"linkpath", self.link, &mut records);
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        let mut number = |key: &[u8], value: u64, most: u64| {
            if value <= most {
                return value;
            }
            record(key, value.to_string().as_bytes(), &mut records);
            0
        };
        header.set_uid(number(b"uid", self.uid.into(), 0o7_777_777));
        header.set_gid(number(b"gid", self.gid.into(), 0o7_777_777));
        header.set_size(number(b"size", self.size, 0o77_777_777_777));
        match u64::try_from(self.mtime) {
            Ok(mtime) => header.set_mtime(number(b"mtime", mtime, 0o77_777_777_777)),
            Err(_) => {
                record(b"mtime", self.mtime.to_string().as_bytes(), &mut records);
                header.set_mtime(0);
            }
        }
        if matches!(self.kind, EntryType::Char | EntryType::Block) {
            let failed = |source| LayerError::io("packing", self.path, source);
            header.set_device_major(self.device.0).map_err(failed)?;
            header.set_device_minor(self.device.1).map_err(failed)?;
        }
        for (name, value) in self.xattrs {
            record(&[b"SCHILY.xattr.", &name[..]].concat(), value, &mut records);
        }
        header.set_cksum();
        if !records.is_empty() {
            extension(into, &records, limits)?;
        }
        into.write_all(header.as_bytes()).map_err(write_error)
    }
}

fn extension(into: &mut impl Write, records: &[u8], limits: &Limits) -> Result<(), LayerError> {
    if records.len() > limits.header {
        let limit = limits.header as u64;
        return Err(LayerError::Limit { what: "the size of an extended header", limit });
    }
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..10].copy_from_slice(b"PaxHeaders");
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    into.write_all(header.as_bytes()).map_err(write_error)?;
    into.write_all(records).map_err(write_error)?;
    let padding = records.len().next_multiple_of(512) - records.len();
    into.write_all(&[0; 512][..padding]).map_err(write_error)
}

/// Puts a name into its 100 bytes, or into a record if it is longer.
fn set_name(field: &mut [u8; 100], key: &[u8], name: &[u8], records: &mut Vec<u8>) {
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    if name.len() > field.len() {
        record(key, name, records);
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend_from_slice(b" ");
    records.extend_from_slice(key);
    records.extend_from_slice(b"=");
    records.extend_from_slice(value);
    records.extend_from_slice(b"\n");
}

/// The attributes that belong into an image: capabilities and the user's own.
pub fn attributes(fd: impl AsFd, path: &[u8]) -> Result<Vec<Attribute>, LayerError> {
    let mut listed = vec![0u8; 64 << 10];
    let length = match flistxattr(&fd, &mut listed[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(LayerError::io("reading attributes of", path, error)),
    };
    let mut found = Vec::new();
    for name in listed[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if matches!(name, b"trusted.overlay.redirect" | b"trusted.overlay.metacopy") {
            return Err(LayerError::Overlay(names::show(path)));
        }
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = fgetxattr(&fd, names::to_path(name), &mut value[..])
            .map_err(|error| LayerError::io("reading attributes of", path, error))?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}
