//! Tars for tests, byte by byte: also those that no honest program writes.

use std::io::Write;

use tar::{EntryType, Header};

/// A tar in the making.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// The fields of an entry that tests vary.
pub struct Fields<'a> {
    pub name: &'a [u8],
    pub kind: EntryType,
    pub link: &'a [u8],
    pub contents: &'a [u8],
    pub mode: u32,
    pub uid: u64,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self {
            name: b"file",
            kind: EntryType::Regular,
            link: b"",
            contents: b"",
            mode: 0o644,
            uid: 0,
            mtime: 1_700_000_000,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub fn entry(mut self, fields: &Fields) -> Self {
        let header = self.header(fields, fields.contents.len() as u64);
        self.bytes.extend_from_slice(header.as_bytes());
        self.contents(fields.contents)
    }

    /// An entry whose size field says something else than what follows.
    pub fn lying(mut self, fields: &Fields, size: u64) -> Self {
        let header = self.header(fields, size);
        self.bytes.extend_from_slice(header.as_bytes());
        self.contents(fields.contents)
    }

    fn header(&mut self, fields: &Fields, size: u64) -> Header {
        let mut header = Header::new_gnu();
        let mut long = |name: &[u8], kind| {
            if name.len() > 100 {
                let mut long = Header::new_gnu();
                long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                long.set_entry_type(kind);
                long.set_size(name.len() as u64 + 1);
                long.set_cksum();
                self.bytes.extend_from_slice(long.as_bytes());
                self.bytes.extend_from_slice(name);
                self.bytes.push(0);
                let padded = self.bytes.len().next_multiple_of(512);
                self.bytes.resize(padded, 0);
            }
        };
        long(fields.name, EntryType::GNULongName);
        long(fields.link, EntryType::GNULongLink);
        let old = header.as_old_mut();
        let fits = fields.name.len().min(100);
        old.name[..fits].copy_from_slice(&fields.name[..fits]);
        let fits = fields.link.len().min(100);
        old.linkname[..fits].copy_from_slice(&fields.link[..fits]);
        header.set_entry_type(fields.kind);
        header.set_mode(fields.mode);
        header.set_uid(fields.uid);
        header.set_gid(fields.uid);
        header.set_mtime(fields.mtime);
        header.set_size(size);
        if matches!(fields.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(fields.device.0).unwrap();
            header.set_device_minor(fields.device.1).unwrap();
        }
        header.set_cksum();
        header
    }

    fn contents(mut self, contents: &[u8]) -> Self {
        self.bytes.extend_from_slice(contents);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        self
    }

    pub fn file(self, name: &str, contents: &[u8]) -> Self {
        self.entry(&Fields { name: name.as_bytes(), contents, ..Fields::default() })
    }

    pub fn dir(self, name: &str) -> Self {
        let kind = EntryType::Directory;
        self.entry(&Fields { name: name.as_bytes(), kind, mode: 0o755, ..Fields::default() })
    }

    pub fn symlink(self, name: &str, link: &str) -> Self {
        let (name, link) = (name.as_bytes(), link.as_bytes());
        self.entry(&Fields { name, link, kind: EntryType::Symlink, ..Fields::default() })
    }

    pub fn hardlink(self, name: &str, link: &str) -> Self {
        let (name, link) = (name.as_bytes(), link.as_bytes());
        self.entry(&Fields { name, link, kind: EntryType::Link, ..Fields::default() })
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(body, "{length} {key}=").unwrap();
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(&Fields {
            name: b"PaxHeaders/x",
            kind: EntryType::XHeader,
            contents: &body,
            ..Fields::default()
        })
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The tar without its end.
    pub fn open_end(self) -> Vec<u8> {
        self.bytes
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
