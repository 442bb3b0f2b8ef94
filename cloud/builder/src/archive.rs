//! The project's archive: a tar, usually gzipped, from a stranger. Nothing in it is written outside
//! the directory it is unpacked to, and nothing is written through a link that it brought.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use minke_common_model::pax;
use tar::{Archive, EntryType, Header};

use crate::limits::Limits;

/// Bytes of one extended header.
const MAX_EXTENDED: u64 = 64 << 10;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Over a limit.
    #[error("the project has more than {limit} {what}; that is the limit")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A path that would leave the project.
    #[error("the path `{0}` leads outside the project")]
    Outside(String),
    /// A file or a link where the project itself is.
    #[error("`{0}` is the project itself, which can only be a directory")]
    Itself(String),
    /// A path longer than is sensible.
    #[error("the path `{start}…` has {length} bytes; the limit is {limit}")]
    LongPath {
        /// Its beginning.
        start: String,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Devices, pipes and the like.
    #[error("`{0}` is neither a file, a directory nor a link")]
    Kind(String),
    /// No archive.
    #[error("the body is no tar archive")]
    Read(#[source] io::Error),
    /// The server's disk.
    #[error("unpacking `{path}`")]
    Write {
        /// What was being written.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub files: usize,
    pub bytes: u64,
}

/// Unpacks `body` into `dir`, which exists and is empty. Blocking.
pub(crate) fn unpack(
    body: impl Read,
    dir: &Path,
    limits: &Limits,
) -> Result<Unpacked, ArchiveError> {
    let mut body = body.take(limits.sent + 1);
    let mut head = [0u8; 2];
    let got = read_some(&mut body, &mut head).map_err(ArchiveError::Read)?;
    let joined = io::Cursor::new(head[..got].to_vec()).chain(body);
    let gzipped = got == 2 && head == [0x1f, 0x8b];
    let plain: Box<dyn Read + '_> =
        if gzipped { Box::new(MultiGzDecoder::new(joined)) } else { Box::new(joined) };
    // Headers and padding are not counted as content: allow one block for each entry, twice.
    let most = limits.unpacked + limits.entries as u64 * 2048 + 10_240;
    let mut unpacker = Unpacker { dir, limits, total: Unpacked::default(), entries: 0 };
    unpacker.run(Archive::new(plain.take(most)))?;
    Ok(unpacker.total)
}

fn read_some(body: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match body.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

struct Unpacker<'a> {
    dir: &'a Path,
    limits: &'a Limits,
    total: Unpacked,
    entries: usize,
}

/// What extended headers said about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Unpacker<'_> {
    fn run<R: Read>(&mut self, mut archive: Archive<R>) -> Result<(), ArchiveError> {
        let mut extended = Extended::default();
        for entry in archive.entries().map_err(ArchiveError::Read)?.raw(true) {
            let mut entry = entry.map_err(ArchiveError::Read)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                let limit = self.limits.entries as u64;
                return Err(ArchiveError::TooLarge { what: "files", limit });
            }
            let header = entry.header().clone();
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(text(&mut entry)?),
                EntryType::GNULongLink => extended.link = Some(text(&mut entry)?),
                EntryType::XHeader => records(&text(&mut entry)?, &mut extended)?,
                EntryType::XGlobalHeader => {
                    text(&mut entry)?;
                }
                kind => {
                    let found = std::mem::take(&mut extended);
                    self.entry(&header, kind, found, &mut entry)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        extended: Extended,
        content: &mut impl Read,
    ) -> Result<(), ArchiveError> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&path).into_owned();
        if names_nothing(&name) && kind == EntryType::Directory {
            // It is here already, and who may enter it is the server's to say.
            return Ok(());
        }
        let target = self.resolve(&name)?;
        let wrote = |source| ArchiveError::Write { path: name.clone(), source };
        let mode = header.mode().unwrap_or(0o644) & 0o7777;
        match kind {
            EntryType::Directory => {
                make_directory(&target).map_err(wrote)?;
                let mode = fs::Permissions::from_mode(mode | 0o700);
                fs::set_permissions(&target, mode).map_err(wrote)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                remove(&target).map_err(wrote)?;
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create_new(true)
                    .mode(mode | 0o600)
                    .open(&target)
                    .map_err(wrote)?;
                let left = self.limits.unpacked.saturating_sub(self.total.bytes);
                let copied = copy(content, &mut file, left).map_err(wrote)?;
                let Some(copied) = copied else {
                    let limit = self.limits.unpacked;
                    return Err(ArchiveError::TooLarge { what: "bytes", limit });
                };
                let permissions = fs::Permissions::from_mode(mode | 0o600);
                file.set_permissions(permissions).map_err(wrote)?;
                self.total.bytes += copied;
                self.total.files += 1;
            }
            EntryType::Symlink => {
                remove(&target).map_err(wrote)?;
                let link = self.link(header, extended.link);
                symlink(&link, &target).map_err(wrote)?;
            }
            EntryType::Link => {
                let link = self.link(header, extended.link);
                let source = self.resolve(&link)?;
                remove(&target).map_err(wrote)?;
                fs::hard_link(&source, &target).map_err(wrote)?;
            }
            _ => return Err(ArchiveError::Kind(name)),
        }
        Ok(())
    }

    fn link(&self, header: &Header, long: Option<Vec<u8>>) -> String {
        let bytes = long.or_else(|| header.link_name_bytes().map(|b| b.into_owned()));
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    /// The place of a path, its parents made; refuses what leads outside by name or by link, and the
    /// directory that is unpacked to: in its place a link would lead everything after it outside.
    fn resolve(&self, name: &str) -> Result<PathBuf, ArchiveError> {
        if name.len() > self.limits.path {
            return Err(ArchiveError::LongPath {
                start: name.chars().take(60).collect(),
                length: name.len(),
                limit: self.limits.path,
            });
        }
        if names_nothing(name) {
            return Err(ArchiveError::Itself(name.to_owned()));
        }
        let outside = || ArchiveError::Outside(name.to_owned());
        let mut out = self.dir.to_path_buf();
        let parts: Vec<_> = Path::new(name).components().collect();
        for (i, part) in parts.iter().enumerate() {
            match part {
                Component::CurDir => continue,
                Component::Normal(part) => out.push(part),
                _ => return Err(outside()),
            }
            if i + 1 == parts.len() {
                break;
            }
            match fs::symlink_metadata(&out) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(outside()),
                Err(_) => fs::create_dir(&out)
                    .map_err(|source| ArchiveError::Write { path: name.to_owned(), source })?,
            }
        }
        Ok(out)
    }
}

