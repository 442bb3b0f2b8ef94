//! Which image is where on a device: rows there are, what is reported, and the changes between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::rows;

/// An image on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) image: i64,
    pub(super) release: i64,
    pub(super) status: String,
    pub(super) progress: Option<i64>,
}

impl Install {
    /// The columns that change during its life.
    pub(super) fn columns(&self) -> Map<String, Value> {
        Map::from_iter([
            ("is_provided_by__release".to_owned(), json!(self.release)),
            ("status".to_owned(), json!(self.status)),
            ("download_progress".to_owned(), json!(self.progress)),
        ])
    }
}

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Create(Install),
    Update(i64, Install),
    Gone(i64),
}

const STATUS: [&str; 20] = [
    "Stopping",
    "Stopped",
    "Downloading",
    "Downloaded",
    "Installing",
    "Installed",
    "Starting",
    "Running",
    "Idle",
    "Handing over",
    "Awaiting handover",
    "Deleting",
    "deleted",
    "Dead",
    "paused",
    "restarting",
    "removing",
    "exited",
    "configuring",
    "Unknown",
];

/// The word as rows may hold it.
pub(super) fn known_status(word: &str) -> String {
    let known = STATUS.iter().find(|known| known.eq_ignore_ascii_case(word));
    (*known.unwrap_or(&"Unknown")).to_owned()
}

/// The rows by their numbers.
pub(super) fn read(rows: Vec<Value>) -> Result<BTreeMap<i64, Install>, ApiError> {
    rows.iter()
        .map(|row| {
            let broken = || ApiError::internal("reading image installs", row.to_string());
            let install = Install {
                image: rows::target(row, "installs__image").ok_or_else(broken)?,
                release: rows::target(row, "is_provided_by__release").ok_or_else(broken)?,
                status: rows::text(row, "status").to_owned(),
                progress: rows::number(row, "download_progress"),
            };
            Ok((rows::number(row, "id").ok_or_else(broken)?, install))
        })
        .collect()
}

/// The changes that bring the rows to what is reported. Where an image is reported twice (two
/// releases share it) the last one counts.
pub(super) fn plan(existing: &BTreeMap<i64, Install>, reported: &[Install]) -> Vec<Change> {
    let wanted: BTreeMap<i64, &Install> =
        reported.iter().map(|install| (install.image, install)).collect();
    let mut changes = Vec::new();
    let mut present = BTreeSet::new();
    for (id, row) in existing {
        match wanted.get(&row.image) {
            // A second row of the same image is none that a device still has.
            Some(install) if present.insert(row.image) => {
                if *install != row {
                    changes.push(Change::Update(*id, (*install).clone()));
                }
            }
            _ if row.status != "deleted" => changes.push(Change::Gone(*id)),
            _ => {}
        }
    }
    changes.extend(
        wanted
            .into_iter()
            .filter(|(image, _)| !present.contains(image))
            .map(|(_, install)| Change::Create(install.clone())),
    );
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(image: i64, status: &str) -> Install {
        Install { image, release: 1, status: status.to_owned(), progress: None }
    }

    #[test]
    fn a_plan_changes_only_what_differs() {
        let existing = BTreeMap::from([
            (1, install(10, "Running")),
            (2, install(11, "Running")),
            (3, install(12, "Running")),
            (4, install(13, "deleted")),
        ]);
        let reported = [install(10, "Running"), install(11, "exited"), install(14, "Downloading")];
        assert_eq!(
            plan(&existing, &reported),
            [
                Change::Update(2, install(11, "exited")),
                Change::Gone(3),
                Change::Create(install(14, "Downloading")),
            ]
        );
        assert_eq!(plan(&BTreeMap::from([(1, install(10, "Running"))]), &reported[..1]), []);
    }

    #[test]
    fn words_of_engines_are_known_in_any_case() {
        assert_eq!(known_status("running"), "Running");
        assert_eq!(known_status("Exited"), "exited");
        assert_eq!(known_status("gibberish"), "Unknown");
    }
}
