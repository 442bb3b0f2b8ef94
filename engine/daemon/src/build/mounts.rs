//! `RUN --mount=…`: what is mounted for one step.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use minke_common_dockerfile::{Mount, MountKind};
use rustix::fs::FileType;

use crate::build::content::Item;
use crate::build::hash;
use crate::build::run::SCRIPT;
use crate::build::runner::RunBind;
use crate::build::stage::Stage;
use crate::build::walk::Manner;

/// What the mounts of a step come to.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    pub(crate) binds: Vec<RunBind>,
    /// Where anything is mounted, caches included.
    pub(crate) targets: Vec<String>,
    /// Secrets that are given as variables.
    pub(crate) env: Vec<String>,
    /// For the key: what is mounted, and the digest of its content. Nothing of secrets but their names.
    pub(crate) inputs: Vec<String>,
}

impl Stage<'_> {
    /// Prepares every mount.
    pub(crate) async fn mounts(&self, mounts: &[Mount]) -> Result<Mounted, String> {
        let mut out = Mounted::default();
        for mount in mounts {
            match mount.kind {
                MountKind::Bind => self.bind(mount, &mut out).await?,
                MountKind::Cache => {
                    let target = self.target(mount)?;
                    let id = self.cache_id(mount)?;
                    out.inputs.push(format!("cache {target:?} {id:?}"));
                    out.targets.push(target);
                }
                MountKind::Tmpfs => {
                    let target = self.target(mount)?;
                    out.inputs.push(format!("tmpfs {target:?}"));
                    out.binds.push(RunBind::Tmpfs { target, size: mount.size });
                }
                MountKind::Secret => self.secret(mount, &mut out)?,
                MountKind::Ssh if mount.required => {
                    return Err("`--mount=type=ssh` is not supported".into());
                }
                MountKind::Ssh => {}
            }
        }
        let own = [SCRIPT.to_owned()];
        let binds = out.binds.iter().map(|b| match b {
            RunBind::Path { target, .. }
            | RunBind::Tree { target, .. }
            | RunBind::Tmpfs { target, .. } => target.clone(),
        });
        out.targets.extend(binds.chain(own));
        Ok(out)
    }

    pub(crate) fn target(&self, mount: &Mount) -> Result<String, String> {
        let text = self.state.word(mount.target.as_deref().unwrap_or_default())?;
        Ok(self.state.absolute(&text))
    }

    async fn bind(&self, mount: &Mount, out: &mut Mounted) -> Result<(), String> {
        let target = self.target(mount)?;
        let place = target.clone();
        let from = mount.from.as_deref().filter(|f| !f.is_empty());
        let from = from.map(|f| self.state.word(f)).transpose()?;
        let source = self.state.word(mount.source.as_deref().unwrap_or("/"))?;
        let lower = match &from {
            Some(name) => self.layers_of(name).await?,
            None => vec![self.build.workspace.context()],
        };
        let workspace = self.build.workspace.clone();
        let read_only = mount.read_only.unwrap_or(true);
        let manner = Manner { cancelled: workspace.cancelled.clone(), ..Manner::default() };
        let work = move || {
            let dirs = workspace.step().map_err(|e| e.to_string())?;
            let tree = workspace.open(&lower, &dirs).map_err(|e| e.to_string())?;
            let tree = Arc::new(tree);
            let path = source.trim_matches('/').to_owned();
            let missing = |e: std::io::Error| format!("--mount source `{source}`: {e}");
            let found = tree.find(&path).map_err(missing)?;
            let stat = rustix::fs::fstat(&found).map_err(|e| missing(e.into()))?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let item = Item { directory, ..Item::file(tree, &path, "") };
            let digest = hash::digest(&item.source(), &manner).map_err(missing)?;
            Ok::<_, String>((RunBind::Tree { lower, dirs, path, target, read_only }, digest))
        };
        let (bind, digest) = self.build.blocking(work).await?;
        out.inputs.push(format!("bind {place:?} {read_only} {}", digest.hex()));
        out.binds.push(bind);
        Ok(())
    }

    fn secret(&self, mount: &Mount, out: &mut Mounted) -> Result<(), String> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or("").to_owned();
        let target = mount.target.as_deref();
        let id = mount.id.clone().or_else(|| target.map(last)).unwrap_or_default();
        out.inputs.push(format!("secret {id:?} {target:?} {:?}", mount.env));
        let Some(secret) = self.build.request.secrets.get(&id) else {
            return match mount.required {
                true => Err(format!("the secret `{id}` is required, but was not given")),
                false => Ok(()),
            };
        };
        if let Some(name) = &mount.env {
            let value = String::from_utf8_lossy(&secret.0);
            out.env.push(format!("{name}={value}"));
            if target.is_none() {
                return Ok(());
            }
        }
        let path = self.build.workspace.file();
        std::fs::write(&path, &secret.0).map_err(|e| e.to_string())?;
        let mode = std::fs::Permissions::from_mode(mount.mode.unwrap_or(0o400));
        std::fs::set_permissions(&path, mode).map_err(|e| e.to_string())?;
        chown(&path, mount).map_err(|e| e.to_string())?;
        let target = match target {
            Some(_) => self.target(mount)?,
            None => format!("/run/secrets/{id}"),
        };
        out.binds.push(RunBind::Path { source: path, target, read_only: true });
        Ok(())
    }
}

/// Gives what is mounted to whom the mount names.
pub(crate) fn chown(path: &Path, mount: &Mount) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0)))
}
