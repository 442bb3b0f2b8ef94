//! Copies a directory tree with owners, modes, times, links, devices and extended attributes.
//!
//! Invariant: nothing is written outside of the volume. A container that shares it may move everything in
//! it about while the copy goes on, and put links there that lead anywhere. So directories are opened from
//! the volume's own without following a link, and what is in them is made and changed by descriptor.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags, chownat, getxattr, linkat, listxattr, mkdirat, mknodat, openat, openat2,
    readlinkat, setxattr, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

/// A directory whose files are made, looked at and changed.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Anything, which is not opened but named.
const NAMED: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Fills an empty volume with what the image has at `target`: content, and the directory's own owner
/// and mode. Nothing happens if the volume holds something or the image has no directory there.
///
/// A mark beside the volume says that it is being filled. Whoever finds it (the disk was full, or the
/// engine or the power went) fills again over what is there.
pub(crate) fn fill_from_image(rootfs: &Path, target: &str, volume: &Path) -> io::Result<()> {
    let mark = volume.with_file_name(MARK);
    if !mark.exists() && fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // A link in the image leads to a place in the image, never out of it.
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = target.trim_start_matches('/');
    let from = match openat2(&root, relative, DIRECTORY, Mode::empty(), inside) {
        Ok(from) => File::from(from),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let to = rustix::fs::open(volume, DIRECTORY, Mode::empty())?;
    let copier = Copier { from, to: to.into(), linked: HashMap::new() };
    if names(&copier.from)?.next().is_none() {
        return finish(&copier.from, &copier.to, &copier.from.metadata()?);
    }
    File::create(&mark)?;
    let to = copier.copy()?;
    // The mark must not be gone from the disk before the content is there.
    rustix::fs::syncfs(to)?;
    fs::remove_file(&mark)?;
    // Nor may it come back after a power cut: the next container would fill over what this one writes.
    File::open(mark.parent().unwrap_or(volume))?.sync_all()
}

/// Name of the mark.
const MARK: &str = ".filling";

/// A copy from one directory to another.
struct Copier {
    from: File,
    to: File,
    /// Files with several links: where the first of them went.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// What is to be done with a directory, by its path below both ends.
enum Step {
    Fill(PathBuf),
    /// Once what is below it is there: its time of change would not stay, nor may its mode let us in.
    Finish(PathBuf),
}

impl Copier {
    /// Copies everything; the directory that it is in now.
    fn copy(mut self) -> io::Result<File> {
        // Directories are opened again when it is their turn: a tree may be deeper than a process may have
        // descriptors.
        let mut steps = vec![Step::Fill(PathBuf::from("."))];
        while let Some(step) = steps.pop() {
            match step {
                Step::Fill(path) => {
                    let below = self.fill(&path)?;
                    steps.push(Step::Finish(path));
                    steps.extend(below.into_iter().map(Step::Fill));
                }
                Step::Finish(path) => {
                    let (from, to) = (below(&self.from, &path)?, below(&self.to, &path)?);
                    finish(&from, &to, &from.metadata()?)?;
                }
            }
        }
        Ok(self.to)
    }

    /// Copies a directory's files, and makes its directories, whose paths are the answer.
    fn fill(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let (from, to) = (below(&self.from, path)?, below(&self.to, path)?);
        let mut directories = Vec::new();
        for name in names(&from)? {
            let name = name?;
            let source = File::from(openat(&from, &name, NAMED, Mode::empty())?);
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if source.metadata()?.is_dir() {
                make_directory(&to, &name)?;
                directories.push(path);
            } else {
                self.entry(&source, &to, &name, path)?;
            }
        }
        Ok(directories)
    }

    fn entry(&mut self, from: &File, to: &File, name: &CStr, path: PathBuf) -> io::Result<()> {
        match unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let metadata = from.metadata()?;
        let kind = metadata.file_type();
        // A socket belongs to the process that listens on it.
        if kind.is_socket() {
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&key) {
                let parent = below(&self.to, first.parent().unwrap_or(Path::new(".")))?;
                let first = first.file_name().unwrap_or_default();
                return Ok(linkat(parent, first, to, name, AtFlags::empty())?);
            }
            self.linked.insert(key, path);
        }
        if kind.is_symlink() {
            return copy_link(from, to, name, &metadata);
        }
        let made = match kind.is_file() {
            true => copy_file(from, to, name)?,
            false => make_node(to, name, &metadata)?,
        };
        finish(from, &made, &metadata)
    }
}

/// Opens a directory by its path below another one. No link is followed, so it is in there.
fn below(top: &File, path: &Path) -> io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(top, path, DIRECTORY, Mode::empty(), resolve)?.into())
}

