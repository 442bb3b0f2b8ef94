//! Opening a store: what a crash left is taken over or put on the way out, before anything is shown.
//!
//! Renames are done at once, deleting goes on in a thread of its own, so that a large leftover does not
//! keep the engine from answering.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use minke_common_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::config::ImageConfig;
use crate::durable::Ledger;
use crate::error::Error;
use crate::ids::{DiffId, ImageId};
use crate::layer::{MANIFEST, Manifest};
use crate::options::Options;
use crate::store::commit::boot_id;
use crate::store::index::{Found, Index};
use crate::store::info::LayerInfo;
use crate::store::inner::{Inner, LayerState, State};
use crate::store::pending::Pending;

const VERSION: u32 = 1;
const DIRECTORIES: [&str; 8] =
    ["images", "layers", "blobs", "partial", "pending", "staging", "trash", REPLACED];
/// Holds what was damaged and in use when it was fetched again, by boot.
pub(crate) const REPLACED: &str = "replaced";
/// Name of the mark that a damaged layer carries until it is pulled again.
pub(crate) const BROKEN: &str = "broken";
/// The largest configuration read back, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Opens or makes the store in `dir`. Blocking.
pub(crate) fn open(dir: PathBuf, options: Options) -> Result<Arc<Inner>, Error> {
    for name in std::iter::once("").chain(DIRECTORIES) {
        let path = dir.join(name);
        fs::create_dir_all(&path).map_err(|error| Error::io("creating", &path, error))?;
    }
    // Views hold set-user-id programs of strangers: nobody but root may reach them.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
        .map_err(|error| Error::io("closing off", &dir, error))?;
    let lock = lock(&dir)?;
    let index = load_index(&dir)?;
    check_version(&dir)?;
    let mut state = State { index, ..State::default() };
    let inner_dir = dir.clone();
    load_configs(&dir, &mut state)?;
    let inner = Inner::new(inner_dir, options, lock, State::default());
    let pending = Pending::load_all(&inner)?;
    adopt_staged(&inner)?;
    let mut trash = Vec::new();
    let kept: HashSet<DiffId> = pending.iter().flat_map(|pending| pending.layers.clone()).collect();
    load_layers(&inner, &mut state, &kept, &mut trash)?;
    drop_lost(&mut state);
    for path in list(&inner.sub("staging"))? {
        trash.push(inner.trash(&path)?);
    }
    remove_strays(&inner, &state, &pending)?;
    for path in list(&inner.sub(REPLACED))? {
        // Nothing that an earlier boot ran runs now.
        if path.file_name() != Some(boot_id().as_ref()) {
            trash.push(inner.trash(&path)?);
        }
    }
    trash.extend(list(&inner.sub("trash"))?);
    *inner.state() = state;
    let inner = Arc::new(inner);
    sweep(&inner, trash);
    Ok(inner)
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Error::io("opening", &path, error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::Locked(dir.to_owned()))?;
    Ok(file)
}

/// Another version is left alone. That it is one shows in the index too, which has a checksum: a version
/// file that says something else than an index of ours is damaged, and written again.
fn check_version(dir: &Path) -> Result<(), Error> {
    if is_our_version(dir) {
        return Ok(());
    }
    let path = dir.join("version");
    match fs::read(&path) {
        Ok(found) if !found.is_empty() && !matches!(Index::load(dir), Ok(Found::Good(_))) => {
            let found = String::from_utf8_lossy(&found).trim().chars().take(60).collect();
            Err(Error::Version { path: dir.to_owned(), found, known: VERSION })
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("reading", &path, error))
        }
        Ok(_) | Err(_) => write_version(dir),
    }
}

fn version_text() -> String {
    format!("minke-images {VERSION}\n")
}

/// Whether the version file says what this program writes.
pub(crate) fn is_our_version(dir: &Path) -> bool {
    fs::read(dir.join("version")).is_ok_and(|found| found == version_text().as_bytes())
}

/// Writes the version file again.
pub(crate) fn write_version(dir: &Path) -> Result<(), Error> {
    let written = Ledger::default().replace(&dir.join("version"), version_text().as_bytes());
    written.map_err(|error| Error::io("writing", dir.join("version"), error))
}

fn load_index(dir: &Path) -> Result<Index, Error> {
    let found = Index::load(dir).map_err(|error| Error::io("reading", dir.join("index"), error))?;
    Ok(match found {
        Found::Good(index) => index,
        Found::Nothing => Index::default(),
        // What the last change brought is found without its names.
        Found::Older(index) => with_configs(index, dir)?,
        Found::Damaged => {
            let index = with_configs(Index::default(), dir)?;
            tracing::warn!(images = index.images.len(), "names of images were lost with the index");
            index
        }
    })
}

/// Adds the images whose configurations are here.
fn with_configs(mut index: Index, dir: &Path) -> Result<Index, Error> {
    for path in list(&dir.join("images"))? {
        if let Some(digest) = named_digest(&path) {
            index.images.entry(ImageId(digest)).or_default();
        }
    }
    Ok(index)
}

