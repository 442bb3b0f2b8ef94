//! Sure bytes of a long download: what came is synced from time to time, so that a power cut costs the
//! last moments of it and not all.
//!
//! A layer that comes fast is never synced on its way: the sync of its commit is the only one.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::store::inner::Inner;

/// When a download was made sure last.
pub(crate) struct Settling {
    inner: Arc<Inner>,
    /// What says after a power cut that the bytes are wanted.
    note: PathBuf,
    last: Instant,
    is_noted: bool,
}

impl Settling {
    pub(crate) fn new(inner: Arc<Inner>, note: PathBuf) -> Self {
        Self { inner, note, last: Instant::now(), is_noted: false }
    }

    /// Syncs what is in `file` if that was long ago.
    pub(crate) fn look(&mut self, file: &File) -> io::Result<()> {
        if self.last.elapsed() < self.inner.options.settle {
            return Ok(());
        }
        let ledger = &self.inner.ledger;
        if !self.is_noted {
            match File::open(&self.note) {
                Ok(note) => ledger.sync_file(&note)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            for directory in ["pending", "partial"] {
                ledger.sync_directory(&self.inner.sub(directory))?;
            }
            self.is_noted = true;
        }
        ledger.sync_file(file)?;
        self.last = Instant::now();
        Ok(())
    }
}
