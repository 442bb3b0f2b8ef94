//! Stat, pack and unpack, with the container's root as the root of the calling thread.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use minke_engine_runtime::privileges::as_owner;
use minke_engine_runtime::spec::Accounts;
use serde_json::json;

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

/// Looks at a path; a link at its end is not followed unless a slash or dot stands behind it.
pub(super) fn stat(path: &Path) -> io::Result<Stat> {
    let metadata = fs::symlink_metadata(path)?;
    let link_target = match metadata.is_symlink() {
        true => {
            let target = fs::read_link(path)?;
            let joined = path.parent().unwrap_or(Path::new("/")).join(target);
            joined.to_string_lossy().into_owned()
        }
        false => String::new(),
    };
    let name = path.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned());
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

/// What the archive of a path calls it: its last part; `.` if the path asks for a directory's content.
pub(super) fn entry_name(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Writes a path, with all below it, as a tar whose entries begin with `name`. `users`: host ids that
/// stand for the owners.
pub(super) fn pack(
    path: &Path,
    name: &str,
    writer: impl Write,
    users: Option<IdRange>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(64 * 1024, writer));
    tar.follow_symlinks(false);
    add(&mut tar, path, Path::new(name), users)?;
    tar.into_inner()?.flush()
}

fn add<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    users: Option<IdRange>,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    // Names in an archive have no root.
    let plain = name.strip_prefix("/").unwrap_or(name);
    if kind.is_dir() {
        if !plain.as_os_str().is_empty() {
            match users {
                None => tar.append_dir(plain, path)?,
                Some(users) => add_owned(tar, path, plain, &metadata, users)?,
            }
        }
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        entries.sort();
        for entry in entries {
            let below = name.join(entry.file_name().unwrap_or_default());
            match add(tar, &entry, &below, users) {
                // It was removed while we walked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        return Ok(());
    }
    match users {
        None => tar.append_path_with_name(path, plain),
        Some(users) => add_owned(tar, path, plain, &metadata, users),
    }
}

/// One entry, with owners as the container knows them.
fn add_owned<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    metadata: &fs::Metadata,
    users: IdRange,
) -> io::Result<()> {
    let inside = |id: u32| u64::from(users.inside(id).unwrap_or(NOBODY));
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    header.set_uid(inside(metadata.uid()));
    header.set_gid(inside(metadata.gid()));
    if metadata.is_symlink() {
        return tar.append_link(&mut header, name, fs::read_link(path)?);
    }
    if metadata.is_file() {
        header.set_size(metadata.len());
        // A file that grows while it is read stays within what its header says.
        return tar.append_data(&mut header, name, fs::File::open(path)?.take(metadata.len()));
    }
    header.set_size(0);
    tar.append_data(&mut header, name, io::empty())
}

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
    match how.users {
        None => unpack_tar(path, reader, how, owner),
        // The host's root is nobody in there, and can make nothing.
        Some(range) => as_owner(range.first, || unpack_tar(path, reader, how, owner)),
    }
}

fn unpack_tar(
    path: &Path,
    reader: impl Read,
    how: &Unpacking,
    owner: Option<(u64, u64)>,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(how.users.is_none() && owner.is_none());
    archive.set_unpack_xattrs(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let there = fs::symlink_metadata(path.join(&name));
        let directory = entry.header().entry_type().is_dir();
        if let Ok(there) = there
            && there.is_dir() != directory
        {
            make_way(&path.join(&name), &there, how.keep_kinds)?;
        }
        if !entry.unpack_in(path)? || (how.users.is_none() && owner.is_none()) {
            continue;
        }
        let header = entry.header();
        let (uid, gid) = match owner {
            Some(owner) => owner,
            None => (header.uid()?, header.gid()?),
        };
        let outside = |id: u64| {
            let id = u32::try_from(id).ok()?;
            how.users.map_or(Some(id), |users| users.outside(id))
        };
        std::os::unix::fs::lchown(path.join(&name), outside(uid), outside(gid))?;
    }
    Ok(())
}

/// Takes away what is of another kind than what comes.
fn make_way(target: &Path, there: &fs::Metadata, keep_kinds: bool) -> io::Result<()> {
    if keep_kinds {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("cannot overwrite {} by something of another kind", target.display()),
        ));
    }
    if there.is_dir() {
        fs::remove_dir_all(target)
    } else if !there.is_symlink() {
        fs::remove_file(target)
    } else {
        Ok(())
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

    #[test]
    fn a_tree_survives_packing_and_unpacking() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        std::os::unix::fs::symlink("sub/file", from.join("link")).unwrap();
        let mut bytes = Vec::new();
        pack(&from, "from", &mut bytes, None).unwrap();
        let plain = Unpacking::default();
        unpack(&to, &bytes[..], &plain).unwrap();
        assert_eq!(fs::read_to_string(to.join("from/link")).unwrap(), "content");
        fs::create_dir(to.join("from/link2")).unwrap();
        assert!(unpack(&to.join("missing"), &bytes[..], &plain).is_err());
        assert!(unpack(&to.join("from/sub/file"), &bytes[..], &plain).is_err());
    }

    #[test]
    fn modes_are_gos() {
        let dir = tempfile::tempdir().unwrap();
        let stat = stat(dir.path()).unwrap();
        assert_eq!(stat.mode & 1 << 31, 1 << 31);
    }
}
