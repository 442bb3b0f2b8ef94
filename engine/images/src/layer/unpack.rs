//! From a tar stream to a view and its manifest, in one pass.
//!
//! The stream is not trusted: names are cleaned by text, looked up beneath the view only, and nothing is
//! ever written through a name that was not just created here. An existing thing is replaced as Docker
//! does; what the manifest still needs of it moves to the directory for replaced contents.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, chownat, fchmod, ftruncate, futimens, linkat, mkdirat,
    mknodat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::ids::DiffId;
use crate::layer::beneath::Beneath;
use crate::layer::entry::{Entry, Kind, Mtime, TarReader};
use crate::layer::kept::{Hidden, Room};
use crate::layer::large::Large;
use crate::layer::manifest::{Change, Changed, Footer, MAX_CHANGES, ManifestWriter};
use crate::layer::style::{owner, set_opaque, start_writing, style, timestamps};
use crate::layer::{EXTRA, LayerError, MANIFEST, VIEW, names};
use crate::options::Limits;

/// Prefix of a name that hides something of a lower layer.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Hides everything of lower layers in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Files at least this long are sent to the disk while the rest is unpacked.
const EARLY_WRITE: u64 = 256 << 10;

/// What came out of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What the manifest's footer says.
    pub footer: Footer,
    /// Large files of the view.
    pub large: Large,
}

/// Unpacks `source` into the existing, empty directory `layer` and returns the reader for its last words.
///
/// Nothing is synced. On an error the directory holds rubbish that the caller removes.
pub fn unpack<R: Read>(
    source: R,
    layer: &Path,
    limits: &Limits,
) -> Result<(Unpacked, R), LayerError> {
    let mut unpacker = Unpacker::new(layer)?;
    let mut tar = TarReader::new(source, *limits);
    let mut raw = Vec::new();
    while let Some(entry) = tar.entry(&mut raw)? {
        unpacker.number = tar.entries();
        unpacker.raw(&mut raw)?;
        unpacker.entry(&entry, &mut tar)?;
        tar.padding(entry.size, &mut raw)?;
    }
    unpacker.raw(&mut raw)?;
    loop {
        let piece = tar.stream.piece(u64::MAX)?;
        if piece.is_empty() {
            break;
        }
        unpacker.manifest.raw(piece).map_err(manifest_error)?;
    }
    unpacker.directory_times()?;
    let entries = tar.entries();
    let (digest, tar_bytes, source) = tar.stream.finish()?;
    let footer = Footer {
        entries,
        tar_bytes,
        content_bytes: unpacker.content_bytes,
        diff_id: DiffId(digest),
        changes: unpacker.changes,
    };
    unpacker.manifest.finish(&footer).map_err(manifest_error)?;
    Ok((Unpacked { footer, large: unpacker.large }, source))
}

fn manifest_error(source: io::Error) -> LayerError {
    LayerError::Io { doing: "writing", path: MANIFEST.into(), source }
}

struct Unpacker {
    view: Beneath,
    extra: rustix::fd::OwnedFd,
    manifest: ManifestWriter,
    /// The entry being made; entries count from 1.
    number: u64,
    content_bytes: u64,
    changes: Vec<Changed>,
    change_room: Room,
    moved: u64,
    /// Directories whose times are set at the end.
    directories: Vec<(Vec<u8>, Mtime)>,
    directory_room: Room,
    hidden: Hidden,
    large: Large,
}

