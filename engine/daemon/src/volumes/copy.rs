//! Copies a directory tree with owners, modes, times, links, devices and extended attributes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

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
    let root = rustix::fs::open(
        rootfs,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // A link in the image leads to a place in the image, never out of it.
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let relative = target.trim_start_matches('/');
    let source = match rustix::fs::openat2(&root, relative, flags, Mode::empty(), inside) {
        Ok(source) => source,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let source = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
    if fs::read_dir(&source)?.next().is_none() {
        return Copier::default().directory(&source, volume);
    }
    File::create(&mark)?;
    Copier::default().directory(&source, volume)?;
    // The mark must not be gone from the disk before the content is there.
    rustix::fs::syncfs(File::open(volume)?)?;
    fs::remove_file(&mark)?;
    // Nor may it come back after a power cut: the next container would fill over what this one writes.
    File::open(mark.parent().unwrap_or(volume))?.sync_all()
}

/// Name of the mark.
const MARK: &str = ".filling";

#[derive(Default)]
struct Copier {
    /// Files with several links: where the first of them went.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn directory(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            self.entry(&entry.path(), &to.join(entry.file_name()))?;
        }
        finish(from, to, &fs::symlink_metadata(from)?)
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(from)?;
        let kind = metadata.file_type();
        let found = fs::symlink_metadata(to);
        if kind.is_dir() {
            if !found.is_ok_and(|found| found.is_dir()) {
                fs::create_dir(to)?;
            }
            return self.directory(from, to);
        }
        if found.is_ok() {
            fs::remove_file(to)?;
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&key) {
                return fs::hard_link(first, to);
            }
            self.linked.insert(key, to.to_owned());
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
            lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
            return set_times(to, &metadata);
        }
        if kind.is_file() {
            io::copy(&mut File::open(from)?, &mut File::create(to)?)?;
        } else {
            let node = match () {
                () if kind.is_char_device() => FileType::CharacterDevice,
                () if kind.is_block_device() => FileType::BlockDevice,
                () if kind.is_fifo() => FileType::Fifo,
                // A socket belongs to the process that listens on it.
                () => return Ok(()),
            };
            rustix::fs::mknodat(CWD, to, node, Mode::from_raw_mode(0o600), metadata.rdev())?;
        }
        finish(from, to, &metadata)
    }
}

fn finish(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    copy_attributes(from, to)?;
    set_times(to, metadata)
}

fn set_times(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() as _ },
        last_modification: Timespec {
            tv_sec: metadata.mtime(),
            tv_nsec: metadata.mtime_nsec() as _,
        },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Largest list of names or value that is copied, bytes: the kernel's own limit.
const LARGEST_ATTRIBUTE: usize = 64 * 1024;

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; LARGEST_ATTRIBUTE];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
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
        let length = rustix::fs::lgetxattr(from, &name, &mut value[..])?;
        let set =
            rustix::fs::lsetxattr(to, &name, &value[..length], rustix::fs::XattrFlags::empty());
        match set {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
