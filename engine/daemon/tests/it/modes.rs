//! Namespaces that are a container's own, the host's, another container's, or nobody's.

use std::path::Path;

use crate::support::{Outcome, Site, ask};

/// What a container of these options prints.
fn run(site: &Site, options: &[&str], words: &[&str]) -> Outcome {
    site.docker(&[&["run", "--rm"], options, &["busybox"], words].concat())
}

/// A container that stays.
fn stay(site: &Site, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat();
    site.docker(&words).ok();
}

fn namespace(site: &Site, options: &[&str], kind: &str) -> String {
    run(site, options, &["readlink", &format!("/proc/self/ns/{kind}")]).ok().trim().to_owned()
}

fn of_container(site: &Site, name: &str, kind: &str) -> String {
    site.docker(&["exec", name, "readlink", &format!("/proc/1/ns/{kind}")]).ok().trim().to_owned()
}

fn of_host(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

#[test]
fn a_pid_namespace_is_ones_own_the_hosts_or_a_containers() {
    let site = Site::new();
    stay(&site, "box", &[]);
    let own = namespace(&site, &[], "pid");
    assert!(own != of_host("pid") && own != of_container(&site, "box", "pid"));
    assert_eq!(run(&site, &[], &["sh", "-c", "echo $$"]).ok(), "1\n");
    assert_eq!(namespace(&site, &["--pid", "host"], "pid"), of_host("pid"));
    assert_eq!(
        namespace(&site, &["--pid", "container:box"], "pid"),
        of_container(&site, "box", "pid")
    );
    // It sees the other's processes and may end them: the other's first ends both.
    let seen = run(&site, &["--pid", "container:box"], &["ps", "-o", "args"]).ok();
    assert!(seen.lines().any(|line| line == "sleep 1000"), "{seen}");
    assert_ne!(run(&site, &["--pid", "container:nobody"], &["true"]).code, 0);
    let body = serde_json::json!({"Image": "busybox", "HostConfig": {"PidMode": "none"}});
    let refused = ask(&site, "POST", "/containers/create", Some(&body));
    assert!(refused.status == 400 && refused.text.contains("PidMode"), "{}", refused.text);
}

#[test]
fn memory_at_dev_shm_is_shared_by_those_that_share_their_ipc() {
    for arguments in [&[][..], &["--userns-remap", "default"]] {
        let site = Site::empty(arguments);
        site.load_image();
        stay(&site, "box", &["--ipc", "shareable", "--shm-size", "2m"]);
        let write = ["exec", "box", "sh", "-c", "echo shared > /dev/shm/file; stat -c %u /dev/shm"];
        assert_eq!(site.docker(&write).ok(), "0\n");
        let join = ["--ipc", "container:box"];
        let look = "cat /dev/shm/file; readlink /proc/self/ns/ipc; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2";
        let seen = run(&site, &join, &["sh", "-c", look]).ok();
        assert_eq!(seen, format!("shared\n{}\n2048\n", of_container(&site, "box", "ipc")));
        // Another user writes there too, and may not take away what is not its own.
        let other = "echo mine > /dev/shm/other; rm -f /dev/shm/file 2>/dev/null; ls /dev/shm";
        let seen = run(&site, &["-u", "app", "--ipc", "container:box"], &["sh", "-c", other]).ok();
        assert_eq!(seen, "file\nother\n");
        // What is private is not to be joined.
        stay(&site, "alone", &[]);
        let refused = run(&site, &["--ipc", "container:alone"], &["true"]);
        assert!(refused.stderr.contains("not shareable"), "{refused:?}");
        site.docker(&["rm", "-f", "alone", "box"]).ok();
        assert_eq!(site.remains(), Vec::<String>::new());
    }
}

#[test]
fn an_ipc_namespace_is_ones_own_the_hosts_or_without_memory() {
    let site = Site::new();
    let own = namespace(&site, &["--ipc", "private"], "ipc");
    stay(&site, "box", &[]);
    assert!(own != of_host("ipc") && of_container(&site, "box", "ipc") != of_host("ipc"));
    assert_ne!(namespace(&site, &["--ipc", "private"], "ipc"), of_container(&site, "box", "ipc"));
    assert_eq!(namespace(&site, &["--ipc", "host"], "ipc"), of_host("ipc"));
    let name = format!("minke-ipc-{}", std::process::id());
    let file = Path::new("/dev/shm").join(&name);
    std::fs::write(&file, "of the host").unwrap();
    let path = format!("/dev/shm/{name}");
    let seen = run(&site, &["--ipc", "host"], &["cat", &path]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(seen.ok(), "of the host");
    assert_ne!(namespace(&site, &["--ipc", "none"], "ipc"), of_host("ipc"));
    let mounts = ["grep", "-c", " /dev/shm ", "/proc/mounts"];
    assert_eq!(run(&site, &["--ipc", "none"], &mounts).stdout, "0\n");
    assert_eq!(run(&site, &[], &mounts).stdout, "1\n");
}

#[test]
fn shared_memory_outlives_the_daemon() {
    let mut site = Site::new();
    stay(&site, "box", &["--ipc", "shareable"]);
    site.docker(&["exec", "box", "sh", "-c", "echo kept > /dev/shm/file"]).ok();
    site.kill_engine();
    site.start_engine();
    let seen = run(&site, &["--ipc", "container:box"], &["cat", "/dev/shm/file"]);
    assert_eq!(seen.ok(), "kept\n");
    // A start anew begins with empty memory.
    site.docker(&["restart", "-t", "0", "box"]).ok();
    assert_eq!(run(&site, &["--ipc", "container:box"], &["ls", "/dev/shm"]).ok(), "");
}

#[test]
fn a_uts_namespace_is_ones_own_or_the_hosts() {
    let site = Site::new();
    let own = namespace(&site, &[], "uts");
    assert_ne!(own, of_host("uts"));
    assert_eq!(namespace(&site, &["--uts", "host"], "uts"), of_host("uts"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(run(&site, &["--uts", "host"], &["cat", "/proc/sys/kernel/hostname"]).ok(), host);
    assert_eq!(run(&site, &["--hostname", "me"], &["hostname"]).ok(), "me\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
}

#[test]
fn a_cgroup_namespace_hides_where_the_container_is() {
    let site = Site::new();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let path = |options: &[&str]| {
        let seen = run(&site, options, &["cat", "/proc/self/cgroup"]).ok();
        // On version 1 there is a line for each hierarchy; all are in the same place.
        let line = seen.lines().find(|line| line.contains("memory") || line.starts_with("0::"));
        line.unwrap().rsplit(':').next().unwrap().to_owned()
    };
    assert_eq!(path(&["--cgroupns", "private"]), "/");
    assert!(path(&["--cgroupns", "host"]).starts_with("/minke/"));
    // Docker's default: private on version 2, the host's on version 1.
    let default = path(&[]);
    assert_eq!(default == "/", v2, "{default}");
    // What a container sees of cgroups it cannot write to.
    let file = if v2 {
        "/sys/fs/cgroup/memory.max"
    } else {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    };
    for options in [&["--cgroupns", "private"], &["--cgroupns", "host"]] {
        let written = run(&site, options, &["sh", "-c", &format!("echo 1000000000 > {file}")]);
        assert!(written.code != 0 && written.stderr.contains("Read-only"), "{written:?}");
    }
}

/// Settings of a kernel are everybody's: they are changed only on one of our own.
fn note_renames_by_default() {
    if rustix::system::uname().nodename() == c"guest" && Path::new("/minke/debug").exists() {
        for name in ["redirect_dir", "metacopy", "index"] {
            std::fs::write(format!("/sys/module/overlay/parameters/{name}"), "Y").unwrap();
        }
    }
}

#[test]
fn what_a_container_moves_can_be_committed_whatever_the_kernel_notes_by_default() {
    let site = Site::new();
    site.docker(&["run", "--rm", "busybox", "true"]).ok();
    note_renames_by_default();
    let change = "mv /var/data /moved; chmod 700 /etc/passwd";
    site.docker(&["run", "--name", "box", "busybox", "sh", "-c", change]).ok();
    site.docker(&["commit", "box", "made"]).ok();
    let look = ["run", "--rm", "made", "stat", "-c", "%a %n", "/moved", "/etc/passwd"];
    assert_eq!(site.docker(&look).ok(), "750 /moved\n700 /etc/passwd\n");
}