impl Unpacker {
    fn new(layer: &Path) -> Result<Self, LayerError> {
        let failed = |doing, name: &str| {
            let path = layer.join(name);
            move |source: io::Error| LayerError::Io { doing, path, source }
        };
        for name in [VIEW, EXTRA] {
            std::fs::create_dir(layer.join(name)).map_err(failed("creating", name))?;
        }
        let view = Beneath::open(&layer.join(VIEW))?;
        fchmod(view.root(), Mode::from_raw_mode(0o755))
            .map_err(|error| failed("creating", VIEW)(error.into()))?;
        let extra = std::fs::File::open(layer.join(EXTRA)).map_err(failed("opening", EXTRA))?;
        let manifest = ManifestWriter::create(&layer.join(MANIFEST)).map_err(manifest_error)?;
        Ok(Self {
            view,
            extra: extra.into(),
            manifest,
            number: 0,
            content_bytes: 0,
            changes: Vec::new(),
            change_room: Room::of("the bytes of all replaced names"),
            moved: 0,
            directories: Vec::new(),
            directory_room: Room::of("the bytes of all directory names"),
            hidden: Hidden::default(),
            large: Large::default(),
        })
    }

    fn raw(&mut self, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        self.manifest.raw(raw).map_err(manifest_error)?;
        raw.clear();
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        let path = names::clean(&entry.name, tar.limits())?;
        if path.is_empty() {
            self.root_entry(entry)?;
            return self.keep_raw(entry.size, tar);
        }
        let (dir, name) = names::split(&path);
        let (_, real) = self.view.directory(dir)?;
        if real != dir {
            let real = real.to_vec();
            self.change(real, Change::Through)?;
        }
        if name.starts_with(WHITEOUT) {
            self.whiteout(dir, name)?;
            return self.keep_raw(entry.size, tar);
        }
        match entry.kind {
            Kind::File => self.file(entry, dir, name, tar),
            Kind::Directory => {
                self.directory(entry, dir, name)?;
                self.keep_raw(entry.size, tar)
            }
            Kind::Symlink => self.symlink(entry, dir, name),
            Kind::Hardlink => self.hardlink(entry, dir, name, tar.limits()),
            Kind::Character | Kind::Block | Kind::Fifo => self.node(entry, dir, name),
        }
    }

