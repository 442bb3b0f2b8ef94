//! Unpacks archives, with the container's root as the root of the calling thread.
//!
//! Invariant: nothing outside of the destination is made, changed or removed: names are cut down to their
//! plain parts once, `..` is refused, and directories on the way to an entry are looked at after links in
//! them are followed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use minke_engine_images::Limits;
use minke_engine_images::layer::{Entry, Kind, Mtime, TarReader, may_set, timestamps};
use minke_engine_runtime::privileges::as_owner;
use minke_engine_runtime::spec::Accounts;
use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags, makedev, mknodat, utimensat};
use rustix::io::Errno;

use super::pack::plainly;
use crate::options::IdRange;

/// Directories whose times are set at the end, in bytes of their paths.
const MOST_DIRECTORY_NAMES: usize = 32 << 20;

/// How an archive is unpacked.
#[derive(Debug, Clone, Default)]
pub(super) struct Unpacking {
    /// A directory and what is none do not take each other's place.
    pub(super) keep_kinds: bool,
    /// Host ids that stand for the owners.
    pub(super) users: Option<IdRange>,
    /// Everything belongs to this user (`user[:group]` as in a container's configuration), whatever the
    /// archive says.
    pub(super) owner: Option<String>,
}

/// Unpacks an archive (plain or gzip) into the existing directory `path`.
pub(super) fn unpack(path: &Path, reader: impl Read, how: &Unpacking) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut reader = BufReader::new(reader);
    let magic = io::BufRead::fill_buf(&mut reader)?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        let reader = flate2::read::GzDecoder::new(reader);
        return unpack_as_owner(path, reader, how);
    }
    unpack_as_owner(path, reader, how)
}

fn unpack_as_owner(path: &Path, reader: impl Read, how: &Unpacking) -> io::Result<()> {
    let owner = match &how.owner {
        None => None,
        Some(user) => {
            let accounts = Accounts::read(Path::new("/"))?;
            let identity = accounts.resolve(user, &[]);
            let identity = identity.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            Some((u64::from(identity.uid), u64::from(identity.gid)))
        }
    };
    let root = path.canonicalize()?;
    let mut unpacker =
        Unpacker { root, how, owner, parent: None, directories: Vec::new(), directory_names: 0 };
    match how.users {
        None => unpacker.all(reader),
        // The host's root is nobody in there, and can make nothing.
        Some(range) => as_owner(range.first, || unpacker.all(reader)),
    }
}

struct Unpacker<'a> {
    /// The destination, without links.
    root: PathBuf,
    how: &'a Unpacking,
    owner: Option<(u64, u64)>,
    /// The last directory that was found to be inside of the destination.
    parent: Option<PathBuf>,
    directories: Vec<(PathBuf, Mtime)>,
    directory_names: usize,
}

