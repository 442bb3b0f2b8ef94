//! Limits and privileges, as the container sees them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::{Site, ask, clis, now, wait_until};

#[test]
fn limits_are_those_that_were_asked_for() {
    let site = Site::new();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
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

/// The files of a running container's cgroups, from inside; the first of two names is version 1's.
fn files(site: &Site, container: &str, names: &[(&str, &str)]) -> Vec<String> {
    let names: Vec<&str> =
        names.iter().map(|(one, two)| if unified() { *two } else { *one }).collect();
    let script = format!("cd /sys/fs/cgroup; cat {}", names.join(" "));
    let said = site.docker(&["exec", container, "sh", "-c", &script]).ok();
    said.lines().map(str::to_owned).collect()
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Of version 1 and 2, that of this machine.
fn here<'a>(one: &'a [&'a str], two: &'a [&'a str]) -> &'a [&'a str] {
    if unified() { two } else { one }
}

const MEMORY: [(&str, &str); 3] = [
    ("memory/memory.limit_in_bytes", "memory.max"),
    ("memory/memory.soft_limit_in_bytes", "memory.low"),
    ("pids/pids.max", "pids.max"),
];
const CPU: [(&str, &str); 4] = [
    ("cpu/cpu.shares", "cpu.weight"),
    ("cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us", "cpu.max"),
    ("cpuset/cpuset.cpus", "cpuset.cpus"),
    ("cpuset/cpuset.mems", "cpuset.mems"),
];
/// Machines that do not account for swap have no limit of it.
const SWAP: (&str, &str) = ("memory/memory.memsw.limit_in_bytes", "memory.swap.max");

fn counts_swap() -> bool {
    unified() || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
}

#[test]
fn a_running_containers_limits_change() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let memory = ["-m", "64m", "--memory-reservation", "32m", "--memory-swap", "96m"];
    let cpu = ["--cpu-shares", "512", "--cpu-period", "50000", "--cpu-quota", "20000"];
    let rest = ["--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50"];
    let start = ["run", "-d", "--name", "box"];
    cli(&[&start[..], &memory, &cpu, &rest, &["busybox", "sleep", "1000"]].concat()).ok();
    assert_eq!(files(&site, "box", &MEMORY), ["67108864", "33554432", "50"]);
    let before = here(&["512", "20000", "50000", "0", "0"], &["59", "20000 50000", "0", "0"]);
    assert_eq!(files(&site, "box", &CPU), before);
    if counts_swap() {
        let swap = here(&["100663296"], &["33554432"]);
        assert_eq!(files(&site, "box", &[SWAP]), swap);
    }
    let memory = ["-m", "128m", "--memory-reservation", "16m", "--memory-swap", "256m"];
    let cpu = ["--cpu-shares", "2048", "--cpu-quota", "30000", "--pids-limit", "70"];
    cli(&[&["update", "--restart", "unless-stopped"], &memory[..], &cpu, &["box"]].concat()).ok();
    let form = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(cli(&["inspect", "-f", form, "box"]).ok(), "134217728 unless-stopped\n");
    let after = || {
        assert_eq!(files(&site, "box", &MEMORY), ["134217728", "16777216", "70"]);
        // The period was not spoken of.
        let cpu = here(&["2048", "30000", "50000", "0", "0"], &["174", "30000 50000", "0", "0"]);
        assert_eq!(files(&site, "box", &CPU), cpu);
        if counts_swap() {
            let swap = here(&["268435456"], &["134217728"]);
            assert_eq!(files(&site, "box", &[SWAP]), swap);
        }
    };
    after();
    // The next start has the same.
    cli(&["restart", "-t", "0", "box"]).ok();
    after();
    cli(&["update", "--pids-limit", "-1", "box"]).ok();
    assert_eq!(files(&site, "box", &MEMORY[2..]), ["max"]);
    // What the host does not have is refused, and nothing is changed.
    let refused = cli(&["update", "--cpuset-cpus", "4000", "box"]);
    assert!(refused.code != 0 && refused.stderr.contains("CPUs are not available"), "{refused:?}");
    let kept = cli(&["inspect", "-f", "{{.HostConfig.CpusetCpus}}", "box"]).ok();
    assert_eq!(kept, "0\n");
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
    // One that is killed by somebody is not; there is an event for the one alone.
    let words = ["run", "-d", "--name", "fine", "-m", "16m", "busybox", "sleep", "1000"];
    site.docker(&words).ok();
    site.docker(&["kill", "fine"]).ok();
    assert_eq!(site.docker(&["inspect", "-f", form, "fine"]).ok(), "false\n");
    let filter = ["--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}"];
    let now = now();
    let until = ["events", "--since", "1h", "--until", &now];
    assert_eq!(site.docker(&[&until[..], &filter].concat()).ok(), "eats\n");
}

#[test]
fn a_paused_container_stands_still() {
    let site = Site::new();
    let count = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done";
    site.docker(&["run", "-d", "--name", "box", "busybox", "sh", "-c", count]).ok();
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "box"]).ok();
    let file = site.data().join("containers").join(id.trim()).join("upper/tmp/count");
    let number = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("a first count", || (!number().is_empty()).then_some(()));
    site.docker(&["pause", "box"]).ok();
    let (event, state) = match unified() {
        true => ("cgroup.events", "frozen 1"),
        false => ("freezer.state", "FROZEN"),
    };
    let pid = site.docker(&["inspect", "-f", "{{.State.Pid}}", "box"]).ok();
    let path = cgroup_of(pid.trim()).join(event);
    assert!(std::fs::read_to_string(&path).unwrap().lines().any(|line| line == state), "{path:?}");
    let stands = number();
    // A command that takes its time, in which the other would count on.
    site.docker(&["info"]).ok();
    assert_eq!(number(), stands);
    assert_ne!(site.docker(&["exec", "box", "true"]).code, 0);
    site.docker(&["unpause", "box"]).ok();
    wait_until("another count", || (number() != stands && !number().is_empty()).then_some(()));
    // A paused container can be stopped and removed.
    site.docker(&["pause", "box"]).ok();
    site.docker(&["rm", "-f", "box"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
}

/// The cgroup of a process: on version 1 that of the freezer.
fn cgroup_of(pid: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let (line, root) = match unified() {
        true => (text.lines().find(|line| line.starts_with("0::")), "/sys/fs/cgroup"),
        false => (text.lines().find(|line| line.contains(":freezer:")), "/sys/fs/cgroup/freezer"),
    };
    let below = line.unwrap().rsplit(':').next().unwrap();
    Path::new(root).join(below.trim_start_matches('/'))
}

/// The disk on which files of this directory are, if they are on one.
fn disk_below(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let about = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{name}"))
}

#[test]
fn stats_have_dockers_shape() {
    let site = Site::new();
    let work = "dd if=/dev/zero of=/tmp/x bs=1M count=4 oflag=direct 2>/dev/null; : > /tmp/ready; while :; do :; done";
    let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "50"];
    let start = ["run", "-d", "--name", "box"];
    // Kernels since 6.10 count what is written with version 1 only on disks that have a limit.
    let disk = disk_below(&site.data());
    let generous = disk.as_ref().map(|disk| format!("--device-write-bps={disk}:1gb"));
    let generous: Vec<&str> = generous.as_deref().into_iter().collect();
    site.docker(&[&start[..], &limits, &generous, &["busybox", "sh", "-c", work]].concat()).ok();
    wait_until("work", || {
        (site.docker(&["exec", "box", "test", "-e", "/tmp/ready"]).code == 0).then_some(())
    });
    let stats = ask(&site, "GET", "/containers/box/stats?stream=0", None).json();
    let number = |at: &str| stats.pointer(at).and_then(serde_json::Value::as_u64);
    assert_eq!(number("/memory_stats/limit"), Some(64 << 20));
    assert_eq!(number("/pids_stats/limit"), Some(50));
    for at in [
        "/memory_stats/usage",
        "/pids_stats/current",
        "/cpu_stats/cpu_usage/total_usage",
        "/cpu_stats/cpu_usage/usage_in_usermode",
        "/cpu_stats/system_cpu_usage",
        "/cpu_stats/online_cpus",
        "/cpu_stats/throttling_data/periods",
        "/precpu_stats/cpu_usage/total_usage",
        "/precpu_stats/system_cpu_usage",
    ] {
        assert!(number(at).is_some_and(|value| value > 0), "{at}: {stats:#}");
    }
    // What clients tell the versions apart by, and what they take from the use of memory.
    let memory = &stats["memory_stats"];
    assert_eq!(memory.get("max_usage").is_none(), unified(), "{stats:#}");
    let cache = if unified() { "inactive_file" } else { "total_inactive_file" };
    assert!(memory["stats"][cache].is_u64(), "{stats:#}");
    let written = stats["blkio_stats"]["io_service_bytes_recursive"].as_array().unwrap();
    let is_write = |row: &&serde_json::Value| row["op"] == "write" && row["major"].is_u64();
    let bytes = written.iter().filter(is_write).filter_map(|row| row["value"].as_u64());
    assert!(disk.is_none() || bytes.sum::<u64>() >= 4 << 20, "{stats:#}");
    let form = "{{.Name}} {{.MemUsage}} {{.PIDs}}";
    let shown = site.docker(&["stats", "--no-stream", "--format", form, "box"]).ok();
    assert!(shown.starts_with("box ") && shown.contains("/ 64MiB"), "{shown}");
    // Half a processor is what it may have, and a busy machine gives less.
    let share = |at: &str, before: &str| number(at).unwrap() - number(before).unwrap();
    let own = share("/cpu_stats/cpu_usage/total_usage", "/precpu_stats/cpu_usage/total_usage");
    let all = share("/cpu_stats/system_cpu_usage", "/precpu_stats/system_cpu_usage");
    let of_one = own as f64 * number("/cpu_stats/online_cpus").unwrap() as f64 / all as f64;
    assert!(own > 0 && of_one < 0.8, "{of_one} of a processor: {stats:#}");
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

#[test]
fn an_exec_is_in_every_cgroup_of_its_container() {
    let site = Site::new();
    let start = ["run", "-d", "--name", "box", "--cgroupns", "host", "--pids-limit", "20"];
    site.docker(&[&start[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let main = site.docker(&["exec", "box", "cat", "/proc/1/cgroup"]).ok();
    assert!(main.contains("/minke/"), "{main}");
    for options in [&[][..], &["--user", "1000:1000"], &["--privileged"]] {
        let words = [&["exec"], options, &["box", "cat", "/proc/self/cgroup"]].concat();
        assert_eq!(site.docker(&words).ok(), main, "{options:?}");
    }
    // Its children are counted with the others.
    let many = "for i in $(seq 30); do sleep 5 & done";
    let refused = site.docker(&["exec", "box", "sh", "-c", many]);
    assert!(refused.stderr.contains("can't fork"), "{refused:?}");
    site.docker(&["rm", "-f", "box"]).ok();
}