/// Whether a path stays where it begins: ``, `.`, `./.`.
fn names_nothing(name: &str) -> bool {
    Path::new(name).components().all(|part| part == Component::CurDir)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => {
            fs::remove_file(path)?;
            fs::create_dir(path)
        }
        Err(_) => fs::create_dir(path),
    }
}

/// An archive may hold a path twice; the later one counts.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Copies at most `limit` bytes; `None` when there are more.
fn copy(from: &mut impl Read, to: &mut File, limit: u64) -> io::Result<Option<u64>> {
    let copied = io::copy(&mut from.by_ref().take(limit), to)?;
    let more = copied == limit && read_some(from, &mut [0u8; 1])? > 0;
    Ok((!more).then_some(copied))
}

/// A long name or a block of records.
fn text(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut out = Vec::new();
    entry.take(MAX_EXTENDED + 1).read_to_end(&mut out).map_err(ArchiveError::Read)?;
    if out.len() as u64 > MAX_EXTENDED {
        let what = "bytes in one extended header";
        return Err(ArchiveError::TooLarge { what, limit: MAX_EXTENDED });
    }
    while out.last() == Some(&0) {
        out.pop();
    }
    Ok(out)
}

fn records(body: &[u8], extended: &mut Extended) -> Result<(), ArchiveError> {
    for record in pax::records(body) {
        let wrong = |text| ArchiveError::Read(io::Error::new(io::ErrorKind::InvalidData, text));
        match record.map_err(wrong)? {
            (b"path", value) => extended.path = Some(value.to_vec()),
            (b"linkpath", value) => extended.link = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let linked = matches!(kind, EntryType::Symlink | EntryType::Link);
            let body = if linked { "" } else { content };
            if linked {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_size(body.len() as u64);
            // The library refuses `..` in names; strangers do not.
            let name = path.as_bytes();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn outcome(
        entries: &[(&str, EntryType, &str)],
        limits: &Limits,
    ) -> (tempfile::TempDir, Result<Unpacked, String>) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive(entries);
        let result = unpack(&bytes[..], dir.path(), limits).map_err(|e| e.to_string());
        (dir, result)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn files_links_and_modes_come_out() {
        let entries = [
            ("a/run.sh", FILE, "#!/bin/sh\n"),
            ("a/l", EntryType::Symlink, "run.sh"),
            ("b", EntryType::Link, "a/run.sh"),
            ("./c/", EntryType::Directory, ""),
        ];
        let (dir, result) = outcome(&entries, &Limits::default());
        assert_eq!(result, Ok(Unpacked { files: 1, bytes: 10 }));
        let mode = fs::metadata(dir.path().join("b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read_link(dir.path().join("a/l")).unwrap(), Path::new("run.sh"));
        assert!(dir.path().join("c").is_dir());
    }

    #[test]
    fn nothing_is_written_outside() {
        for (entries, says) in [
            (vec![("../x", FILE, "a")], "`../x` leads outside"),
            (vec![("/etc/x", FILE, "a")], "`/etc/x` leads outside"),
            (vec![("a/../../x", FILE, "a")], "`a/../../x` leads outside"),
            (vec![("l", EntryType::Symlink, "/tmp"), ("l/x", FILE, "a")], "`l/x` leads outside"),
            (vec![("h", EntryType::Link, "../../etc/passwd")], "leads outside"),
            (vec![("f", EntryType::Fifo, "")], "neither a file"),
            (vec![("h", EntryType::Link, ".")], "`.` is the project itself"),
            (vec![("h", EntryType::Link, "")], "`` is the project itself"),
        ] {
            let (_dir, result) = outcome(&entries, &Limits::default());
            let message = result.unwrap_err();
            assert!(message.contains(says), "{entries:?}: {message}");
        }
    }

    #[test]
    fn the_project_itself_is_never_replaced() {
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().to_str().unwrap();
        for name in [".", "./", "./.", ""] {
            for (kind, content) in [
                (EntryType::Symlink, link),
                (EntryType::Link, "a"),
                (FILE, "a"),
                (EntryType::Fifo, ""),
            ] {
                let entries = [("a", FILE, "a"), (name, kind, content), ("x", FILE, "a")];
                let (dir, result) = outcome(&entries, &Limits::default());
                let message = result.unwrap_err();
                let says = format!("`{name}` is the project itself");
                assert!(message.contains(&says), "{entries:?}: {message}");
                assert!(fs::symlink_metadata(dir.path()).unwrap().is_dir());
            }
        }
        assert!(!outside.path().join("x").exists());
    }

    #[test]
    fn the_project_may_be_named_as_the_directory_it_is() {
        let entries = [
            (".", EntryType::Directory, ""),
            ("./", EntryType::Directory, ""),
            ("./x", FILE, "inside"),
        ];
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        unpack(&archive(&entries)[..], dir.path(), &Limits::default()).unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"inside");
        let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "the archive said 755");
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let link = outside.path().to_str().unwrap();
        let (dir, result) =
            outcome(&[("x", EntryType::Symlink, link), ("x", FILE, "inside")], &Limits::default());
        result.unwrap();
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"inside");
    }

    #[test]
    fn limits_are_said() {
        let limits = Limits { entries: 2, unpacked: 5, path: 20, ..Limits::default() };
        for (entries, says) in [
            (vec![("a", FILE, ""), ("b", FILE, ""), ("c", FILE, "")], "more than 2 files"),
            (vec![("a", FILE, "123456")], "more than 5 bytes"),
            (vec![("a", FILE, "123"), ("b", FILE, "456")], "more than 5 bytes"),
            (vec![("aaaaaaaaaaaaaaaaaaaaaaaaa", FILE, "")], "the limit is 20"),
        ] {
            let (_dir, result) = outcome(&entries, &limits);
            let message = result.unwrap_err();
            assert!(message.contains(says), "{message}");
        }
        let (_dir, result) = outcome(&[("a", FILE, "12345")], &limits);
        assert_eq!(result.unwrap().bytes, 5);
    }

    #[test]
    fn long_names_and_gzip_are_read() {
        use std::io::Write;
        let name = format!("{}/file", "d".repeat(150));
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        builder.append_data(&mut header, &name, &b"ok"[..]).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&builder.into_inner().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        unpack(&gzip.finish().unwrap()[..], dir.path(), &Limits::default()).unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"ok");
    }

    #[test]
    fn rubbish_is_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let noise = [7u8; 2000];
        let error = unpack(&noise[..], dir.path(), &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "the body is no tar archive");
    }
}
