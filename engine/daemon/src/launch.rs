//! Brings up a shim with its container: what containers and build steps have in common.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use minke_engine_runtime::spec::{self, ContainerSpec, Facts};
use minke_engine_runtime::{limits, stage};
use minke_engine_shim::config::ShimConfig;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::daemon::Daemon;
use crate::durable;
use crate::error::{Error, Result};

/// The programs that run containers.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This program: `<it> runtime …` is the runtime helper.
    pub(crate) runtime: PathBuf,
    pub(crate) shim: PathBuf,
}

impl Programs {
    /// Finds `minke-shim` by `MINKE_SHIM` or beside this program.
    pub(crate) fn find() -> Result<Programs> {
        let own = std::env::current_exe().map_err(Error::file("finding", "/proc/self/exe"))?;
        let runtime = replaced(own);
        let shim = match std::env::var_os("MINKE_SHIM") {
            Some(path) => PathBuf::from(path),
            None => beside(&runtime, "minke-shim"),
        };
        Ok(Programs { runtime, shim })
    }
}

/// The kernel's name for a program whose file was replaced means what is there now.
fn replaced(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(now) if !program.exists() && Path::new(now).exists() => now.into(),
        _ => program,
    }
}

/// The program of this name in the directory of another, or (for test programs) in the one above.
fn beside(program: &Path, name: &str) -> PathBuf {
    let directories = program.ancestors().skip(1).take(2);
    let mut candidates = directories.map(|directory| directory.join(name));
    let first = candidates.next().unwrap_or_else(|| PathBuf::from(name));
    if first.exists() { first } else { candidates.next().filter(|p| p.exists()).unwrap_or(first) }
}

/// What a shim is started with.
pub(crate) struct Launch<'a> {
    /// The shim's directory.
    pub(crate) dir: &'a Path,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) config: ShimConfig,
}

/// Writes the bundle and starts the shim. The container itself starts by [`crate::shim`].
pub(crate) async fn spawn_shim(daemon: &Daemon, launch: Launch<'_>) -> Result<()> {
    let programs = &daemon.programs;
    write_bundle(daemon, &launch)?;
    let config = ShimConfig { runtime: programs.runtime.clone(), ..launch.config };
    let text = config.print().map_err(Error::file("writing", launch.dir.join("shim.conf")))?;
    durable::write_soon(&launch.dir.join("shim.conf"), &text)?;
    let mut child = Command::new(&programs.shim)
        .arg(launch.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("starting", &programs.shim))?;
    let mut ready = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        // What it says is what counts; a broken pipe is said as "not ready".
        let _ = stdout.read_to_string(&mut ready).await;
    }
    let stderr = child.stderr.take();
    if ready == "ready\n" {
        // It is our child until we end: somebody must take its exit status.
        tokio::spawn(async move { child.wait().await });
        return Ok(());
    }
    let mut reason = String::new();
    if let Some(stderr) = stderr {
        let _ = stderr.take(4096).read_to_string(&mut reason).await;
    }
    let _ = child.wait().await;
    Err(Error::System {
        doing: format!("starting the shim of {}", config.id),
        source: reason.trim().to_owned().into(),
    })
}

/// Writes the runtime specification of a container whose root file system is mounted, its filter of
/// system calls, and what the helper does beside the runtime's library.
fn write_bundle(daemon: &Daemon, launch: &Launch<'_>) -> Result<()> {
    let facts = gather(launch.spec)?;
    let mut document = spec::build(launch.spec, &facts)?;
    let block = launch.dir.join("block.json");
    match limits::take_block(&mut document) {
        Some(limits) => durable::write_soon(&block, &json(&limits, "block.json")?)?,
        None => durable::remove(&block)?,
    }
    let sets = document.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref());
    let names = bounding.into_iter().flatten().map(|capability| format!("CAP_{capability}"));
    let filter = launch.dir.join("seccomp");
    match daemon.filters.of(launch.spec, names)? {
        Some(program) => durable::write_soon(&filter, &program)?,
        None => durable::remove(&filter)?,
    }
    let list = launch.dir.join("stage.json");
    let first = launch.spec.user_namespace.as_ref().map_or(0, |user| user.first);
    match stage::plan(&mut document, first) {
        Some(stage) => durable::write_soon(&list, &json(&stage, "stage.json")?)?,
        None => durable::remove(&list)?,
    }
    let bytes = json(&document, "config.json")?;
    durable::write_soon(&launch.config.bundle.join("config.json"), &bytes)
}

fn json(value: &impl serde::Serialize, name: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Error::system(format!("writing {name}")))
}

/// Looks up what a specification needs to know.
pub(crate) fn gather(container: &ContainerSpec) -> Result<Facts> {
    match Facts::gather(container) {
        Ok(facts) => Ok(facts),
        Err(error) => {
            Err(Error::System { doing: "preparing the container".to_owned(), source: error.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("it");
        let gone = dir.path().join("it (deleted)");
        assert_eq!(replaced(gone.clone()), gone);
        std::fs::write(&program, "").unwrap();
        assert_eq!(replaced(gone.clone()), program);
        assert_eq!(replaced(program.clone()), program);
        // A file may be called so.
        std::fs::write(&gone, "").unwrap();
        assert_eq!(replaced(gone.clone()), gone);
    }
}
