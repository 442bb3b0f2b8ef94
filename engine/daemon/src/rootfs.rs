//! A container's root file system: an overlay of its image's layers and a directory of its own.
//!
//! When the last mount of an overlay goes, the kernel first writes out everything that the file system
//! below has not written yet, whoever wrote it, and the caller waits. A *volatile* overlay is spared that,
//! and so are the programs in it that ask for their files to be on disk: right for what is thrown away
//! when the machine goes down, and for nothing else. For the rest see [`crate::containers::unmount`].

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{Error, Result};

/// A setting of overlayfs.
type Setting = (&'static str, &'static str);

/// What overlayfs does by default on some kernels, and must not do here. The first two note what a
/// container renames, or gives another mode, in ways that no layer can say; with an index, what was
/// unmounted while in use cannot be mounted again. All kernels since 4.19 know them, and this engine takes
/// Linux 5.6.
const OFF: [Setting; 3] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")];

/// An overlay to be mounted. The directories must exist.
pub(crate) struct Overlay<'a> {
    /// Top first.
    pub(crate) lower: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) target: &'a Path,
    /// What is written need not survive the machine.
    pub(crate) volatile: bool,
}

impl Overlay<'_> {
    /// Mounts it.
    pub(crate) fn mount(&self) -> std::result::Result<(), Errno> {
        self.mount_with(&OFF).or_else(|error| match error {
            // With the privileges of a user namespace the first is off, and must not be named.
            Errno::PERM => self.mount_with(&OFF[1..]),
            other => Err(other),
        })
    }

    fn mount_with(&self, settings: &[Setting]) -> std::result::Result<(), Errno> {
        mount_by_descriptor(self, settings).or_else(|error| match error {
            // Kernels before 6.7 do not take layers one by one.
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                mount_by_text(self, settings, self.volatile).or_else(|error| match error {
                    // Kernels before 5.10 know no volatile overlays.
                    Errno::INVAL if self.volatile => mount_by_text(self, settings, false),
                    other => Err(other),
                })
            }
            other => Err(other),
        })
    }

    /// Removes the kernel's mark that an earlier volatile mount may have lost something, which keeps it
    /// from being mounted again. It has lost nothing: whoever mounts volatile throws all away after a crash
    /// of the machine.
    pub(crate) fn forget_earlier(&self) {
        if self.volatile {
            let _ = std::fs::remove_dir_all(self.work.join("work/incompat"));
        }
    }

    /// Mounts it, and says which one could not be.
    pub(crate) fn mount_at_target(&self) -> Result<()> {
        self.forget_earlier();
        let doing = Error::file("mounting the overlay", self.target);
        self.mount().map_err(|error| doing(error.into()))
    }
}

fn mount_by_descriptor(
    overlay: &Overlay<'_>,
    settings: &[Setting],
) -> std::result::Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in overlay.lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, "upperdir", overlay.upper)?;
    fsconfig_set_string(&context, "workdir", overlay.work)?;
    if overlay.volatile {
        fsconfig_set_flag(&context, "volatile")?;
    }
    for (name, value) in settings {
        fsconfig_set_string(&context, *name, *value)?;
    }
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mount, "", CWD, overlay.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn mount_by_text(
    overlay: &Overlay<'_>,
    settings: &[Setting],
    volatile: bool,
) -> std::result::Result<(), Errno> {
    let page = rustix::param::page_size();
    let mut open = Vec::new();
    let options = match options(overlay, overlay.lower, settings, volatile, page) {
        Err(Errno::TOOBIG) => {
            open = open_layers(overlay.lower)?;
            options(overlay, &names_of(&open), settings, volatile, page)?
        }
        options => options?,
    };
    let mounted = rustix::mount::mount(
        "overlay",
        overlay.target,
        "overlay",
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    );
    // The names of the layers were good for as long as they were open.
    drop(open);
    mounted
}

fn open_layers(layers: &[PathBuf]) -> std::result::Result<Vec<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    layers.iter().map(|layer| rustix::fs::open(layer, flags, Mode::empty())).collect()
}

/// What the kernel finds open layers by. Layers' own paths are about a hundred bytes each, of which a page
/// holds forty; of these it holds two hundred.
fn names_of(open: &[OwnedFd]) -> Vec<PathBuf> {
    open.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()).into()).collect()
}

