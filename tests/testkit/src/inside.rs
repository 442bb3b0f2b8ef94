//! A virtual device as the machine sees it: its processes, and what its engine keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The device whose data is in a folder.
#[derive(Debug, Clone)]
pub struct Inside {
    data: PathBuf,
}

/// All that an engine keeps for its containers and images, with the containers' names for their
/// ids, so that two moments can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Folders of containers.
    pub containers: BTreeSet<String>,
    /// Containers that have a shim.
    pub shims: BTreeSet<String>,
    /// Mount points below the engine's folder, in the device.
    pub mounts: BTreeSet<String>,
    /// Cgroups, over all hierarchies.
    pub cgroups: BTreeSet<String>,
    /// How many network interfaces the device has.
    pub links: usize,
    /// Images by id.
    pub images: BTreeSet<String>,
    /// Layers by DiffID.
    pub layers: BTreeSet<String>,
    /// Half-done work: downloads, layers in the making and on the way out.
    pub unfinished: BTreeSet<String>,
}

impl Inside {
    /// The device with its data in `data`.
    pub fn of(data: &Path) -> Result<Inside> {
        let data =
            data.canonicalize().with_context(|| format!("cannot find {}", data.display()))?;
        Ok(Inside { data })
    }

    /// The process of an applet (`engine`, `supervisor`, …), as this machine counts processes.
    pub fn applet(&self, name: &str) -> Option<i32> {
        self.commands().find(|(_, words)| words.get(1).is_some_and(|it| it == name)).map(|it| it.0)
    }

    /// The device's first process.
    pub fn init(&self) -> Option<i32> {
        let is_first = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            pids.is_some_and(|pids| pids.split_whitespace().last() == Some("1"))
        };
        self.commands()
            .filter(|(_, words)| words.get(1).is_some_and(|it| it == "virtual-init"))
            .map(|it| it.0)
            .find(|pid| is_first(*pid))
    }

    /// The shims by the container they hold.
    pub fn shims(&self) -> BTreeMap<String, i32> {
        let containers = self.engine("containers");
        self.commands()
            .filter(|(_, words)| words[0].ends_with("minke-shim"))
            .filter_map(|(pid, words)| {
                let below = Path::new(words.get(1)?).strip_prefix(&containers).ok()?;
                Some((below.iter().next()?.to_str()?.to_owned(), pid))
            })
            .collect()
    }

    /// The boot id that the device has now.
    pub fn boot_id(&self) -> Result<String> {
        let path = self.data.join("run/boot-id");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A path in the engine's folder.
    pub fn engine(&self, path: &str) -> PathBuf {
        self.data.join("engine").join(path)
    }

    /// The key of the device's own API.
    pub fn api_key(&self) -> Result<String> {
        let path = self.data.join("supervisor/api-key");
        let key = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(key.trim().to_owned())
    }

    /// What the engine keeps now. `names` are the containers' names by their ids.
    pub fn remains(&self, names: &BTreeMap<String, String>) -> Result<Remains> {
        let named = |id: String| names.get(&id).cloned().unwrap_or(id);
        let init = self.init().context("the device is not running")?;
        let mounts = std::fs::read_to_string(format!("/proc/{init}/mountinfo"))
            .context("cannot read the device's mounts")?;
        let engine = self.engine("");
        let below = |line: &str| {
            let point = Path::new(line.split(' ').nth(4)?).strip_prefix(&engine).ok()?;
            Some(point.to_str()?.split('/').map(|it| named(it.to_owned())).collect::<Vec<_>>())
        };
        let links = std::fs::read_to_string(format!("/proc/{init}/net/dev"))
            .context("cannot read the device's links")?;
        let unfinished = ["partial", "staging", "trash"].iter().flat_map(|folder| {
            let inside = list(&self.engine("images").join(folder));
            inside.into_iter().map(move |name| format!("{folder}/{name}"))
        });
        Ok(Remains {
            containers: list(&self.engine("containers")).into_iter().map(named).collect(),
            shims: self.shims().into_keys().map(named).collect(),
            mounts: mounts.lines().filter_map(below).map(|it| it.join("/")).collect(),
            cgroups: self.cgroups()?.into_iter().map(named).collect(),
            links: links.lines().filter(|line| line.contains(':')).count(),
            images: list(&self.engine("images/images")).into_iter().collect(),
            layers: list(&self.engine("images/layers")).into_iter().collect(),
            unfinished: unfinished.collect(),
        })
    }

    fn cgroups(&self) -> Result<BTreeSet<String>> {
        let id =
            std::fs::read_to_string(self.engine("engine-id")).context("the engine has no id")?;
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = list(root).into_iter().map(|name| root.join(name));
        let parents =
            hierarchies.chain([root.to_owned()]).map(|it| it.join("minke").join(id.trim()));
        let folders = parents.flat_map(|parent| {
            let names = list(&parent).into_iter();
            names.filter(|name| parent.join(name).is_dir()).collect::<Vec<_>>()
        });
        Ok(folders.collect())
    }

    /// Processes that name the device's data, with the words they were started with.
    fn commands(&self) -> impl Iterator<Item = (i32, Vec<String>)> {
        list(Path::new("/proc")).into_iter().filter_map(|name| {
            let pid = name.parse().ok()?;
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<String> = words
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            let program = words[0].rsplit('/').next().unwrap_or_default();
            let is_ours = program == "exe" || program.starts_with("minke-");
            let names_data = words.iter().any(|word| Path::new(word).starts_with(&self.data));
            (is_ours && names_data).then_some((pid, words))
        })
    }
}

/// Sends a signal; a process that is gone has had it.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(pid).context("a process has no pid")?;
    match kill_process(process, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}

/// Kills a process; whether there was one to kill. One that has ended and waits for its parent is none.
pub fn kill(pid: i32) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().next());
    if matches!(state, None | Some("Z" | "X")) {
        return Ok(false);
    }
    match kill_process(Pid::from_raw(pid).context("a process has no pid")?, Signal::KILL) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {pid}")),
    }
}

fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