    /// Contents that the view has no place for go into the manifest.
    fn keep_raw<R: Read>(&mut self, size: u64, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let piece = tar.stream.piece(left)?;
            if piece.is_empty() {
                return Err(LayerError::Truncated);
            }
            left -= piece.len() as u64;
            self.manifest.raw(piece).map_err(manifest_error)?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            return Err(LayerError::Escape(names::show(&entry.name)));
        }
        // Only the last of several entries for the root says how it looks.
        self.change(Vec::new(), Change::Restyled)?;
        style(self.view.root(), entry, b".")?;
        self.remember_time(Vec::new(), entry.mtime)
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        dir: &[u8],
        name: &[u8],
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        let path = self.clear(dir, name)?;
        let (parent, _) = self.view.directory(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let fd = openat(parent, names::to_path(name), flags | OFlags::CLOEXEC, mode)
            .map_err(|error| LayerError::io("creating", &path, error))?;
        let mut file = std::fs::File::from(fd);
        let hash =
            write_contents(&mut file, entry, tar).map_err(|error| error.into_layer_error(&path))?;
        style(file.as_fd(), entry, &path)?;
        futimens(&file, &timestamps(entry.mtime))
            .map_err(|error| LayerError::io("dating", &path, error))?;
        if entry.size >= EARLY_WRITE {
            start_writing(file.as_fd());
            self.large.add(&path);
        }
        let pieces = entry.sparse.as_ref().map(|sparse| &sparse.segments[..]);
        if entry.size > 0 {
            self.manifest
                .contents(self.number, &path, entry.size, &hash, pieces)
                .map_err(manifest_error)?;
        }
        self.content_bytes += entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_size);
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, dir: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let (parent, real) = self.view.directory(dir)?;
        let path = names::join(real, name);
        let mut fresh = true;
        match existing(parent, name, &path)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                fresh = false;
                self.change(path.clone(), Change::Restyled)?;
            }
            Some(_) => {
                self.clear(dir, name)?;
            }
            None => {}
        }
        let (parent, _) = self.view.directory(dir)?;
        if fresh {
            mkdirat(parent, names::to_path(name), Mode::from_raw_mode(0o755))
                .map_err(|error| LayerError::io("creating", &path, error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, names::to_path(name), flags, Mode::empty())
            .map_err(|error| LayerError::io("opening", &path, error))?;
        style(fd.as_fd(), entry, &path)?;
        if self.hidden.contains(&path) {
            set_opaque(fd.as_fd(), &path)?;
        }
        self.remember_time(path, entry.mtime)
    }

    fn symlink(&mut self, entry: &Entry, dir: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let path = self.clear(dir, name)?;
        let (parent, _) = self.view.directory(dir)?;
        if entry.link.is_empty() {
            return Err(LayerError::LinkTarget { path: names::show(&path), target: String::new() });
        }
        symlinkat(names::to_path(&entry.link), parent, names::to_path(name))
            .map_err(|error| LayerError::io("linking", &path, error))?;
        self.style_node(entry, dir, name, &path)
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        dir: &[u8],
        name: &[u8],
        limits: &Limits,
    ) -> Result<(), LayerError> {
        let target = names::clean(&entry.link, limits)?;
        let (target_dir, target_name) = names::split(&target);
        let wrong = || LayerError::LinkTarget {
            path: names::show(&entry.name),
            target: names::show(&entry.link),
        };
        let target_parent = self.view.lookup(target_dir).map_err(|_| wrong())?;
        let found = existing(target_parent.as_fd(), target_name, &target)?.ok_or_else(wrong)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(wrong());
        }
        let (parent, real) = self.view.directory(dir)?;
        let path = names::join(real, name);
        if let Some(stat) = existing(parent, name, &path)?
            && (stat.st_dev, stat.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        self.clear(dir, name)?;
        let (parent, _) = self.view.directory(dir)?;
        let (from, to) = (names::to_path(target_name), names::to_path(name));
        linkat(&target_parent, from, parent, to, AtFlags::empty())
            .map_err(|error| LayerError::io("linking", &path, error))
    }

    fn node(&mut self, entry: &Entry, dir: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let path = self.clear(dir, name)?;
        let (parent, _) = self.view.directory(dir)?;
        let kind = match entry.kind {
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = match entry.kind {
            Kind::Fifo => 0,
            _ => rustix::fs::makedev(entry.device.0, entry.device.1),
        };
        mknodat(parent, names::to_path(name), kind, Mode::from_raw_mode(0o600), device)
            .map_err(|error| LayerError::io("creating", &path, error))?;
        self.style_node(entry, dir, name, &path)
    }

    /// Owner, mode and time of something that cannot be opened without side effects.
    fn style_node(
        &mut self,
        entry: &Entry,
        dir: &[u8],
        name: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let (parent, _) = self.view.directory(dir)?;
        let (uid, gid) = owner(entry, path)?;
        let file = names::to_path(name);
        chownat(parent, file, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| LayerError::io("giving an owner to", path, error))?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(parent, file, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| LayerError::io("giving a mode to", path, error))?;
        }
        utimensat(parent, file, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| LayerError::io("dating", path, error))
    }

    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), LayerError> {
        if name == OPAQUE {
            let (parent, real) = self.view.directory(dir)?;
            return set_opaque(parent, real);
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.starts_with(WHITEOUT) {
            // Bookkeeping of aufs: means nothing to overlayfs.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Escape(names::show(&names::join(dir, name))));
        }
        let (parent, real) = self.view.directory(dir)?;
        let path = names::join(real, hidden);
        let found = existing(parent, hidden, &path)?;
        let is_taken = found.is_some();
        match found {
            None => {
                let mode = Mode::empty();
                mknodat(parent, names::to_path(hidden), FileType::CharacterDevice, mode, 0)
                    .map_err(|error| LayerError::io("hiding", &path, error))
            }
            // What this layer itself brings stays; only what is below it must not show through.
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let fd = openat(parent, names::to_path(hidden), flags, Mode::empty())
                    .map_err(|error| LayerError::io("opening", &path, error))?;
                set_opaque(fd.as_fd(), &path)
            }
            Some(_) => Ok(()),
        }?;
        if is_taken { self.hidden.add(path) } else { Ok(()) }
    }

    /// Makes room for `name` in `dir` and returns where it really is.
    fn clear(&mut self, dir: &[u8], name: &[u8]) -> Result<Vec<u8>, LayerError> {
        let (parent, real) = self.view.directory(dir)?;
        let path = names::join(real, name);
        let Some(stat) = existing(parent, name, &path)? else { return Ok(path) };
        let file = names::to_path(name);
        if is_whiteout(&stat) {
            self.hidden.add(path.clone())?;
        }
        let change = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Change::Moved(self.moved),
            FileType::RegularFile if stat.st_size > 0 => Change::Moved(self.moved),
            _ => Change::Gone,
        };
        match change {
            Change::Moved(number) => {
                let to = number.to_string();
                renameat(parent, file, &self.extra, &*to)
                    .map_err(|error| LayerError::io("replacing", &path, error))?;
                self.moved += 1;
                self.hidden.forget_below(&path);
            }
            _ => unlinkat(parent, file, AtFlags::empty())
                .map_err(|error| LayerError::io("replacing", &path, error))?,
        }
        self.view.forget();
        self.change(path.clone(), change)?;
        Ok(path)
    }

    fn change(&mut self, path: Vec<u8>, change: Change) -> Result<(), LayerError> {
        if self.changes.len() >= MAX_CHANGES {
            let limit = MAX_CHANGES as u64;
            return Err(LayerError::Limit { what: "the number of replaced entries", limit });
        }
        self.change_room.take(&path)?;
        self.changes.push(Changed { entry: self.number, path, change });
        Ok(())
    }

    fn remember_time(&mut self, path: Vec<u8>, mtime: Mtime) -> Result<(), LayerError> {
        self.directory_room.take(&path)?;
        self.directories.push((path, mtime));
        Ok(())
    }

    /// Directories get their times last: every file made in one would change it again.
    fn directory_times(&mut self) -> Result<(), LayerError> {
        for (path, mtime) in std::mem::take(&mut self.directories) {
            match self.view.plain(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => futimens(&fd, &timestamps(mtime))
                    .map_err(|error| LayerError::io("dating", &path, error))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(LayerError::io("dating", &path, error)),
            }
        }
        Ok(())
    }
}

