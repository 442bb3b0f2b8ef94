//! What is stored of a container: one document of what was asked, one of what happened.

use std::collections::BTreeMap;

use minke_engine_client::wire::{ContainerConfig, EndpointSettings, Health, HostConfig};
use serde::{Deserialize, Serialize};

use crate::volumes::ANONYMOUS;

/// Version of both documents.
pub(crate) const VERSION: u32 = 1;

/// What was asked for: `config.json`. Changes by rename, update and network connect only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ConfigDocument {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// Without the leading slash.
    pub(crate) name: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    /// `sha256:…`.
    pub(crate) image_id: String,
    /// With what the image adds.
    pub(crate) config: ContainerConfig,
    /// As it was asked for.
    pub(crate) host_config: HostConfig,
    /// Wanted networks by name, as asked for.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    pub(crate) mounts: Vec<MountDocument>,
}

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountDocument {
    pub(crate) kind: MountKind,
    /// Clean absolute path in the container.
    pub(crate) target: String,
    /// Of a volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) volume: String,
    /// Of a volume: it was asked for without a name. Earlier engines did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unnamed: Option<bool>,
    /// Of a volume that is made for this mount.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// The driver and its options, of the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) driver: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) driver_options: BTreeMap<String, String>,
    /// Directory inside the volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) subpath: String,
    /// Of a bind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) propagation: String,
    /// The options as written in a bind's short form.
    #[serde(default)]
    pub(crate) mode: String,
    /// An empty volume is not filled from the image.
    #[serde(default)]
    pub(crate) no_copy: bool,
    /// Without what is mounted below the source.
    #[serde(default)]
    pub(crate) non_recursive: bool,
    /// The source of a bind is made if it is missing.
    #[serde(default)]
    pub(crate) make_source: bool,
    /// Options of a tmpfs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

impl MountDocument {
    /// Whether a volume was made for this mount, or for that of another container which it is taken from:
    /// it may go with the last of them.
    pub(crate) fn is_unnamed(&self) -> bool {
        // Earlier engines marked the mounts whose volumes they named, as somebody may have done who has
        // given a name.
        let by_mark = || {
            let digits = self.volume.bytes().filter(u8::is_ascii_hexdigit).count();
            self.labels.contains_key(ANONYMOUS) && (digits, self.volume.len()) == (64, 64)
        };
        self.kind == MountKind::Volume && self.unnamed.unwrap_or_else(by_mark)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Created,
    Running,
    Paused,
    /// Ended, and will be started again after the back-off.
    Restarting,
    /// In memory alone: a removal that is cut off leaves it as it was, or gone.
    Removing,
    Exited,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
        }
    }

    /// Whether it has a shim.
    pub(crate) fn has_process(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }

    /// Whether Docker calls it running: it is, or is about to be.
    pub(crate) fn counts_as_running(self) -> bool {
        self.has_process() || self == Status::Restarting
    }
}

/// What has happened to a container: `state.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StateDocument {
    pub(crate) version: u32,
    pub(crate) status: Status,
    /// 0 while there is no process.
    pub(crate) pid: u32,
    /// Nanoseconds since 1970; 0 is never.
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i64,
    pub(crate) oom_killed: bool,
    pub(crate) error: String,
    pub(crate) restart_count: i64,
    /// Somebody stopped it: `unless-stopped` does not start it again.
    pub(crate) manually_stopped: bool,
    /// Milliseconds of the last back-off.
    pub(crate) backoff: u64,
    /// Of the boot in which it was started.
    pub(crate) boot_id: String,
    /// What it got in its networks, by name; kept after the end until the next start.
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    /// Published ports as they were given: `80/tcp` to (address, host port).
    pub(crate) ports: BTreeMap<String, Vec<(String, u16)>>,
    #[serde(default)]
    pub(crate) health: Option<Health>,
    /// The profile of AppArmor under which it was started; empty: none.
    #[serde(default)]
    pub(crate) apparmor: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_an_earlier_engine_is_unnamed_by_its_mark_and_a_name_that_it_was_given() {
        let read = |volume: &str, labels: &str| {
            let text = format!(
                r#"{{"kind":"volume","target":"/x","volume":"{volume}","labels":{{{labels}}}}}"#
            );
            serde_json::from_str::<MountDocument>(&text).unwrap()
        };
        let (given, mark) = ("0123456789abcdef".repeat(4), r#""com.docker.volume.anonymous":"""#);
        assert!(read(&given, mark).is_unnamed());
        // What somebody has named is kept: `-v <the name of an unnamed one>:/x`, or the mark by hand.
        assert!(!read(&given, "").is_unnamed());
        assert!(!read("data", mark).is_unnamed());
        let asked = MountDocument { unnamed: Some(false), ..read(&given, mark) };
        assert!(!asked.is_unnamed());
        let again = serde_json::from_value(serde_json::to_value(&asked).unwrap()).unwrap();
        assert_eq!(asked, again);
    }
}
