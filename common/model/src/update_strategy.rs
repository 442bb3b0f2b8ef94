//! In which order an update of a service pulls, stops and starts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::labels;

/// The order of an update's phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateStrategy {
    /// Pull first; the old container runs until the new image is here.
    #[default]
    DownloadThenKill,
    /// Stop first: needs the least memory while it pulls.
    KillThenDownload,
    /// Stop and delete the old image first: needs the least disk.
    DeleteThenDownload,
    /// Start the new container beside the old, which goes when the new one says so.
    HandOver,
}

impl UpdateStrategy {
    /// The spelling in the label `io.balena.update.strategy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            UpdateStrategy::DownloadThenKill => "download-then-kill",
            UpdateStrategy::KillThenDownload => "kill-then-download",
            UpdateStrategy::DeleteThenDownload => "delete-then-download",
            UpdateStrategy::HandOver => "hand-over",
        }
    }

    /// Reads the label's value; anything unknown is the default, as in balena.
    pub fn from_label(value: &str) -> UpdateStrategy {
        [
            UpdateStrategy::KillThenDownload,
            UpdateStrategy::DeleteThenDownload,
            UpdateStrategy::HandOver,
        ]
        .into_iter()
        .find(|strategy| strategy.as_str() == value)
        .unwrap_or_default()
    }
}

/// How one service wants to be updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateSettings {
    /// In which order.
    pub strategy: UpdateStrategy,
    /// How long a hand-over waits for the new container's word.
    pub handover_timeout: Duration,
    /// The new container starts only after a reboot.
    pub requires_reboot: bool,
}

impl Default for UpdateSettings {
    fn default() -> UpdateSettings {
        UpdateSettings {
            strategy: UpdateStrategy::default(),
            handover_timeout: Duration::from_secs(60),
            requires_reboot: false,
        }
    }
}

impl UpdateSettings {
    /// Reads `io.balena.update.*`, or the older `io.resin.update.*`.
    pub fn from_labels(all: &BTreeMap<String, String>) -> UpdateSettings {
        let defaults = UpdateSettings::default();
        UpdateSettings {
            strategy: labels::get(all, "update.strategy")
                .map_or(defaults.strategy, UpdateStrategy::from_label),
            handover_timeout: labels::get(all, "update.handover-timeout")
                .and_then(|text| text.trim().parse().ok())
                .map_or(defaults.handover_timeout, Duration::from_millis),
            requires_reboot: labels::is_set(all, "update.requires-reboot"),
        }
    }
}
