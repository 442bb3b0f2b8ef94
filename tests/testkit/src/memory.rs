//! How much memory processes use.

use std::collections::BTreeMap;

/// One process, or several of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMemory {
    /// The program with its first word, as `minke-device engine`.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Resident pages, in KiB; shared ones count in each process.
    pub rss_kib: u64,
    /// Resident pages, in KiB; shared ones divided among their users.
    pub pss_kib: u64,
}

/// The memory of the processes `roots` and of all that they started, by program.
pub fn memory(roots: &[i32]) -> Vec<ProcessMemory> {
    let parents = parents();
    let mut by_name: BTreeMap<String, ProcessMemory> = BTreeMap::new();
    for &pid in parents.keys() {
        if !descends(pid, roots, &parents) {
            continue;
        }
        let Some((name, rss_kib, pss_kib)) = one(pid) else { continue };
        let entry = by_name.entry(name.clone()).or_insert(ProcessMemory {
            name,
            count: 0,
            rss_kib: 0,
            pss_kib: 0,
        });
        entry.count += 1;
        entry.rss_kib += rss_kib;
        entry.pss_kib += pss_kib;
    }
    by_name.into_values().collect()
}

/// The parent of every process.
fn parents() -> BTreeMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

fn descends(mut pid: i32, roots: &[i32], parents: &BTreeMap<i32, i32>) -> bool {
    // Pids are reused while this runs, so a loop is possible; it is bounded.
    for _ in 0..64 {
        if roots.contains(&pid) {
            return true;
        }
        match parents.get(&pid) {
            Some(&parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

/// Name, RSS and PSS of a process of ours; `None` for others and for those that are gone.
fn one(pid: i32) -> Option<(String, u64, u64)> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?.rsplit('/').next()?.to_owned();
    let name = match program.as_str() {
        "minke-shim" => program,
        _ if program.starts_with("minke") => {
            format!("{program} {}", words.next().unwrap_or_default())
        }
        _ => return None,
    };
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |key: &str| {
        rollup
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    Some((name, field("Rss:")?, field("Pss:")?))
}