enum ContentsError {
    Layer(LayerError),
    Io(io::Error),
}

impl ContentsError {
    fn into_layer_error(self, path: &[u8]) -> LayerError {
        match self {
            Self::Layer(error) => error,
            Self::Io(error) => LayerError::io("writing", path, error),
        }
    }
}

/// Copies an entry's contents to `file` and returns their BLAKE3.
fn write_contents<R: Read>(
    file: &mut std::fs::File,
    entry: &Entry,
    tar: &mut TarReader<R>,
) -> Result<[u8; 32], ContentsError> {
    use std::io::{Seek, SeekFrom};
    let mut hasher = blake3::Hasher::new();
    let whole = [(0, entry.size)];
    let segments = entry.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.segments[..]);
    for (offset, length) in segments {
        if entry.sparse.is_some() {
            file.seek(SeekFrom::Start(*offset)).map_err(ContentsError::Io)?;
        }
        let mut left = *length;
        while left > 0 {
            let piece = tar.stream.piece(left).map_err(ContentsError::Layer)?;
            if piece.is_empty() {
                return Err(ContentsError::Layer(LayerError::Truncated));
            }
            hasher.update(piece);
            left -= piece.len() as u64;
            file.write_all(piece).map_err(ContentsError::Io)?;
        }
    }
    if let Some(sparse) = &entry.sparse {
        ftruncate(&*file, sparse.real_size).map_err(|error| ContentsError::Io(error.into()))?;
    }
    Ok(*hasher.finalize().as_bytes())
}

fn existing(parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Option<Stat>, LayerError> {
    match statat(parent, names::to_path(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(LayerError::io("looking at", path, error)),
    }
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
