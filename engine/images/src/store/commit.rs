//! From a staged directory to a layer: one sync, one rename.
//!
//! Before the sync a *mark* says that the staged layer is whole; it names the boot. If only the process
//! dies, the next one takes the layer over; after a power cut the mark means nothing, because what it
//! stands for may not have reached the disk.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::Error;
use crate::ids::DiffId;
use crate::layer::Footer;
use crate::store::checked;
use crate::store::info::{BlobInfo, LayerInfo};
use crate::store::inner::{Inner, LayerState, Staging};
use crate::store::open::{BROKEN, REPLACED};

impl Inner {
    /// Makes the unpacked layer in `staging` part of the store. Blocking.
    ///
    /// `whole` is called when the layer is marked and before the sync: what it deletes is never written.
    pub(crate) fn commit(
        &self,
        staging: Staging,
        footer: &Footer,
        blob: Option<&BlobInfo>,
        whole: impl FnOnce() -> io::Result<()>,
    ) -> Result<DiffId, Error> {
        let layer = footer.diff_id;
        let failed = |error| Error::io("committing layer", staging.path.clone(), error);
        let mut info = LayerInfo::of(footer);
        if let Some(blob) = blob {
            info.remember(blob);
        }
        // Every byte of it was hashed on its way to the disk.
        info.checked = checked::now(&staging.path);
        info.save(&staging.path).map_err(failed)?;
        let mark = mark_path(&staging.path);
        fs::write(&mark, format!("{} {layer}\n", boot_id())).map_err(failed)?;
        let result = whole()
            .and_then(|()| self.ledger.sync_filesystem(&staging.path))
            .and_then(|()| self.put_in_place(&staging.path, &layer));
        let _ = fs::remove_file(&mark);
        result.map_err(failed)?;
        self.ledger.wrote(footer.content_bytes);
        self.state().layers.insert(layer, LayerState { info, broken: false });
        Ok(layer)
    }

    /// A damaged layer in the way is exchanged. What runs on it keeps the old view, until the next boot:
    /// files that go from under an overlay are gone in the container too.
    fn put_in_place(&self, staged: &Path, layer: &DiffId) -> io::Result<()> {
        let to = self.layer_dir(layer);
        let places = self.places();
        match renameat_with(CWD, staged, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                renameat_with(CWD, staged, CWD, &to, RenameFlags::EXCHANGE)?;
                if self.state().runs_on(layer) {
                    let of_boot = format!("{REPLACED}/{}", boot_id());
                    fs::create_dir_all(self.sub(&of_boot))?;
                    fs::rename(staged, self.new_name(&of_boot))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        drop(places);
        self.ledger.sync_directory(&self.sub("layers"))
    }

    /// Takes a layer for damaged until it is pulled again. Blocking.
    pub(crate) fn mark_broken(&self, layer: &DiffId) -> Result<(), Error> {
        if let Some(known) = self.state().layers.get_mut(layer) {
            known.broken = true;
        }
        let path = self.layer_dir(layer).join(BROKEN);
        fs::write(&path, b"")
            .and_then(|()| self.ledger.sync_directory(&self.layer_dir(layer)))
            .map_err(|error| Error::io("marking", &path, error))
    }

    /// Notes where a compressed form of a layer that is here already was seen. Blocking.
    pub(crate) fn remember_blob(&self, layer: &DiffId, blob: &BlobInfo) {
        let info = {
            let mut state = self.state();
            let Some(known) = state.layers.get_mut(layer) else { return };
            if !known.info.remember(blob) {
                return;
            }
            known.info.clone()
        };
        if let Err(error) = info.save(&self.layer_dir(layer)) {
            tracing::debug!(%layer, %error, "where a layer came from is forgotten at the next start");
        }
    }
}

fn mark_path(staged: &Path) -> PathBuf {
    staged.with_extension("complete")
}

/// The layer that a mark of this boot stands for.
pub(crate) fn marked(mark: &Path) -> Option<DiffId> {
    let mut line = String::new();
    BufReader::new(fs::File::open(mark).ok()?).read_line(&mut line).ok()?;
    let (boot, layer) = line.trim_end().split_once(' ')?;
    if boot == boot_id() { layer.parse().ok() } else { None }
}

/// Of the running system.
pub(crate) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
