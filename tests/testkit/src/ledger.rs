//! What has been made on the machine, on disk before it is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One thing that has to be removed again. Removing what was never made is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A process, named by its pid and the time at which it began (clock ticks after boot).
    Process { name: String, pid: i32, start: u64 },
    /// A bridge with the packet filter table of the same name.
    Bridge { name: String },
    /// A kernel setting and what it was before.
    Sysctl { path: PathBuf, before: String },
    /// A small file system over a folder.
    Disk { path: PathBuf },
    /// The data of a virtual device, whose leftovers it knows how to find.
    Device { data: PathBuf },
    /// The data of an engine, whose leftovers it knows how to find.
    Engine { data: PathBuf },
}

/// The list, in the order in which things were made.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Ledger {
    /// The list in `folder`; empty if there is none.
    pub fn open(folder: &Path) -> Result<Ledger> {
        let path = folder.join("made.json");
        let entries = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("cannot understand {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Ledger { path, entries })
    }

    /// What was made, newest first: the order in which to remove it.
    pub fn newest_first(&self) -> Vec<Entry> {
        self.entries.iter().rev().cloned().collect()
    }

    /// Writes down what is about to be made.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        self.entries.push(entry);
        self.store()
    }

    /// Strikes out what is gone.
    pub fn strike(&mut self, entry: &Entry) -> Result<()> {
        self.entries.retain(|it| it != entry);
        self.store()
    }

    fn store(&self) -> Result<()> {
        let folder = self.path.parent().context("the list has no folder")?;
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        serde_json::to_writer_pretty(&mut file, &self.entries).context("cannot write the list")?;
        file.persist(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }
}
