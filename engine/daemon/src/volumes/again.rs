//! What is known of a volume whose own document is damaged or lost.
//!
//! Invariant: a volume whose content may be elsewhere never becomes a plain directory: containers would
//! write to this machine's disk what belongs on a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{ANONYMOUS, mounted};
use crate::containers::document::{ConfigDocument, MountDocument};
use crate::durable;
use crate::error::{Error, Result};

/// Labels and options.
type Known = (BTreeMap<String, String>, BTreeMap<String, String>);

/// How the containers in a directory asked for a volume.
pub(super) fn mounts_of(containers: &Path, volume: &str) -> Vec<MountDocument> {
    let mut found = Vec::new();
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        let path = entry.path().join("config.json");
        if let Ok(Some(config)) = durable::read_json::<ConfigDocument>(&path) {
            found.extend(config.mounts.into_iter().filter(|mount| mount.volume == volume));
        }
    }
    found
}

/// What can be said for certain of the volume at `path`, for which containers asked with these mounts.
pub(super) fn known(path: &Path, mounts: &[MountDocument]) -> Result<Known> {
    let remains = fs::read(path.join("volume.json")).unwrap_or_default();
    let remains = String::from_utf8_lossy(&remains).into_owned();
    let mut labels = BTreeMap::new();
    let mark = format!("\"{ANONYMOUS}\":\"\"");
    if remains.contains(&mark) || mounts.iter().any(|mount| mount.labels.contains_key(ANONYMOUS)) {
        labels.insert(ANONYMOUS.to_owned(), String::new());
    }
    // A container is not made if its volume is there with other options. If it was made for the container,
    // it has those and no others.
    let says_all = |mount: &&MountDocument| !mount.driver_options.is_empty() || mount.is_unnamed();
    if let Some(asked) = mounts.iter().find(says_all) {
        return Ok((labels, asked.driver_options.clone()));
    }
    // Quotes in a name or label are written with a backslash: this is nothing else.
    let is_plain = remains.contains("\"options\":{}") || holds_files(&path.join("_data"));
    match is_plain {
        true => Ok((labels, BTreeMap::new())),
        false => Err(Error::NotFound(
            "nobody knows its options: remove the volume, and create it again with them".to_owned(),
        )),
    }
}

/// Whether there is something in a directory itself, not in what is mounted there: only plain volumes have
/// that.
fn holds_files(data: &Path) -> bool {
    let mut entries = fs::read_dir(data).into_iter().flatten();
    !mounted::is_mounted(data) && entries.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::document::MountKind;

    fn mount(options: &[(&str, &str)]) -> MountDocument {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        MountDocument {
            driver_options: options.iter().map(pair).collect(),
            ..MountDocument::default()
        }
    }

    #[test]
    fn options_are_those_of_a_mount_or_none_for_certain() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("volume.json");
        fs::create_dir(dir.path().join("_data")).unwrap();
        fs::write(&document, r#"#"labels":{},"options":{"type":"nfs"}}"#).unwrap();
        assert!(known(dir.path(), &[mount(&[])]).is_err());
        let nfs = mount(&[("type", "nfs"), ("device", ":/x")]);
        assert_eq!(known(dir.path(), &[mount(&[]), nfs.clone()]).unwrap().1, nfs.driver_options);
        let mark = r#"#"labels":{"com.docker.volume.anonymous":""},"options":{}}"#;
        fs::write(&document, mark).unwrap();
        let (labels, options) = known(dir.path(), &[]).unwrap();
        assert!(labels.contains_key(ANONYMOUS) && options.is_empty());
        fs::write(&document, "").unwrap();
        assert!(known(dir.path(), &[]).is_err());
        let unnamed = MountDocument {
            kind: MountKind::Volume,
            unnamed: Some(true),
            ..MountDocument::default()
        };
        assert!(
            known(dir.path(), &[unnamed]).unwrap().1.is_empty(),
            "made for a mount without any"
        );
        fs::write(dir.path().join("_data/file"), "").unwrap();
        assert_eq!(known(dir.path(), &[]).unwrap(), Known::default());
    }
}