/// The options as text. The kernel takes a page of it and drops the rest, which might be the upper
/// directory: too much is an error.
fn options(
    overlay: &Overlay<'_>,
    lower: &[PathBuf],
    settings: &[Setting],
    volatile: bool,
    page: usize,
) -> std::result::Result<CString, Errno> {
    let mut options = b"lowerdir=".to_vec();
    for (index, layer) in lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend_from_slice(layer.as_os_str().as_bytes());
    }
    for (name, path) in [(",upperdir=", overlay.upper), (",workdir=", overlay.work)] {
        options.extend_from_slice(name.as_bytes());
        options.extend_from_slice(path.as_os_str().as_bytes());
    }
    if volatile {
        options.extend_from_slice(b",volatile");
    }
    for (name, value) in settings {
        options.extend_from_slice(format!(",{name}={value}").as_bytes());
    }
    if options.len() >= page {
        return Err(Errno::TOOBIG);
    }
    CString::new(options).map_err(|_| Errno::INVAL)
}

/// What is at a path inside a tree, open by name alone. What is in there was put there by containers: no
/// link of theirs leads out of it.
pub(crate) fn open_inside(root: &Path, path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?)
}

/// The host's path of what is at a path inside a tree. It is right until somebody moves it.
pub(crate) fn inside(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let found = open_inside(root, path)?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Unmounts whatever is at `target`; nothing there is fine. A mount that is in use goes when its last
/// user goes.
pub(crate) fn unmount_all(target: &Path) -> Result<()> {
    // A crash between mount and record can have left more than one on top of another.
    for _ in 0..16 {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::file("unmounting", target)(error.into())),
        }
    }
    Ok(())
}

/// Whether something is mounted at `target`.
pub(crate) fn is_mounted(target: &Path) -> bool {
    let found = statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    // Kernels that do not say it (before 5.8) are asked by trying.
    found.is_ok_and(|found| {
        !found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            || found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// Mount points at or below `directory`, deepest first.
pub(crate) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(directory))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    found
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories for an overlay.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            for name in ["lower", "upper", "work", "target"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            Place(dir)
        }

        fn with<T>(&self, work: impl FnOnce(&Overlay<'_>) -> T) -> T {
            let path = |name: &str| self.0.path().join(name);
            let (upper, target) = (path("upper"), path("target"));
            let (lower, work_dir) = ([path("lower")], path("work"));
            work(&Overlay {
                lower: &lower,
                upper: &upper,
                work: &work_dir,
                target: &target,
                volatile: false,
            })
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = unmount_all(&self.0.path().join("target"));
        }
    }

    /// What a setting is cannot be read where it is the kernel's default too. But what contradicts it is
    /// then refused, and otherwise not: the kernel decides by what was said, not by its defaults.
    #[test]
    fn overlays_say_that_no_renames_are_noted_and_nothing_is_indexed() {
        type Way = fn(&Overlay<'_>, &[Setting]) -> std::result::Result<(), Errno>;
        let by_text: Way = |overlay, settings| mount_by_text(overlay, settings, false);
        let ways: [Way; 2] = [mount_by_descriptor, by_text];
        for mount in ways {
            for against in [("metacopy", "on"), ("nfs_export", "on")] {
                let place = Place::new();
                let said = [&OFF[..], &[against]].concat();
                assert_eq!(place.with(|overlay| mount(overlay, &said)), Err(Errno::INVAL));
                assert_eq!(place.with(|overlay| mount(overlay, &[against])), Ok(()), "{against:?}");
            }
            let place = Place::new();
            assert_eq!(place.with(|overlay| mount(overlay, &OFF)), Ok(()));
        }
    }

    #[test]
    fn text_that_the_kernel_would_cut_off_is_not_given_to_it() {
        let place = Place::new();
        let text = |page| place.with(|overlay| options(overlay, overlay.lower, &OFF, true, page));
        let whole = text(4096).unwrap().into_string().unwrap();
        let end = "/work,volatile,redirect_dir=off,metacopy=off,index=off";
        assert!(whole.ends_with(end), "{whole}");
        assert!(text(whole.len() + 1).is_ok());
        assert_eq!(text(whole.len()), Err(Errno::TOOBIG));
    }

    /// The names that layers have in a store, and as many as an image may have.
    #[test]
    fn kernels_that_take_text_alone_take_as_many_layers() {
        let place = Place::new();
        let lower: Vec<PathBuf> = (0..125)
            .map(|n| place.0.path().join(format!("images/layers/{n:064x}/fs")))
            .inspect(|layer| std::fs::create_dir_all(layer).unwrap())
            .collect();
        std::fs::write(lower[0].join("top"), "").unwrap();
        std::fs::write(lower[124].join("bottom"), "").unwrap();
        let mounted = place.with(|overlay| {
            let overlay = Overlay { lower: &lower, ..*overlay };
            mount_by_text(&overlay, &OFF, false)
        });
        assert_eq!(mounted, Ok(()));
        for name in ["top", "bottom"] {
            assert!(place.0.path().join("target").join(name).exists(), "{name}");
        }
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/plain\9"), r"/plain\9");
    }
}
