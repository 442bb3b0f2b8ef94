//! Stat and pack, with the container's root as the root of the calling thread.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use minke_engine_images::Limits;
use minke_engine_images::layer::{Item, LayerError, attributes};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;
use tar::EntryType;

use crate::base64;
use crate::options::IdRange;
use crate::stamp;

/// Who owns what belongs to nobody in the container.
const NOBODY: u32 = 65534;

/// What a client is told of a path.
pub(super) struct Stat {
    name: String,
    size: u64,
    /// As Go writes modes.
    mode: u32,
    modified: i64,
    link_target: String,
}

impl Stat {
    /// The header's value: base64 of JSON.
    pub(super) fn header(&self) -> String {
        let value = json!({
            "name": self.name,
            "size": self.size,
            "mode": self.mode,
            "mtime": stamp::rfc3339(self.modified),
            "linkTarget": self.link_target,
        });
        base64::encode(value.to_string().as_bytes())
    }
}

/// Looks at a path, which a client knows as `asked`; a link at its end is not followed unless a slash or
/// dot stands behind it.
pub(super) fn stat(path: &Path, asked: &Path) -> io::Result<Stat> {
    let metadata = fs::symlink_metadata(path)?;
    let link_target = match metadata.is_symlink() {
        true => {
            let target = fs::read_link(path)?;
            let joined = path.parent().unwrap_or(Path::new("/")).join(target);
            joined.to_string_lossy().into_owned()
        }
        false => String::new(),
    };
    let name = asked.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned());
    Ok(Stat {
        name,
        size: metadata.size(),
        mode: go_mode(&metadata),
        modified: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        link_target,
    })
}

fn go_mode(metadata: &fs::Metadata) -> u32 {
    let kind = metadata.file_type();
    let mut mode = metadata.mode() & 0o777;
    for (set, bit) in [
        (kind.is_dir(), 31),
        (kind.is_symlink(), 27),
        (kind.is_block_device() || kind.is_char_device(), 26),
        (kind.is_fifo(), 25),
        (kind.is_socket(), 24),
        (metadata.mode() & 0o4000 != 0, 23),
        (metadata.mode() & 0o2000 != 0, 22),
        (kind.is_char_device(), 21),
        (metadata.mode() & 0o1000 != 0, 20),
    ] {
        mode |= u32::from(set) << bit;
    }
    mode
}

