//! What is wrong with an engine after a power cut.

use std::fmt;
use std::path::Path;

use super::Recording;
use super::disk::Mounted;
use super::peer::Peer;
use super::work::{State, Step, docker};
use crate::registry::digest;
use crate::support::{Site, wait_until};

/// Documents of an engine that has nothing may grow a little.
const GROWTH: u64 = 256 << 10;

/// Something wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The file system cannot be mounted.
    Mount(String),
    /// The engine does not start.
    Start(String),
    /// Something that was acknowledged is not there or is another thing.
    Lost(String),
    /// Something is there that nobody asked for.
    Unexpected(String),
    /// An image is listed and is not what it should be.
    Corrupt(String),
    /// The command that the cut interrupted cannot be given again.
    Stuck(String),
    /// Bytes stay when everything was removed.
    Orphans(u64),
}

impl Fault {
    pub fn is_lost(&self) -> bool {
        matches!(self, Fault::Lost(_))
    }

    /// The column of the table that it belongs to.
    pub fn kind(&self) -> usize {
        match self {
            Fault::Mount(_) | Fault::Start(_) => 0,
            Fault::Lost(_) => 1,
            Fault::Unexpected(_) => 2,
            Fault::Corrupt(_) => 3,
            Fault::Stuck(_) => 4,
            Fault::Orphans(_) => 5,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Mount(why) => write!(f, "the file system cannot be mounted: {why}"),
            Fault::Start(why) => write!(f, "the engine does not start: {why}"),
            Fault::Lost(what) => write!(f, "lost: {what}"),
            Fault::Unexpected(what) => write!(f, "unexpected: {what}"),
            Fault::Corrupt(what) => write!(f, "corrupt: {what}"),
            Fault::Stuck(what) => write!(f, "cannot be done again: {what}"),
            Fault::Orphans(bytes) => write!(f, "{bytes} bytes stay when everything is removed"),
        }
    }
}

/// Mounts the disk that a cut left, starts the engine on it, and looks at everything.
pub fn examine(recording: &Recording, peer: &Peer, image: &Path, at: usize) -> Vec<Fault> {
    let site = &recording.site;
    let _mounted = match Mounted::new(image, &site.data()) {
        Ok(mounted) => mounted,
        Err(why) => return vec![Fault::Mount(why)],
    };
    forget_links(site);
    let running = match peer.start(site) {
        Ok(running) => running,
        Err(why) => return vec![Fault::Start(why)],
    };
    let mut faults = Vec::new();
    match State::read(site) {
        Ok(found) => faults.extend(compare(&recording.steps, at, &found)),
        Err(why) => faults.push(Fault::Lost(why)),
    }
    faults.extend(corrupt(site, peer));
    faults.extend(again(site, &recording.steps, at));
    faults.extend(orphans(site, peer, recording.bare));
    running.stop();
    faults
}

/// No link outlives a power cut.
fn forget_links(site: &Site) {
    let bridges = "ip -o link show type bridge | cut -d: -f2 | xargs -r -n 1 ip link del";
    site.command_of("sh", &["-c", bridges], b"").ok();
}

/// The step that a cut interrupts, if it is not between two.
fn interrupted(steps: &[Step], at: usize) -> Option<&Step> {
    steps.iter().find(|step| step.from < at && at < step.to)
}

fn compare(steps: &[Step], at: usize, found: &State) -> Vec<Fault> {
    if let Some(step) = interrupted(steps, at) {
        // Each thing as it was, or as it was to become; what else there is came of the step.
        let lost = [step.before.lost(&step.after, found), step.after.lost(&step.before, found)];
        return lost.concat().into_iter().map(Fault::Lost).collect();
    }
    let done = steps.iter().rfind(|step| step.to <= at);
    let expected = done.map(|step| step.after.clone()).unwrap_or_default();
    let lost = expected.lost(&expected, found).into_iter().map(Fault::Lost);
    let more = found.0.keys().filter(|key| !expected.0.contains_key(*key));
    lost.chain(more.cloned().map(Fault::Unexpected)).collect()
}

fn corrupt(site: &Site, peer: &Peer) -> Vec<Fault> {
    let mut faults = Vec::new();
    if peer.is_minke() {
        let report = site.block_on(site.client().verify(false, |_| {}));
        match report {
            Ok(report) => {
                let parts =
                    report.damaged.iter().map(|part| format!("{}: {}", part.part, part.why));
                faults.extend(parts.map(Fault::Corrupt));
            }
            Err(error) => faults.push(Fault::Corrupt(error.to_string())),
        }
    }
    let ids = site.docker(&["images", "-q", "--no-trunc"]);
    let mut ids: Vec<&str> = ids.stdout.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if let Err(why) = saved_layers_are_right(site, id) {
            faults.push(Fault::Corrupt(format!("{id}: {why}")));
        }
    }
    faults
}

