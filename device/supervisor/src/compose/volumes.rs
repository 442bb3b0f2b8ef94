//! What a service mounts: named and anonymous volumes and tmpfs, never a path of the host.

use std::collections::{BTreeMap, BTreeSet};

use minke_common_model::ids::{AppId, VolumeName};
use minke_common_model::sizes;
use minke_engine_client::wire::Empty;
use serde_json::Value;

use super::Warnings;
use super::fields::Fields;
use crate::state::VolumeKey;

/// The mounts of one service.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub binds: Vec<String>,
    pub anonymous: BTreeMap<String, Empty>,
    pub tmpfs: BTreeMap<String, String>,
    /// The named volumes, as the engine names them.
    pub keys: BTreeSet<VolumeKey>,
    pub names: BTreeSet<VolumeName>,
}

/// The engine's name of an app's volume.
pub(super) fn key(app: AppId, name: &VolumeName) -> VolumeKey {
    format!("{app}_{name}")
}

/// Reads `volumes` and `tmpfs` of a service.
pub(super) fn mounts(app: AppId, fields: Fields, warnings: &mut Warnings) -> Mounts {
    let mut mounts = Mounts::default();
    if let Some(Value::Array(volumes)) = fields.get("volumes") {
        for volume in volumes {
            let is_read = match volume {
                Value::String(short) => mounts.add_short(app, short),
                Value::Object(long) => mounts.add_long(app, Fields(long)),
                _ => None,
            };
            if is_read.is_none() {
                warnings.push(format!("the volume {volume} is not supported and not mounted"));
            }
        }
    }
    for entry in fields.list("tmpfs") {
        let (path, options) = entry.split_once(':').unwrap_or((&entry, ""));
        mounts.tmpfs.insert(path.to_owned(), options.to_owned());
    }
    mounts
}

impl Mounts {
    fn add_short(&mut self, app: AppId, text: &str) -> Option<()> {
        let mut parts = text.split(':');
        let (first, second, options) = (parts.next()?, parts.next(), parts.next());
        match second {
            None if first.starts_with('/') => {
                self.anonymous.insert(first.to_owned(), Empty {});
            }
            Some(path) if path.starts_with('/') => self.add_named(app, first, path, options)?,
            _ => return None,
        }
        Some(())
    }

    fn add_named(
        &mut self,
        app: AppId,
        name: &str,
        path: &str,
        options: Option<&str>,
    ) -> Option<()> {
        // A name that is a path would be a bind of the host's: it is not a name.
        let name: VolumeName = name.parse().ok()?;
        let key = key(app, &name);
        let options = options.map(|options| format!(":{options}")).unwrap_or_default();
        self.binds.push(format!("{key}:{path}{options}"));
        self.keys.insert(key);
        self.names.insert(name);
        Some(())
    }

    fn add_long(&mut self, app: AppId, fields: Fields) -> Option<()> {
        let target = fields.text("target")?;
        match fields.text("type").as_deref() {
            Some("tmpfs") => {
                let size = fields
                    .get("tmpfs")
                    .and_then(Value::as_object)
                    .and_then(|options| Fields(options).text("size"))
                    .and_then(|size| sizes::bytes(&size));
                let options = size.map(|size| format!("size={size}")).unwrap_or_default();
                self.tmpfs.insert(target, options);
                Some(())
            }
            Some("volume") | None => match fields.text("source") {
                Some(source) => {
                    let is_read_only = fields.truth("read_only").unwrap_or(false);
                    self.add_named(app, &source, &target, is_read_only.then_some("ro"))
                }
                None => {
                    self.anonymous.insert(target, Empty {});
                    Some(())
                }
            },
            Some(_) => None,
        }
    }
}