/// Images whose configuration is missing or altered are not shown until it is fetched again.
fn load_configs(dir: &Path, state: &mut State) -> Result<(), Error> {
    let ids: Vec<ImageId> = state.index.images.keys().copied().collect();
    for id in ids {
        match read_config(&dir.join("images").join(id.hex()), &id) {
            Ok((_, config)) => {
                if let Some(record) = state.index.images.get_mut(&id) {
                    record.layers.clone_from(&config.rootfs.diff_ids);
                }
                state.configs.insert(id, Arc::new(config));
            }
            Err(error) => tracing::warn!(%id, %error, "an image's configuration is damaged"),
        }
    }
    Ok(())
}

/// A configuration from disk, its digest checked.
pub(crate) fn read_config(path: &Path, id: &ImageId) -> io::Result<(Vec<u8>, ImageConfig)> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_CONFIG).read_to_end(&mut bytes)?;
    if Digest::of(&bytes) != id.0 {
        return Err(io::Error::other("its digest differs"));
    }
    let config = serde_json::from_slice(&bytes)?;
    Ok((bytes, config))
}

fn load_layers(
    inner: &Inner,
    state: &mut State,
    kept: &HashSet<DiffId>,
    trash: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let needed = state.needed_layers();
    for path in list(&inner.sub("layers"))? {
        let layer = named_digest(&path).map(DiffId);
        let Some(layer) = layer.filter(|id| needed.contains(id) || kept.contains(id)) else {
            trash.push(inner.trash(&path)?);
            continue;
        };
        let info = LayerInfo::load(&path).ok().or_else(|| remade_info(&path));
        let broken = info.is_none() || path.join(BROKEN).exists();
        let info = info.unwrap_or_else(LayerInfo::unknown);
        state.layers.insert(layer, LayerState { info, broken });
    }
    Ok(())
}

/// The note of a layer can be made again from its manifest.
fn remade_info(layer: &Path) -> Option<LayerInfo> {
    let info = LayerInfo::of(Manifest::open(&layer.join(MANIFEST)).ok()?.footer());
    if let Err(error) = info.save(layer) {
        tracing::warn!(path = %layer.display(), %error, "writing a layer's note again");
    }
    Some(info)
}

/// Layers that were complete when the process died, on a machine that has not: `commit` says how.
fn adopt_staged(inner: &Inner) -> Result<(), Error> {
    for mark in list(&inner.sub("staging"))? {
        let is_mark = mark.extension().is_some_and(|extension| extension == "complete");
        if !is_mark {
            continue;
        }
        if let Some(layer) = crate::store::commit::marked(&mark) {
            let staged = mark.with_extension("");
            let to = inner.layer_dir(&layer);
            if staged.is_dir() && !to.exists() && Manifest::open(&staged.join(MANIFEST)).is_ok() {
                let failed = |error| Error::io("taking over", &staged, error);
                inner.ledger.sync_filesystem(&staged).map_err(failed)?;
                fs::rename(&staged, &to).map_err(failed)?;
                inner.ledger.sync_directory(&inner.sub("layers")).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Images that nobody can name and of which something is gone can neither be found nor pulled again.
fn drop_lost(state: &mut State) {
    let lost: Vec<ImageId> = state
        .index
        .images
        .iter()
        .filter(|(id, _)| !state.has_names(id))
        .filter(|(id, _)| {
            let gone = |layer| !state.layers.contains_key(layer);
            !state.configs.contains_key(id) || state.layers_of(id).iter().any(gone)
        })
        .map(|(id, _)| *id)
        .collect();
    for id in lost {
        tracing::warn!(%id, "an image without a name is incomplete and given up");
        state.index.images.remove(&id);
        state.configs.remove(&id);
    }
}

fn remove_strays(inner: &Inner, state: &State, pending: &[Pending]) -> Result<(), Error> {
    let known = |digest: &Digest| state.index.images.contains_key(&ImageId(*digest));
    remove_unless(&inner.sub("images"), |digest| known(digest))?;
    let blobs: HashSet<Digest> = state
        .layers
        .values()
        .flat_map(|layer| layer.info.blobs.iter().map(|blob| blob.digest))
        .collect();
    remove_unless(&inner.sub("blobs"), |digest| blobs.contains(digest))?;
    let partial: HashSet<Digest> =
        pending.iter().flat_map(|pending| pending.blobs.clone()).collect();
    remove_unless(&inner.sub("partial"), |digest| partial.contains(digest))
}

pub(crate) fn remove_unless(directory: &Path, keep: impl Fn(&Digest) -> bool) -> Result<(), Error> {
    for path in list(directory)? {
        if !named_digest(&path).is_some_and(|digest| keep(&digest)) {
            fs::remove_file(&path).map_err(|error| Error::io("removing", &path, error))?;
        }
    }
    Ok(())
}

fn sweep(inner: &Arc<Inner>, trash: Vec<PathBuf>) {
    if trash.is_empty() {
        return;
    }
    let delete = move || {
        for path in trash {
            if let Err(error) = crate::store::inner::remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "deleting what a crash left");
            }
        }
    };
    let thread = std::thread::Builder::new().name("images-sweep".to_owned()).spawn(delete);
    match thread {
        Ok(thread) => {
            *inner.sweeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(thread);
        }
        Err(error) => tracing::warn!(%error, "what a crash left is deleted at the next open"),
    }
}

/// The entries of a directory, sorted.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io("listing", directory, error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// The digest that a file or directory is named after.
pub(crate) fn named_digest(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?).ok()
}

/// Whether a file is older than `age`.
pub(crate) fn is_older(path: &Path, age: std::time::Duration) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    let passed = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    passed.is_some_and(|passed| passed > age)
}
