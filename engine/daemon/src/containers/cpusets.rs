//! Lists of processors and memory nodes, as `0-2,5`: whether this host has what a container asks for.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// Where the kernel says what it has for cgroups: version 1, version 2, and all there is.
const CPUS: [&str; 3] = [
    "/sys/fs/cgroup/cpuset/cpuset.cpus",
    "/sys/fs/cgroup/cpuset.cpus.effective",
    "/sys/devices/system/cpu/online",
];
const MEMS: [&str; 3] = [
    "/sys/fs/cgroup/cpuset/cpuset.mems",
    "/sys/fs/cgroup/cpuset.mems.effective",
    "/sys/devices/system/node/online",
];
/// Numbers are below this.
const MOST: u32 = 8192;

/// Refuses what is no list, and what this host does not have.
pub(super) fn check(cpus: &str, mems: &str) -> Result<()> {
    check_list(cpus, "cpuset cpus", "CPUs", CPUS)?;
    check_list(mems, "cpuset mems", "memory nodes", MEMS)
}

fn check_list(list: &str, field: &str, what: &str, files: [&str; 3]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let wanted =
        parse(list).ok_or_else(|| Error::Invalid(format!("Invalid value {list} for {field}")))?;
    let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    let text = text.unwrap_or_default();
    // Without an answer the kernel decides, at the start.
    let Some(available) = parse(text.trim()) else { return Ok(()) };
    if wanted.is_subset(&available) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "Requested {what} are not available - requested {list}, available: {}",
        text.trim()
    )))
}

fn parse(list: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        assert_eq!(parse("0-2,5"), Some(BTreeSet::from([0, 1, 2, 5])));
        for bad in ["", "x", "1,", "2-1", "-1", "1-", "0-4294967295"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_refused() {
        check("", "").unwrap();
        check("0", "0").unwrap();
        let error = check("0,8000", "").unwrap_err().to_string();
        assert!(
            error.starts_with("Requested CPUs are not available - requested 0,8000"),
            "{error}"
        );
        let error = check("", "many").unwrap_err().to_string();
        assert_eq!(error, "Invalid value many for cpuset mems");
    }
}
