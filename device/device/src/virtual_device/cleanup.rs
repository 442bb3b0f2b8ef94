//! Removes what a device that was killed left on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::outside::is_running;
use super::tools::{Names, has_link, ip};
use super::{lease, network};

/// Removes everything of the device in `data` that is not in `data`; nothing there is no error.
pub fn clean(data: &Path) -> anyhow::Result<()> {
    let Ok(data) = fs::canonicalize(data) else { return Ok(()) };
    if is_running(&data) {
        bail!("the device in {} is running; send its process SIGTERM first", data.display());
    }
    let names = Names::of(&data);
    if has_link(&names.veth) {
        ip(&["link", "del", &names.veth])?;
    }
    network::remove_bridge(&names, &data)?;
    lease::release(&data);
    remove_cgroups(&data.join("engine"))
}

/// Removes the cgroups of an engine, and every process that is left in them.
pub fn clean_engine(data: &Path) -> anyhow::Result<()> {
    remove_cgroups(data)
}

fn remove_cgroups(engine_data: &Path) -> anyhow::Result<()> {
    let Ok(id) = fs::read_to_string(engine_data.join("engine-id")) else { return Ok(()) };
    let id = id.trim();
    if id.is_empty() || id.contains(['/', '.']) {
        return Ok(());
    }
    let until = Instant::now() + Duration::from_secs(5);
    for root in hierarchies()? {
        let dir = root.join("minke").join(id);
        while dir.exists() {
            kill_members(&dir);
            remove_tree(&dir);
            if dir.exists() && Instant::now() > until {
                bail!("cannot remove the cgroup {}", dir.display());
            }
            if dir.exists() {
                // Processes that were killed take a moment to go.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // The common parent goes with the last engine.
        let _ = fs::remove_dir(root.join("minke"));
    }
    Ok(())
}

/// Where cgroup file systems are mounted.
fn hierarchies() -> anyhow::Result<BTreeSet<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let cgroups = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (path, kind) = (words.nth(1)?, words.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(path))
    });
    Ok(cgroups.collect())
}

fn kill_members(dir: &Path) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may be gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for child in children(dir) {
        kill_members(&child);
    }
}

fn remove_tree(dir: &Path) {
    for child in children(dir) {
        remove_tree(&child);
    }
    let _ = fs::remove_dir(dir);
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|it| it.path())
        .collect()
}
