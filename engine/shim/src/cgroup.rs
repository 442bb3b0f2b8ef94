//! A container's cgroup directories: kill what is left in them, and remove them.
//!
//! `D/cgroups` lists the directories, one a line: one per controller on version 1, one on version 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directories listed in `D/cgroups`; none if there is no such file.
pub fn listed(shim_dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(shim_dir.join("cgroups")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
}

/// Pids in a cgroup and those below it.
pub fn pids(directory: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    collect(directory, 0, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(directory: &Path, depth: u32, found: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    if depth < 16 {
        for child in children(directory) {
            collect(&child, depth + 1, found);
        }
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// What makes the processes of a cgroup stand still.
pub struct Freezer {
    path: PathBuf,
    unified: bool,
}

impl Freezer {
    /// That of a cgroup, if it has one.
    pub fn of(directory: &Path) -> Option<Freezer> {
        let found = [("freezer.state", false), ("cgroup.freeze", true)].into_iter();
        let mut files =
            found.map(|(file, unified)| Freezer { path: directory.join(file), unified });
        files.find(|freezer| freezer.path.exists())
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ask for it, or for going on. The kernel answers before it has done so.
    pub fn set(&self, frozen: bool) -> io::Result<()> {
        let word = match (self.unified, frozen) {
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
            (true, true) => "1",
            (true, false) => "0",
        };
        fs::write(&self.path, word)
    }

    /// Whether all of them stand still.
    pub fn is_frozen(&self) -> bool {
        if !self.unified {
            return fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == "FROZEN");
        }
        let events = fs::read_to_string(self.path.with_file_name("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
    }
}

/// Whether the kernel has killed a process of these cgroups for want of memory.
pub fn oom_killed(directories: &[PathBuf]) -> bool {
    directories.iter().any(|directory| {
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
            text.lines()
                .filter_map(|line| line.strip_prefix("oom_kill "))
                .any(|count| count.trim() != "0")
        })
    })
}

/// Send SIGKILL to everything in these cgroups; true if nothing was there.
pub fn kill_all(directories: &[PathBuf]) -> bool {
    let mut empty = true;
    for directory in directories {
        // A frozen process does not die on version 1 until it is thawed.
        let _ = fs::write(directory.join("freezer.state"), "THAWED");
        for pid in pids(directory) {
            empty = false;
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    empty
}

/// Remove these cgroups and those below them. Fails if a process is still inside.
pub fn remove(directories: &[PathBuf]) -> io::Result<()> {
    let mut result = Ok(());
    for directory in directories {
        if let Err(error) = remove_tree(directory, 0) {
            result = Err(error);
        }
    }
    result
}

fn remove_tree(directory: &Path, depth: u32) -> io::Result<()> {
    if depth < 16 {
        for child in children(directory) {
            remove_tree(&child, depth + 1)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Kill and remove, waiting at most `limit` for the processes to be gone. Blocks: the daemon calls it
/// on a blocking thread.
pub fn kill_and_remove(directories: &[PathBuf], limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        let empty = kill_all(directories);
        let removed =
            if empty { remove(directories) } else { Err(io::ErrorKind::ResourceBusy.into()) };
        if removed.is_ok() || Instant::now() >= end {
            return removed;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