impl Unpacker<'_> {
    fn all(&mut self, reader: impl Read) -> io::Result<()> {
        // Only the container's disk limits what a client may put there.
        let limits = Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() };
        let mut tar = TarReader::new(reader, limits);
        let mut raw = Vec::new();
        while let Some(entry) = tar.entry(&mut raw).map_err(plainly)? {
            self.entry(&entry, &mut tar)?;
            tar.padding(entry.size, &mut raw).map_err(plainly)?;
            raw.clear();
        }
        // Every file made in a directory changes its time.
        for (path, mtime) in &self.directories {
            match date(path, *mtime) {
                // A later entry has taken its place.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                dated => dated?,
            }
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
        let path = self.inside(&entry.name)?;
        if path == self.root {
            return match entry.kind {
                // The destination stays as it is.
                Kind::Directory => Ok(()),
                _ => Err(refused("an entry has no name".to_owned())),
            };
        }
        self.make_parent(&path)?;
        let there = self.make_way(&path, entry)?;
        if !matches!(entry.kind, Kind::File | Kind::Directory) {
            // A link may lead from here to anywhere.
            self.parent = None;
        }
        match entry.kind {
            Kind::Directory if there => {}
            Kind::Directory => fs::create_dir(&path)?,
            Kind::File => write_file(&path, entry, tar)?,
            Kind::Symlink => symlink(Path::new(name_of(&entry.link)), &path)?,
            // Whose file it is was said with the file.
            Kind::Hardlink => return self.hard_link(&path, entry),
            Kind::Character | Kind::Block | Kind::Fifo => match make_node(&path, entry) {
                // A container in a user namespace could use none.
                Err(Errno::PERM) if self.how.users.is_some() => return Ok(()),
                made => made?,
            },
        }
        self.style(&path, entry)
    }

    /// Where an entry goes.
    fn inside(&self, name: &[u8]) -> io::Result<PathBuf> {
        let mut path = self.root.clone();
        for part in Path::new(name_of(name)).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(refused(format!("the name {name:?} in the archive leads outside")));
                }
                _ => {}
            }
        }
        Ok(path)
    }

    /// Makes the directories that lead to an entry.
    fn make_parent(&mut self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.root);
        if self.parent.as_deref() == Some(parent) {
            return Ok(());
        }
        let mut at = self.root.clone();
        for part in parent.strip_prefix(&self.root).unwrap_or(parent).components() {
            at.push(part);
            match fs::create_dir(&at) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.check(&at)?,
                made => made?,
            }
        }
        self.parent = Some(parent.to_owned());
        Ok(())
    }

    /// Refuses what lies outside of the destination when links are followed.
    fn check(&self, path: &Path) -> io::Result<()> {
        match path.canonicalize()?.starts_with(&self.root) {
            true => Ok(()),
            false => Err(refused(format!("the link {} leads outside", path.display()))),
        }
    }

    /// Takes away what is there, but for a directory that stays one. Answers whether that is so.
    fn make_way(&mut self, path: &Path, entry: &Entry) -> io::Result<bool> {
        let there = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let directory = entry.kind == Kind::Directory;
        if there.is_dir() && directory {
            return Ok(true);
        }
        if self.how.keep_kinds && there.is_dir() != directory {
            return Err(refused(format!(
                "cannot overwrite {} by something of another kind",
                path.display()
            )));
        }
        self.parent = None;
        match there.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
        Ok(false)
    }

    fn hard_link(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let target = self.inside(&entry.link)?;
        self.check(target.parent().unwrap_or(&self.root))?;
        fs::hard_link(target, path)
    }

    /// Owner first, then mode, then attributes: a change of owner drops set-user-id and capabilities.
    fn style(&mut self, path: &Path, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let outside = |id: u64| {
            let id = u32::try_from(id).ok()?;
            self.how.users.map_or(Some(id), |users| users.outside(id))
        };
        lchown(path, outside(uid), outside(gid))?;
        if entry.kind == Kind::Symlink {
            return Ok(date(path, entry.mtime)?);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| may_set(name)) {
            match rustix::fs::lsetxattr(path, name_of(name), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM) if self.how.users.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if entry.kind != Kind::Directory {
            return Ok(date(path, entry.mtime)?);
        }
        self.directory_names += path.as_os_str().len() + size_of::<(PathBuf, Mtime)>();
        if self.directory_names > MOST_DIRECTORY_NAMES {
            return Err(refused(format!(
                "the names of the archive's directories are over the limit of {MOST_DIRECTORY_NAMES} bytes"
            )));
        }
        self.directories.push((path.to_owned(), entry.mtime));
        Ok(())
    }
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn name_of(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes)
}