/// Saves an image and compares every layer with the digest that its configuration names.
fn saved_layers_are_right(site: &Site, id: &str) -> Result<(), String> {
    let path = site.dir.path().join("saved.tar");
    let saved = site.docker(&["save", "-o", &path.to_string_lossy(), id]);
    if saved.code != 0 {
        return Err(saved.stderr.trim().to_owned());
    }
    let mut files = std::collections::BTreeMap::new();
    let mut links = std::collections::BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(&path).map_err(|e| e.to_string())?);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let name = entry.path().map_err(|error| error.to_string())?.to_string_lossy().into_owned();
        if let Ok(Some(link)) = entry.link_name() {
            let beside = Path::new(&name).parent().unwrap_or(Path::new("")).join(&link);
            links.insert(name.clone(), normal(&beside));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).map_err(|error| error.to_string())?;
        files.insert(name, bytes);
    }
    let parse = |name: &str| -> Result<serde_json::Value, String> {
        let bytes = files.get(name).ok_or_else(|| format!("the archive has no {name}"))?;
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    };
    let manifest = parse("manifest.json")?;
    let config = parse(manifest[0]["Config"].as_str().unwrap_or_default())?;
    let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
    let expected = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    if layers.len() != expected.len() {
        return Err(format!("{} layers instead of {}", layers.len(), expected.len()));
    }
    for (layer, expected) in layers.iter().zip(&expected) {
        let name = layer.as_str().unwrap_or_default();
        let name = links.get(name).map_or(name, String::as_str);
        let found = files.get(name).map(|bytes| digest(bytes)).unwrap_or_default();
        if Some(found.as_str()) != expected.as_str() {
            return Err(format!("a layer has digest {found} instead of {expected}"));
        }
    }
    Ok(())
}

/// A path without `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            other => parts.push(other.as_os_str().to_string_lossy().into_owned()),
        }
    }
    parts.join("/")
}

/// Gives the interrupted command again, unless it took effect.
fn again(site: &Site, steps: &[Step], at: usize) -> Vec<Fault> {
    let Some(step) = interrupted(steps, at) else { return Vec::new() };
    let Ok(found) = State::read(site) else { return Vec::new() };
    let repeatable = matches!(step.words[0].as_str(), "pull" | "build" | "tag" | "run");
    let done = step.before != step.after && step.after.lost(&step.after, &found).is_empty();
    if !repeatable && done {
        let gone = step.before.0.keys().filter(|key| !step.after.0.contains_key(*key));
        if gone.filter(|key| found.0.contains_key(*key)).count() == 0 {
            return Vec::new();
        }
    }
    match docker(site, &step.words) {
        Ok(()) => Vec::new(),
        Err(why) => vec![Fault::Stuck(why)],
    }
}

/// Removes everything and looks at what is left on the disk.
fn orphans(site: &Site, peer: &Peer, bare: u64) -> Vec<Fault> {
    if peer.is_minke() {
        let images = site.data().join("images");
        for name in ["staging", "trash"] {
            let left = || std::fs::read_dir(images.join(name)).map_or(0, Iterator::count);
            wait_until("a swept store", || (left() == 0).then_some(()));
        }
    }
    let list = |words: &[&str]| -> Vec<String> {
        site.docker(words).stdout.lines().map(str::to_owned).collect()
    };
    let remove = |words: &[&str], ids: Vec<String>| {
        if !ids.is_empty() {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            // What cannot be removed shows in the bytes that stay.
            site.docker(&[words, &ids].concat());
        }
    };
    remove(&["rm", "-fv"], list(&["ps", "-aq"]));
    remove(&["volume", "rm", "-f"], list(&["volume", "ls", "-q"]));
    let networks = list(&["network", "ls", "-q", "--filter", "type=custom"]);
    remove(&["network", "rm"], networks);
    remove(&["rmi", "-f"], list(&["images", "-q"]));
    site.docker(&["system", "prune", "-af", "--volumes"]);
    let left = bytes_below(&site.data()).saturating_sub(bare);
    if left > GROWTH { vec![Fault::Orphans(left)] } else { Vec::new() }
}

/// Bytes of all regular files below a directory on one file system.
pub fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(device) = std::fs::metadata(dir).map(|found| found.dev()) else { return 0 };
    let mut left = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != device {
                continue;
            }
            match found.is_dir() {
                true => left.push(entry.path()),
                false if found.is_file() => bytes += found.len(),
                false => {}
            }
        }
    }
    bytes
}
