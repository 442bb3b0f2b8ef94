//! Limits and privileges, as the container sees them.

use crate::support::{Site, clis};

#[test]
fn limits_are_those_that_were_asked_for() {
    let site = Site::new();
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let read = match v2 {
        true => "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max cpuset.cpus",
        false => {
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max cpuset/cpuset.cpus"
        }
    };
    let expected = if v2 { "67108864\n50000 100000\n50\n0\n" } else { "67108864\n50000\n50\n0\n" };
    for docker in clis() {
        let run = |words: &[&str]| site.cli(&docker, &[&["run", "--rm"], words].concat()).ok();
        let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cpuset-cpus", "0"];
        assert_eq!(run(&[&limits[..], &["busybox", "sh", "-c", read]].concat()), expected);
        assert_eq!(
            run(&["--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]),
            "100\n200\n"
        );
        assert_eq!(
            run(&["--shm-size", "1m", "busybox", "sh", "-c", "mount | grep -c 'shm.*size=1024k'"]),
            "1\n"
        );
        assert_eq!(
            run(&[
                "--sysctl",
                "net.ipv4.ip_forward=1",
                "busybox",
                "cat",
                "/proc/sys/net/ipv4/ip_forward"
            ]),
            "1\n"
        );
    }
}

#[test]
fn a_running_containers_limits_change() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000"]).ok();
    cli(&["update", "-m", "128m", "--memory-swap", "256m", "--restart", "unless-stopped", "box"])
        .ok();
    let form = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(cli(&["inspect", "-f", form, "box"]).ok(), "134217728 unless-stopped\n");
    let limit = cli(&[
        "exec",
        "box",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
    ]);
    assert_eq!(limit.stdout, "134217728\n");
}

#[test]
fn too_much_memory_is_killed_and_said() {
    let site = Site::new();
    let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40";
    let words =
        ["run", "--name", "eats", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", eat];
    assert_ne!(site.docker(&words).code, 0);
    let form = "{{.State.OOMKilled}}";
    assert_eq!(site.docker(&["inspect", "-f", form, "eats"]).ok(), "true\n");
}

#[test]
fn users_capabilities_and_roots() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, &[&["run", "--rm"], words].concat());
        assert_eq!(
            cli(&["-u", "app", "busybox", "sh", "-c", "id -u; id -g; echo $HOME"]).ok(),
            "12\n34\n/tmp\n"
        );
        let read_only = cli(&["--read-only", "busybox", "touch", "/file"]);
        assert!(read_only.stderr.contains("Read-only file system"), "{read_only:?}");
        assert_ne!(cli(&["--cap-drop", "CHOWN", "busybox", "chown", "1", "/tmp"]).code, 0);
        assert_ne!(cli(&["busybox", "mount", "-t", "tmpfs", "none", "/tmp"]).code, 0);
        assert_eq!(
            cli(&["--privileged", "busybox", "mount", "-t", "tmpfs", "none", "/tmp"]).code,
            0
        );
        assert_eq!(
            cli(&["--device", "/dev/null:/dev/other", "busybox", "sh", "-c", "cat /dev/other"])
                .ok(),
            ""
        );
        let named = [
            "--hostname",
            "me",
            "--add-host",
            "you:10.1.2.3",
            "--dns",
            "10.9.8.7",
            "--dns-search",
            "lan",
            "busybox",
            "sh",
            "-c",
            "hostname; grep you /etc/hosts; cat /etc/resolv.conf",
        ];
        assert_eq!(cli(&named).ok(), "me\n10.1.2.3\tyou\nnameserver 10.9.8.7\nsearch lan\n");
    }
}
