//! Where the four binaries are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder with `minke`, `minke-cloud`, `minke-device` and `minke-shim`.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

const NAMES: [&str; 4] = ["minke", "minke-cloud", "minke-device", "minke-shim"];

impl Binaries {
    /// The binaries in `folder`; an error names the one that is missing.
    pub fn in_folder(folder: &Path) -> Result<Binaries> {
        for name in NAMES {
            if !folder.join(name).is_file() {
                bail!(
                    "{} has no {name}; `cargo build --workspace --bins` makes it",
                    folder.display()
                );
            }
        }
        Ok(Binaries { folder: folder.to_owned() })
    }

    /// The binaries that were built together with the program that is running.
    pub fn beside_this_program() -> Result<Binaries> {
        let program = std::env::current_exe().context("cannot find the running program")?;
        let folder = program
            .ancestors()
            .skip(1)
            .find(|folder| folder.join("minke-cloud").is_file())
            .with_context(|| {
                format!(
                    "no minke-cloud beside {}; `cargo build --workspace --bins` makes it",
                    program.display()
                )
            })?;
        Binaries::in_folder(folder)
    }

    /// The binary called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
