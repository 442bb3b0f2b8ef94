//! Damage in the documents of containers, volumes and networks.
//!
//! The image store can fetch what is damaged. A container's documents are nowhere else, but a running
//! engine knows what is in them, as in those of networks; a volume's is written again where its options are
//! known for certain.

use std::path::{Path, PathBuf};

use minke_engine_client::wire::DamagedPart;

use crate::daemon::Daemon;
use crate::durable;
use crate::error::{Error, Result};
use crate::volumes::Volumes;

/// What an engine keeps beside the images.
pub(crate) struct Kept<'a> {
    pub(crate) data: &'a Path,
    /// If it runs.
    pub(crate) daemon: Option<&'a Daemon>,
}

impl Kept<'_> {
    /// Reads every document, and writes those again that are damaged and known otherwise if asked to.
    pub(crate) async fn damaged(&self, repair: bool) -> Vec<DamagedPart> {
        let mut damaged = Vec::new();
        for (folder, names) in [
            ("containers", &["config.json", "state.json"][..]),
            ("volumes", &["volume.json"]),
            ("networks", &["network.json"]),
        ] {
            for (owner, path) in documents(&self.data.join(folder), names) {
                let read = durable::read_json::<serde_json::Value>(&path);
                let Err(error) = read else { continue };
                let repaired = match (repair, folder) {
                    (false, _) => None,
                    (true, "containers") => Some(self.write_container(&owner)),
                    (true, "volumes") => Some(self.write_volume(&owner)),
                    (true, _) => Some(self.write_network(&owner).await),
                };
                let shown = path.strip_prefix(self.data).unwrap_or(&path).display().to_string();
                damaged.push(DamagedPart {
                    part: format!("file {shown}"),
                    why: error.message(),
                    images: Vec::new(),
                    repaired: matches!(repaired, Some(Ok(()))),
                    failure: repaired.and_then(|repaired| Some(repaired.err()?.message())),
                });
            }
        }
        damaged
    }

    fn write_container(&self, id: &str) -> Result<()> {
        let known = self.daemon.and_then(|daemon| daemon.containers.find(id).ok());
        known.ok_or_else(unknown)?.write_again()
    }

    async fn write_network(&self, id: &str) -> Result<()> {
        let networks = &self.daemon.ok_or_else(unknown)?.networks;
        networks.get(id).map_err(|_| unknown())?;
        Ok(networks.write_again(id).await?)
    }

    fn write_volume(&self, name: &str) -> Result<()> {
        match self.daemon {
            Some(daemon) => daemon.volumes.write_again(name),
            None => Volumes::open(self.data)?.write_again(name),
        }
    }
}

fn unknown() -> Error {
    Error::NotFound(
        "only an engine that has run since before the damage knows what was in it".into(),
    )
}

/// The documents below a folder, with the name of what each is of.
fn documents(folder: &Path, names: &[&str]) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let owner = entry.file_name().to_string_lossy().into_owned();
        // What is on its way out has no documents any more.
        if owner.starts_with('.') {
            continue;
        }
        found.extend(names.iter().map(|name| (owner.clone(), entry.path().join(name))));
    }
    found.sort();
    found
}