fn date(path: &Path, mtime: Mtime) -> Result<(), Errno> {
    utimensat(CWD, path, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn make_node(path: &Path, entry: &Entry) -> Result<(), Errno> {
    let (kind, device) = match entry.kind {
        Kind::Character => (FileType::CharacterDevice, entry.device),
        Kind::Block => (FileType::BlockDevice, entry.device),
        _ => (FileType::Fifo, (0, 0)),
    };
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(device.0, device.1))
}

fn write_file<R: Read>(path: &Path, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let whole = [(0, entry.size)];
    let segments = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.segments[..]);
    for (offset, length) in segments {
        file.seek(SeekFrom::Start(*offset))?;
        let mut left = *length;
        while left > 0 {
            let piece = tar.stream.piece(left).map_err(plainly)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(piece)?;
            left -= piece.len() as u64;
        }
    }
    match &entry.sparse {
        Some(sparse) => file.set_len(sparse.real_size),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::super::pack::pack;
    use super::*;

    /// An archive of empty files and directories, with names that no honest program writes.
    fn archive(names: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, link) in names {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_tree_survives_packing_and_unpacking() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        fs::hard_link(from.join("sub/file"), from.join("twin")).unwrap();
        symlink("sub/file", from.join("link")).unwrap();
        mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
        let null = makedev(1, 3);
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, from.join("null"), FileType::CharacterDevice, mode, null).unwrap();
        lchown(from.join("sub/file"), Some(12), Some(34)).unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        // CAP_DAC_OVERRIDE, CAP_FOWNER: one of the bytes is a newline.
        let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let name = "security.capability";
        let file = from.join("sub/file");
        rustix::fs::lsetxattr(&file, name, &capability, XattrFlags::empty()).unwrap();
        let old = Mtime { seconds: 1_000_000_000, nanos: 0 };
        date(&from.join("sub"), old).unwrap();

        let mut bytes = Vec::new();
        pack(&from, "from", &mut bytes, None).unwrap();
        let plain = Unpacking::default();
        // Twice: what is there is replaced by itself.
        for _ in 0..2 {
            unpack(&to, &bytes[..], &plain).unwrap();
            let to = to.join("from");
            assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "content");
            let file = fs::metadata(to.join("sub/file")).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (12, 34, 0o4755));
            assert_eq!(
                (file.nlink(), file.ino()),
                (2, fs::metadata(to.join("twin")).unwrap().ino())
            );
            let mut value = [0; 64];
            let length = rustix::fs::lgetxattr(to.join("sub/file"), name, &mut value).unwrap();
            assert_eq!(value[..length], capability);
            assert!(fs::metadata(to.join("pipe")).unwrap().file_type().is_fifo());
            assert_eq!(fs::metadata(to.join("null")).unwrap().rdev(), null);
            assert_eq!(fs::metadata(to.join("sub")).unwrap().mtime(), old.seconds);
        }
        assert!(unpack(&to.join("missing"), &bytes[..], &plain).is_err());
        assert!(unpack(&to.join("from/sub/file"), &bytes[..], &plain).is_err());
    }

    #[test]
    fn nothing_outside_is_removed_changed_or_made() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let (to, out) = (dir.path().join("to"), dir.path().join("out"));
        fs::create_dir_all(out.join("keep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(out.join("keep/file"), "").unwrap();
        let keep = out.join("keep").display().to_string();
        let owned =
            Unpacking { users: Some(IdRange { first: 0, count: 9 }), ..Unpacking::default() };
        for how in [Unpacking::default(), owned] {
            // An absolute name is one below the destination.
            unpack(&to, &archive(&[(&keep, Regular, "")])[..], &how).unwrap();
            assert!(to.join(keep.trim_start_matches('/')).is_file());
            let link = out.display().to_string();
            for bad in [
                &[("../out/keep", Regular, "")][..],
                &[("a", Directory, ""), ("a/../../out/keep", Regular, "")],
                &[("link", Symlink, &link), ("link/keep", Regular, "")],
                &[("link", Symlink, &link), ("link/new/file", Regular, "")],
                &[("file", Link, "../out/keep/file")],
                &[("link", Symlink, &link), ("file", Link, "link/keep/file")],
            ] {
                let error = unpack(&to, &archive(bad)[..], &how).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}: {error}");
            }
        }
        assert!(out.join("keep/file").is_file());
        assert_eq!(fs::metadata(out.join("keep/file")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    }

    #[test]
    fn kinds_are_kept_if_asked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let bytes = archive(&[("there", tar::EntryType::Regular, "")]);
        let how = Unpacking { keep_kinds: true, ..Unpacking::default() };
        assert!(unpack(dir.path(), &bytes[..], &how).is_err());
        assert!(dir.path().join("there").is_dir());
        unpack(dir.path(), &bytes[..], &Unpacking::default()).unwrap();
        assert!(dir.path().join("there").is_file());
    }
}