/// The names in a directory.
fn names(directory: &File) -> io::Result<impl Iterator<Item = io::Result<CString>>> {
    let names = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    let is_other = |name: &CString| !matches!(name.to_bytes(), b"." | b"..");
    Ok(names.filter(move |name| name.as_ref().map_or(true, is_other)))
}

/// Makes a directory, if there is none.
fn make_directory(parent: &File, name: &CStr) -> io::Result<()> {
    let make = || mkdirat(parent, name, Mode::RWXU);
    match make() {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Ok(());
    }
    unlinkat(parent, name, AtFlags::empty())?;
    Ok(make()?)
}

fn copy_link(from: &File, to: &File, name: &CStr, metadata: &Metadata) -> io::Result<()> {
    symlinkat(readlinkat(from, "", Vec::new())?, to, name)?;
    let (user, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    chownat(to, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_file(from: &File, to: &File, name: &CStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut made = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut File::open(itself(from))?, &mut made)?;
    Ok(made)
}

fn make_node(to: &File, name: &CStr, metadata: &Metadata) -> io::Result<File> {
    let kind = FileType::from_raw_mode(metadata.mode());
    mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, metadata.rdev())?;
    let made = File::from(openat(to, name, NAMED, Mode::empty())?);
    match made.metadata()?.file_type() == metadata.file_type() {
        true => Ok(made),
        false => Err(io::Error::other("somebody puts other files into the volume meanwhile")),
    }
}

/// The path of what a descriptor is of, wherever that is by now: for what no call takes a descriptor for
/// that only names something.
fn itself(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn finish(from: &File, to: &File, metadata: &Metadata) -> io::Result<()> {
    let (from, to) = (itself(from), itself(to));
    chown(&to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    copy_attributes(&from, &to)?;
    Ok(utimensat(CWD, &to, &times(metadata), AtFlags::empty())?)
}

fn times(metadata: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() as _ },
        last_modification: Timespec {
            tv_sec: metadata.mtime(),
            tv_nsec: metadata.mtime_nsec() as _,
        },
    }
}

/// Largest list of names or value that is copied, bytes: the kernel's own limit.
const LARGEST_ATTRIBUTE: usize = 64 * 1024;

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; LARGEST_ATTRIBUTE];
    let length = match listxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The overlay's own marks say nothing outside of it.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        value.resize(LARGEST_ATTRIBUTE, 0);
        let length = getxattr(from, &name, &mut value[..])?;
        match setxattr(to, &name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::lchown;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{RenameFlags, renameat_with};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    #[test]
    fn an_empty_volume_takes_content_owner_mode_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        let source = root.join("var/data");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(source.join("sub/file"), "content").unwrap();
        fs::hard_link(source.join("sub/file"), source.join("twin")).unwrap();
        std::os::unix::fs::symlink("sub/file", source.join("link")).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o750)).unwrap();
        lchown(&source, Some(12), Some(34)).unwrap();

        fill_from_image(&root, "/var/data", &volume).unwrap();
        let metadata = fs::metadata(&volume).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12, 34, 0o750));
        assert_eq!(fs::read_to_string(volume.join("link")).unwrap(), "content");
        assert_eq!(fs::metadata(volume.join("twin")).unwrap().nlink(), 2);

        fs::write(source.join("later"), "").unwrap();
        fill_from_image(&root, "/var/data", &volume).unwrap();
        assert!(!volume.join("later").exists(), "a volume that holds something is left alone");
    }

    #[test]
    fn what_was_half_filled_is_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::write(root.join("data/sub/file"), "content").unwrap();
        fs::write(root.join("data/other"), "other").unwrap();
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(volume.join("sub/file"), "con").unwrap();
        fill_from_image(&root, "/data", &volume).unwrap();
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "con", "it is a user's");
        fs::write(dir.path().join(MARK), "").unwrap();
        fill_from_image(&root, "/data", &volume).unwrap();
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "content");
        assert_eq!(fs::read_to_string(volume.join("other")).unwrap(), "other");
        assert!(!dir.path().join(MARK).exists());
    }

    #[test]
    fn a_link_in_the_image_does_not_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir(&volume).unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("data")).unwrap();
        fill_from_image(&root, "/data", &volume).unwrap();
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_that_is_moved_about_meanwhile_takes_nothing_out_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("root/data/sub")).unwrap();
        for number in 0..500 {
            fs::write(path(&format!("root/data/sub/{number}")), "content").unwrap();
        }
        fs::create_dir(path("outside")).unwrap();
        let volume = path("volume");
        let (sub, link) = (volume.join("sub"), path("link"));
        std::os::unix::fs::symlink(path("outside"), &link).unwrap();
        let swap = || renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE);
        let over = AtomicBool::new(false);
        for _ in 0..8 {
            fs::create_dir(&volume).unwrap();
            over.store(false, Ordering::Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let is_over = || over.load(Ordering::Relaxed);
                    let begun = || fs::read_dir(&sub).is_ok_and(|mut found| found.next().is_some());
                    while !is_over() && !begun() {}
                    while !is_over() {
                        swap().and_then(|()| swap()).unwrap();
                    }
                });
                // It may find a link where it has made a directory, and say so.
                let (from, to) = (File::open(path("root/data")), File::open(&volume));
                let copier =
                    Copier { from: from.unwrap(), to: to.unwrap(), linked: HashMap::new() };
                let _ = copier.copy();
                over.store(true, Ordering::Relaxed);
            });
            assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 0);
            fs::remove_dir_all(&volume).unwrap();
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_descriptors_go_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        let deep = vec!["d"; 500].join("/");
        fs::create_dir_all(root.join("data").join(&deep)).unwrap();
        fs::write(root.join("data").join(&deep).join("file"), "content").unwrap();
        fs::create_dir(&volume).unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
        let filled = fill_from_image(&root, "/data", &volume);
        setrlimit(Resource::Nofile, before).unwrap();
        filled.unwrap();
        assert_eq!(fs::read_to_string(volume.join(deep).join("file")).unwrap(), "content");
    }

    #[test]
    fn nodes_and_links_keep_what_they_are_and_whose() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        let source = root.join("data");
        fs::create_dir_all(&source).unwrap();
        fs::create_dir(&volume).unwrap();
        let zero = rustix::fs::makedev(1, 5);
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, source.join("node"), FileType::CharacterDevice, mode, zero).unwrap();
        mknodat(CWD, source.join("pipe"), FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
        fs::hard_link(source.join("link"), source.join("twin")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap());
        setxattr(source.join("pipe"), "trusted.kept", b"value", XattrFlags::empty()).unwrap();
        for name in ["node", "pipe", "link"] {
            lchown(source.join(name), Some(12), Some(34)).unwrap();
        }
        fill_from_image(&root, "/data", &volume).unwrap();
        let of = |name: &str| fs::symlink_metadata(volume.join(name)).unwrap();
        for name in ["node", "pipe", "link"] {
            let (made, asked) = (of(name), fs::symlink_metadata(source.join(name)).unwrap());
            let all = |of: &Metadata| (of.mode(), of.uid(), of.gid(), of.rdev(), of.mtime_nsec());
            assert_eq!(all(&made), all(&asked), "{name}");
        }
        assert_eq!((of("twin").ino(), of("twin").nlink()), (of("link").ino(), 2));
        assert!(!volume.join("socket").exists());
        let mut value = [0; 5];
        getxattr(volume.join("pipe"), "trusted.kept", &mut value[..]).unwrap();
        assert_eq!(&value, b"value");
    }
}
