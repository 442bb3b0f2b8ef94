//! Spares a start the wait for the kernel's cgroups.
//!
//! Before a process is moved into a cgroup the kernel waits out an RCU grace period, 10 to 20 ms, unless
//! somebody has moved one just before. So a start lets the daemon move to where it is already, beside the
//! mounts and links that are made first; when the container's process is moved, the time has passed.

use std::path::PathBuf;

/// Begins the wait, on a thread of its own.
pub(super) fn begin() {
    tokio::task::spawn_blocking(|| {
        let lines = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if let Some(file) = lines.lines().map(file_of).find(|file| file.exists()) {
            // Where it cannot be written, the start takes longer, and that is all.
            let _ = std::fs::write(file, std::process::id().to_string());
        }
    });
}

/// The file that lists the processes of a cgroup, by its line in `/proc/self/cgroup`.
fn file_of(line: &str) -> PathBuf {
    let mut parts = line.splitn(3, ':').skip(1);
    let (hierarchy, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let hierarchy = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
    // A cgroup outside of the namespace begins with `/..` and has no file here.
    let path = if path.contains("/..") { "/outside" } else { path };
    format!("/sys/fs/cgroup/{hierarchy}/{path}/cgroup.procs").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_file() {
        let of = |line: &str| file_of(line).components().collect::<PathBuf>();
        assert_eq!(of("8:pids:/a/b"), PathBuf::from("/sys/fs/cgroup/pids/a/b/cgroup.procs"));
        assert_eq!(of("1:name=systemd:/"), PathBuf::from("/sys/fs/cgroup/systemd/cgroup.procs"));
        assert_eq!(of("0::/user.slice"), PathBuf::from("/sys/fs/cgroup/user.slice/cgroup.procs"));
        assert!(!of("0::/../x").exists() && !of("").exists());
    }

    #[test]
    fn this_process_is_found_where_it_is() {
        let lines = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let file = lines.lines().map(file_of).find(|file| file.exists()).unwrap();
        let own = std::process::id().to_string();
        assert!(std::fs::read_to_string(file).unwrap().lines().any(|pid| pid == own));
    }
}
