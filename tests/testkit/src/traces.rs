//! What a site can leave on a machine, so that a test can look for it when the site is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Site;

/// Kernel settings that routing, publishing ports and isolation touch.
const SETTINGS: [&str; 7] = [
    "forwarding",
    "route_localnet",
    "rp_filter",
    "arp_ignore",
    "proxy_arp",
    "accept_ra",
    "force_forwarding",
];
/// How the names of tables begin that engines and sites make: those of sites beside this one come and go.
const OWN_TABLES: [&str; 2] = ["minke-", "mk"];

/// Where network namespaces with names are.
const NAMESPACES: &str = "/run/netns";

/// The machine's settings before a site, and the names of what the site made.
#[derive(Debug)]
pub struct Traces {
    folder: PathBuf,
    settings: BTreeMap<PathBuf, String>,
    /// Packet filter tables that are nobody's of ours, with all that is in them.
    tables: BTreeMap<String, String>,
    /// Network namespaces that have a name.
    namespaces: Vec<String>,
    /// Bridges and the machine's ends of the devices' links.
    links: Vec<String>,
    /// Ids of engines: in names of their cgroups and tables.
    engines: Vec<String>,
}

impl Traces {
    /// Looks at the machine before there is a site in `folder`.
    pub fn before(folder: &Path) -> Result<Traces> {
        let folder =
            folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
        Ok(Traces {
            folder,
            settings: settings(),
            tables: foreign(&tables()?),
            namespaces: list(Path::new(NAMESPACES)),
            links: Vec::new(),
            engines: Vec::new(),
        })
    }

    /// Notes what the site has made so far.
    pub fn note(&mut self, site: &Site) {
        let bridge = site.bridge();
        self.links = list(&Path::new("/sys/class/net").join(bridge).join("brif"));
        self.links.push(bridge.to_owned());
        let folder = self.folder.clone();
        self.note_engines(&folder);
    }

    /// Notes the engines of the site in a folder.
    pub fn note_engines(&mut self, site: &Path) {
        let devices = list(&site.join("devices")).into_iter();
        let devices = devices.map(|name| site.join("devices").join(name).join("engine"));
        self.engines = devices
            .chain([site.join("cloud/builder/engine")])
            .filter_map(|engine| std::fs::read_to_string(engine.join("engine-id")).ok())
            .map(|id| id.trim().to_owned())
            .collect();
    }

    /// How many things have been noted: a test that finds nothing left must have had something.
    pub fn noted(&self) -> usize {
        self.links.len() + self.engines.len()
    }

    /// What is left, in words.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = processes(&self.folder);
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").context("cannot read mounts")?;
        let folder = self.folder.to_string_lossy().into_owned();
        left.extend(
            mounts.lines().filter(|it| it.contains(&folder)).map(|it| format!("mount {it}")),
        );
        for name in &self.links {
            if Path::new("/sys/class/net").join(name).exists() {
                left.push(format!("link {name}"));
            }
        }
        self.rules(&mut left)?;
        let new = list(Path::new(NAMESPACES)).into_iter();
        let new = new.filter(|name| !self.namespaces.contains(name));
        left.extend(new.map(|name| format!("network namespace {name}")));
        cgroups(Path::new("/sys/fs/cgroup"), &self.engines, &mut left);
        let now = settings();
        for (path, before) in &self.settings {
            // An interface of somebody else may have gone.
            if now.get(path).is_some_and(|value| value != before) {
                left.push(format!("{} is {}, was {before}", path.display(), now[path]));
            }
        }
        Ok(left)
    }

    /// Tables of the site, and what became of those of others.
    fn rules(&self, left: &mut Vec<String>) -> Result<()> {
        let now = tables()?;
        let bridges = self.links.iter().map(|name| name.replace('-', "_"));
        let names: Vec<String> = self.engines.iter().cloned().chain(bridges).collect();
        let is_of_the_site = |table: &&String| names.iter().any(|name| table.contains(name));
        left.extend(now.keys().filter(is_of_the_site).cloned());
        let foreign = foreign(&now);
        for table in self.tables.keys().chain(foreign.keys()).collect::<BTreeSet<_>>() {
            let (before, after) = (self.tables.get(table), foreign.get(table));
            if before != after {
                left.push(format!("foreign {table} was {before:?}, is {after:?}"));
            }
        }
        Ok(())
    }
}

/// Every table by its first line, with its rules but without what they have counted.
fn tables() -> Result<BTreeMap<String, String>> {
    let output = Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .output()
        .context("cannot start nft")?;
    if !output.status.success() {
        bail!("nft lists no rules: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if line.starts_with("table ") {
            line.trim_end_matches(" {").clone_into(&mut name);
        }
        let text = tables.entry(name.clone()).or_default();
        text.push_str(line);
        text.push('\n');
    }
    Ok(tables)
}

/// Those that no engine and no site makes.
fn foreign(tables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_own = |table: &str| {
        let name = table.rsplit(' ').next().unwrap_or_default();
        OWN_TABLES.iter().any(|begin| name.starts_with(begin))
    };
    tables.iter().filter(|(table, _)| !is_own(table)).map(|(a, b)| (a.clone(), b.clone())).collect()
}

/// Processes that name the folder, are in it, or run from it.
fn processes(folder: &Path) -> Vec<String> {
    let is_of = |process: &Path| {
        let links = ["cwd", "root", "exe"].into_iter();
        let mut targets = links.filter_map(|link| std::fs::read_link(process.join(link)).ok());
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        targets.any(|target| target.starts_with(folder))
            || String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy())
    };
    let own = std::process::id().to_string();
    list(Path::new("/proc"))
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter(|name| is_of(&Path::new("/proc").join(name)))
        .map(|name| format!("process {name}"))
        .collect()
}

fn cgroups(folder: &Path, engines: &[String], left: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
        if engines.iter().any(|id| entry.file_name().to_string_lossy().contains(id)) {
            left.push(format!("cgroup {}", entry.path().display()));
        } else {
            cgroups(&entry.path(), engines, left);
        }
    }
}

fn settings() -> BTreeMap<PathBuf, String> {
    let all = Path::new("/proc/sys/net");
    let of_interfaces = ["ipv4/conf", "ipv6/conf"].into_iter().flat_map(|family| {
        let interfaces = list(&all.join(family)).into_iter();
        interfaces.flat_map(move |name| {
            SETTINGS.map(|setting| all.join(family).join(&name).join(setting))
        })
    });
    of_interfaces
        .chain([all.join("ipv4/ip_forward")])
        .filter_map(|path| {
            let value = std::fs::read_to_string(&path).ok()?.trim().to_owned();
            Some((path, value))
        })
        .collect()
}

fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
