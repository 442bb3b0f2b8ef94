//! Limits of disks, and which devices a container may open.

use serde_json::{Value, json};

use crate::support::{Disk, Site, ask};

fn unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Reads a file of the container's cgroups: version 1's or version 2's.
fn read(site: &Site, one: &str, two: &str) -> String {
    let file = if unified() { two.to_owned() } else { format!("blkio/blkio.{one}") };
    site.docker(&["exec", "box", "cat", &format!("/sys/fs/cgroup/{file}")]).ok()
}

#[test]
fn limits_of_disks_are_those_that_were_asked_for() {
    let site = Site::new();
    let disk = Disk::make(site.dir.path());
    let rate = |rate: u32| json!([{ "Path": disk.node, "Rate": rate }]);
    let host = json!({
        "BlkioWeight": 300,
        "BlkioDeviceReadBps": rate(1 << 20),
        "BlkioDeviceWriteBps": rate(1 << 21),
        "BlkioDeviceReadIOps": rate(1001),
        "BlkioDeviceWriteIOps": rate(1002),
        "Devices": [{ "PathOnHost": disk.node, "PathInContainer": "/dev/disk", "CgroupPermissions": "r" }],
    });
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host });
    let created = ask(&site, "POST", "/containers/create?name=box", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text);
    let started = ask(&site, "POST", "/containers/box/start", None);
    assert_eq!(started.status, 204, "{}", started.text);
    let number = format!("{}:{}", disk.major, disk.minor);
    if unified() {
        let expected = format!("{number} rbps=1048576 wbps=2097152 riops=1001 wiops=1002\n");
        assert_eq!(read(&site, "", "io.max"), expected);
        assert_eq!(read(&site, "", "io.weight"), "default 2930\n");
    } else {
        for (file, rate) in [
            ("read_bps", 1 << 20),
            ("write_bps", 1 << 21),
            ("read_iops", 1001),
            ("write_iops", 1002),
        ] {
            let file = format!("throttle.{file}_device");
            assert_eq!(read(&site, &file, ""), format!("{number} {rate}\n"));
        }
    }
    // The weight that bfq has is on the same scale with both versions.
    let weight = |site: &Site| read(site, "bfq.weight", "io.bfq.weight").replace("default ", "");
    assert_eq!(weight(&site), "300\n");
    // The kernel keeps to the rate: three times what a second allows takes more than a second.
    let script = "b=$(cut -d. -f1 /proc/uptime); dd if=/dev/disk of=/dev/null bs=64k count=48 \
                  iflag=direct 2>/dev/null || echo failed; echo $(($(cut -d. -f1 /proc/uptime) - b))";
    let seconds = site.docker(&["exec", "box", "sh", "-c", script]).ok();
    assert!(seconds.trim().parse::<u32>().unwrap() >= 2, "{seconds}");
    site.docker(&["update", "--blkio-weight", "500", "box"]).ok();
    assert_eq!(weight(&site), "500\n");
    let shown = site.docker(&["inspect", "-f", "{{.HostConfig.BlkioWeight}}", "box"]).ok();
    assert_eq!(shown, "500\n");
    weights_at_one_disk(&site, &disk);
}

/// They are had at disks whose scheduler knows weights, and refused by name at others.
fn weights_at_one_disk(site: &Site, disk: &Disk) {
    site.docker(&["rm", "-f", "box"]).ok();
    let weights = json!({ "BlkioWeightDevice": [{ "Path": disk.node, "Weight": 200 }] });
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": weights });
    let created = ask(site, "POST", "/containers/create?name=box", Some(&body));
    assert_eq!(created.status, 201, "{}", created.text);
    disk.schedule_by("none");
    let started = ask(site, "POST", "/containers/box/start", None);
    assert_eq!(started.status, 500, "{}", started.text);
    assert!(started.text.contains("BlkioWeightDevice"), "{}", started.text);
    disk.schedule_by("bfq");
    let started = ask(site, "POST", "/containers/box/start", None);
    assert_eq!(started.status, 204, "{}", started.text);
    let shown = read(site, "bfq.weight_device", "io.bfq.weight");
    let line = format!("{}:{} 200", disk.major, disk.minor);
    assert!(shown.lines().any(|it| it == line), "{shown}");
}

#[test]
fn wrong_limits_of_disks_are_refused_by_name() {
    let site = Site::new();
    let create = |host: Value| {
        let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host });
        ask(&site, "POST", "/containers/create?name=box", Some(&body))
    };
    let weights = json!([{ "Path": "/dev/x", "Weight": 5 }]);
    for (host, name) in [
        (json!({ "BlkioWeight": 5 }), "BlkioWeight"),
        (json!({ "BlkioWeight": 1001 }), "BlkioWeight"),
        (json!({ "BlkioWeightDevice": weights }), "BlkioWeightDevice"),
    ] {
        let refused = create(host);
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(name), "{}", refused.text);
    }
    // As in Docker, that a disk is there is looked at when the container starts.
    for path in ["/dev/no-such-disk", "/dev/null"] {
        let rate = json!([{ "Path": path, "Rate": 1000 }]);
        assert_eq!(create(json!({ "BlkioDeviceReadBps": rate })).status, 201);
        let started = ask(&site, "POST", "/containers/box/start", None);
        assert!(started.status >= 400 && started.text.contains(path), "{}", started.text);
        site.docker(&["rm", "box"]).ok();
    }
}

#[test]
fn devices_are_only_those_that_were_given() {
    let site = Site::new();
    let disk = Disk::make(site.dir.path());
    let run = |options: &[&str], script: &str| {
        let words = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
        site.docker(&words)
    };
    let read = "dd if=/dev/disk of=/dev/null bs=512 count=1 2>&1";
    let write = ": >> /dev/disk";
    let given = format!("{}:/dev/disk:r", disk.node);
    let seen = run(&["--device", &given], &format!("{read}; {write}"));
    assert!(seen.stdout.contains("1+0 records out"), "{seen:?}");
    assert!(seen.code != 0 && seen.stderr.contains("Operation not permitted"), "{seen:?}");
    // A node that the container makes by itself is none that it may open.
    let make = format!("busybox mknod /dev/disk b {} {}", disk.major, disk.minor);
    let seen = run(&[], &format!("{make} && {read}"));
    assert!(seen.stdout.contains("Operation not permitted"), "{seen:?}");
    let rule = format!("b {}:* r", disk.major);
    let seen = run(&["--device-cgroup-rule", &rule], &format!("{make} && {read}; {write}"));
    assert!(seen.stdout.contains("1+0 records out") && seen.code != 0, "{seen:?}");
    let seen = run(&["--privileged"], &format!("head -c 1 {} > /dev/null && echo may", disk.node));
    assert_eq!(seen.ok(), "may\n");
    assert_eq!(run(&[], "echo x > /dev/null && head -c 1 /dev/zero | wc -c").ok(), "1\n");
}