/// What the archive of a path calls it: its last part; `.` if the path asks for a directory's content. The
/// root stays one: clients put the name of what they copy to in front of it.
pub(super) fn entry_name(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Writes a path, with all below it, as a tar whose entries begin with `name`; without a name, all below
/// it. `users`: host ids that stand for the owners.
pub(super) fn pack(
    path: &Path,
    name: &str,
    writer: impl Write,
    users: Option<IdRange>,
) -> io::Result<()> {
    let into = io::BufWriter::with_capacity(64 * 1024, writer);
    let mut packer = Packer { into, users, links: HashMap::new(), at: PathBuf::new() };
    if let Err(error) = packer.add(path, Path::new(name)) {
        let at = packer.at.display();
        return Err(io::Error::new(error.kind(), format!("{at}: {error}")));
    }
    packer.into.write_all(&[0; 1024])?;
    packer.into.flush()
}

struct Packer<W> {
    into: W,
    users: Option<IdRange>,
    /// Name in the archive of the first of each file with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// What it is at, for what is said of a failure.
    at: PathBuf,
}

impl<W: Write> Packer<W> {
    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        path.clone_into(&mut self.at);
        let metadata = fs::symlink_metadata(path)?;
        let plain = name.as_os_str().as_bytes();
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(path, name, plain);
        }
        if kind.is_socket() {
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                let item = Item { kind: EntryType::Link, link: &first.clone(), ..Item::default() };
                return self.header(plain, &metadata, item);
            }
            self.links.insert(key, plain.to_owned());
        }
        if kind.is_file() {
            return self.file(path, plain);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path)?;
            let link = target.as_os_str().as_bytes();
            return self.header(
                plain,
                &metadata,
                Item { kind: EntryType::Symlink, link, ..Item::default() },
            );
        }
        let device = metadata.rdev();
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let kind = match () {
            () if kind.is_char_device() => EntryType::Char,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Fifo,
        };
        self.header(plain, &metadata, Item { kind, device, ..Item::default() })
    }

    fn directory(&mut self, path: &Path, name: &Path, plain: &[u8]) -> io::Result<()> {
        let directory = open(path, OFlags::DIRECTORY)?;
        if !plain.is_empty() {
            let xattrs = &attributes(&directory, plain).map_err(plainly)?;
            let item = Item { kind: EntryType::Directory, xattrs, ..Item::default() };
            self.header(plain, &directory.metadata()?, item)?;
        }
        for below in names(directory)? {
            match self.add(&path.join(&below), &name.join(&below)) {
                // It was removed while we walked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// A file may be written while it is read: what stands in the archive has the length that its header
    /// says, whatever becomes of the file.
    fn file(&mut self, path: &Path, plain: &[u8]) -> io::Result<()> {
        let file = open(path, OFlags::NONBLOCK)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let size = metadata.len();
        let xattrs = &attributes(&file, plain).map_err(plainly)?;
        self.header(plain, &metadata, Item { size, xattrs, ..Item::default() })?;
        let found = io::copy(&mut file.take(size), &mut self.into)?;
        let missing = size.next_multiple_of(512) - found;
        io::copy(&mut io::repeat(0).take(missing), &mut self.into).map(drop)
    }

    /// A header with what all kinds of entries have.
    fn header(&mut self, path: &[u8], metadata: &fs::Metadata, item: Item<'_>) -> io::Result<()> {
        let inside = |id: u32| match self.users {
            Some(users) => users.inside(id).unwrap_or(NOBODY),
            None => id,
        };
        let item = Item {
            path,
            mode: metadata.mode() & 0o7777,
            uid: inside(metadata.uid()),
            gid: inside(metadata.gid()),
            mtime: metadata.mtime(),
            ..item
        };
        item.write(&mut self.into, &Limits::default()).map_err(plainly)
    }
}

/// Opens what is at a path, not what a link there leads to. What is of another kind by now was removed.
fn open(path: &Path, flags: OFlags) -> io::Result<fs::File> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) => Err(io::ErrorKind::NotFound.into()),
        opened => Ok(opened?.into()),
    }
}

/// The names in a directory, in order.
fn names(directory: fs::File) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::new(directory)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if !matches!(&name[..], b"." | b"..") {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// The system's error alone: the caller says where it was. Anything else is in the archive.
pub(super) fn plainly(error: LayerError) -> io::Error {
    match error {
        LayerError::Io { source, .. } | LayerError::Read(source) => source,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_after_the_last_part() {
        assert_eq!(entry_name("/etc/hosts"), "hosts");
        assert_eq!(entry_name("/etc/"), "etc");
        assert_eq!(entry_name("/etc/."), ".");
        assert_eq!(entry_name("/"), "/");
    }

    /// The kernel's own files have other lengths than they say, like files that are written meanwhile.
    #[test]
    fn a_file_that_grows_or_shrinks_leaves_the_archive_whole() {
        for (path, length) in [("/proc/self/status", 0), ("/sys/kernel/uevent_seqnum", 4096)] {
            assert_eq!(fs::metadata(path).unwrap().len(), length);
            let mut bytes = Vec::new();
            pack(Path::new(path), "file", &mut bytes, None).unwrap();
            let mut archive = tar::Archive::new(&bytes[..]);
            let sizes = archive.entries().unwrap().map(|entry| entry.unwrap().size());
            assert_eq!(sizes.collect::<Vec<_>>(), [length]);
        }
    }

    #[test]
    fn modes_are_gos() {
        let dir = tempfile::tempdir().unwrap();
        let stat = stat(dir.path(), Path::new("/a/b/")).unwrap();
        assert_eq!(stat.name, "b");
        assert_eq!(stat.mode & 1 << 31, 1 << 31);
    }
}
