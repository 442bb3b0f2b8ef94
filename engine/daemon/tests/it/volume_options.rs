//! Volumes whose content is elsewhere: `type`, `device` and `o` of the local driver.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::power_cut::disk::run;
use crate::support::{Site, ask, clis, docker28, wait_until};

fn mounted_volumes(site: &Site) -> Vec<String> {
    let all = site.traces();
    all.into_iter().filter(|trace| trace.ends_with("/_data")).collect()
}

#[test]
fn a_directory_of_the_host_is_a_volume_and_outlives_it() {
    let site = Site::new();
    let there = site.dir.path().join("of the host");
    std::fs::create_dir(&there).unwrap();
    let device = format!("device={}", there.display());
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let make = |name: &str, o: &str| {
            let options = ["--opt", "type=none", "--opt", &device, "--opt", o];
            cli(&[&["volume", "create"][..], &options, &[name]].concat()).ok();
        };
        make("data", "o=bind");
        make("readonly", "o=bind,ro");
        let run = |volume: &str, line: &str| {
            let bind = format!("{volume}:/data");
            cli(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", line])
        };
        run("data", "echo kept > /data/file").ok();
        assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "kept\n");
        assert_eq!(run("readonly", "cat /data/file").ok(), "kept\n");
        assert!(run("readonly", "touch /data/x").stderr.contains("Read-only"));
        assert_eq!(mounted_volumes(&site), Vec::<String>::new());
        let shown = cli(&["volume", "inspect", "-f", "{{index .Options \"o\"}}", "data"]).ok();
        assert_eq!(shown, "bind\n");
        // A container that does not run has nothing mounted; the volume's removal leaves the host's files.
        cli(&["volume", "rm", "data", "readonly"]).ok();
        assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "kept\n");
    }
}

#[test]
fn memory_is_shared_while_a_container_has_it_and_survives_the_engine() {
    let mut site = Site::new();
    let options =
        ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=1770,uid=12"];
    site.docker(&[&["volume", "create"][..], &options, &["mem"]].concat()).ok();
    for name in ["one", "two"] {
        site.docker(&["run", "-d", "--name", name, "-v", "mem:/mem", "busybox", "sleep", "1000"])
            .ok();
    }
    let exec =
        |site: &Site, name: &str, line: &str| site.docker(&["exec", name, "sh", "-c", line]).ok();
    exec(&site, "one", "echo shared > /mem/file");
    assert_eq!(exec(&site, "two", "cat /mem/file; stat -c '%a %u' /mem"), "shared\n1770 12\n");
    let full =
        site.docker(&["exec", "one", "dd", "if=/dev/zero", "of=/mem/big", "bs=1M", "count=2"]);
    assert!(full.stderr.contains("No space left"), "{full:?}");
    site.docker(&["rm", "-f", "one"]).ok();
    assert_eq!(mounted_volumes(&site).len(), 1, "another container has it");
    site.kill_engine();
    site.start_engine();
    // Who runs since before the engine's death still has it when others come and go.
    site.docker(&["run", "--rm", "-v", "mem:/mem", "busybox", "rm", "/mem/big"]).ok();
    assert_eq!(exec(&site, "two", "cat /mem/file; ls /mem"), "shared\nfile\n");
    let used = site.docker(&["volume", "rm", "mem"]);
    assert!(used.stderr.contains("volume is in use"), "{used:?}");
    site.docker(&["rm", "-f", "two"]).ok();
    assert_eq!(mounted_volumes(&site), Vec::<String>::new());
    let emptied = site.docker(&["run", "--rm", "-v", "mem:/mem", "busybox", "ls", "/mem"]).ok();
    assert_eq!(emptied, "");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let site = Site::new();
    let create = |options: serde_json::Value| {
        let body = json!({"Name": "bad", "DriverOpts": options});
        ask(&site, "POST", "/volumes/create", Some(&body))
    };
    for (options, word) in [
        (json!({"type": "tmpfs"}), "device"),
        (json!({"o": "bind"}), "type"),
        (json!({"size": "10g"}), "size"),
        (json!({"colour": "red"}), "colour"),
        (json!({"type": "none", "device": "here", "o": "bind"}), "absolute"),
    ] {
        let refused = create(options);
        assert!(refused.status == 400 && refused.text.contains(word), "{}", refused.text);
    }
    // A file system that no kernel has stands for NFS where the kernel has none.
    let missing = json!({"type": "nosuchfs", "device": ":/x", "o": "addr=127.0.0.1"});
    assert_eq!(create(missing).status, 201);
    let run = site.docker(&["run", "--rm", "-v", "bad:/x", "busybox", "true"]);
    assert!(run.code != 0 && run.stderr.contains("no file system \"nosuchfs\""), "{run:?}");
    let other = create(json!({"type": "tmpfs", "device": "tmpfs"}));
    assert_eq!(other.status, 409, "{}", other.text);
    assert_eq!(site.docker(&["volume", "rm", "bad"]).ok(), "bad\n");
}

#[test]
fn a_mount_makes_its_volume_with_the_drivers_options() {
    let site = Site::new();
    let mount = "type=volume,source=mem,target=/mem,volume-driver=local,volume-opt=type=tmpfs,\
                 volume-opt=device=tmpfs,\"volume-opt=o=size=64k,mode=700\"";
    let shown =
        site.docker(&["run", "--rm", "--mount", mount, "busybox", "stat", "-c", "%a", "/mem"]);
    assert_eq!(shown.ok(), "700\n");
    let options = site.docker(&["volume", "inspect", "-f", "{{.Options.type}}", "mem"]).ok();
    assert_eq!(options, "tmpfs\n");
}

#[test]
fn a_driver_that_is_not_there_is_refused_where_a_volume_needs_it() {
    let site = Site::new();
    let create = |binds: serde_json::Value| {
        let host = json!({"VolumeDriver": "elsewhere", "Binds": binds});
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host});
        ask(&site, "POST", "/containers/create", Some(&body))
    };
    let refused = create(json!(["data:/x"]));
    assert!(refused.status == 404 && refused.text.contains("elsewhere"), "{}", refused.text);
    let made = create(json!(["/tmp:/x"]));
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let inspected = ask(&site, "GET", &format!("/containers/{id}/json"), None).json();
    assert_eq!(inspected["HostConfig"]["VolumeDriver"], "elsewhere");
}

#[test]
fn a_damaged_document_is_written_again_with_its_options_or_not_at_all() {
    let site = Site::new();
    let mount = "type=volume,source=mem,target=/mem,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    site.docker(&["create", "--name", "box", "--mount", mount, "busybox", "mount"]).ok();
    let options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs"];
    site.docker(&[&["volume", "create"][..], &options, &["lone"]].concat()).ok();
    let damage = |name: &str| {
        let path = site.data().join("volumes").join(name).join("volume.json");
        std::fs::write(path, "minke-document 1 lost").unwrap();
    };
    damage("mem");
    damage("lone");
    let report = site.block_on(site.client().verify(true, |_| {})).unwrap();
    let repaired = |name: &str| {
        let mut parts = report.damaged.iter();
        parts.find(|part| part.part == format!("file volumes/{name}/volume.json")).unwrap()
    };
    assert!(repaired("mem").repaired && !repaired("lone").repaired, "{report:?}");
    assert!(repaired("lone").failure.as_ref().unwrap().contains("options"), "{report:?}");
    let shown = site.docker(&["volume", "inspect", "-f", "{{.Options.type}}", "mem"]).ok();
    assert_eq!(shown, "tmpfs\n");
    assert!(site.docker(&["start", "-a", "box"]).ok().contains(" on /mem type tmpfs"));
    // What cannot be repaired can be removed and made again.
    assert_eq!(site.docker(&["volume", "rm", "lone"]).ok(), "lone\n");
    site.docker(&["volume", "create", "lone"]).ok();
}

#[test]
fn a_volume_that_has_lost_its_options_does_not_become_a_directory_of_this_machine() {
    let mut site = Site::new();
    let options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs"];
    site.docker(&[&["volume", "create"][..], &options, &["far"]].concat()).ok();
    site.docker(&["create", "--name", "box", "-v", "far:/far", "busybox", "true"]).ok();
    site.stop_engine();
    std::fs::remove_file(site.data().join("volumes/far/volume.json")).unwrap();
    site.start_engine();
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok(), "");
    for words in [&["start", "box"][..], &["run", "--rm", "-v", "far:/far", "busybox", "true"]] {
        let refused = site.docker(words);
        assert!(refused.code != 0 && refused.stderr.contains("nobody knows"), "{refused:?}");
    }
    assert!(site.docker(&["volume", "rm", "far"]).stderr.contains("volume is in use"));
    site.docker(&["rm", "box"]).ok();
    site.docker(&["volume", "rm", "far"]).ok();
    site.docker(&[&["volume", "create"][..], &options, &["far"]].concat()).ok();
    let shown = site.docker(&["run", "--rm", "-v", "far:/far", "busybox", "mount"]).ok();
    assert!(shown.contains(" on /far type tmpfs"), "{shown}");
}

/// A disk with a file system, which can be made to stand still.
struct Disk {
    storage: Child,
    device: String,
}

impl Disk {
    fn start(dir: &Path) -> Disk {
        let (file, export) = (dir.join("disk.raw"), dir.join("export.raw"));
        std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
        std::fs::File::create(&export).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file));
        let node = format!("driver=file,node-name=disk,filename={}", file.display());
        let shown =
            format!("type=fuse,id=disk,node-name=disk,writable=on,mountpoint={}", export.display());
        let storage = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node, "--export", &shown])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon can be started");
        let mut disk = Disk { storage, device: String::new() };
        wait_until("the disk", || {
            (std::fs::metadata(&export).ok()?.len() == 64 << 20).then_some(())
        });
        disk.device = run(Command::new("losetup").args(["--find", "--show"]).arg(&export));
        disk
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.storage), signal).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.tell(Signal::CONT);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        self.tell(Signal::TERM);
        let _ = self.storage.wait();
    }
}

#[test]
fn a_volume_whose_disk_stands_still_while_it_is_unmounted_holds_up_only_who_needs_it() {
    // Whoever makes a mount namespace at that moment, as every test with containers does, has the mount
    // too for an instant: then ours is not the last, and waits for nothing.
    assert!((0..5).any(|_| removal_waits_alone()), "the disk stood still for nobody");
}

/// Whether a removal waited for its volume's disk; nobody else may in any case.
fn removal_waits_alone() -> bool {
    let site = Site::new();
    let disk = Disk::start(site.dir.path());
    let device = format!("device={}", disk.device);
    site.docker(&["volume", "create", "--opt", "type=ext4", "--opt", &device, "disk"]).ok();
    site.docker(&["volume", "create", "plain"]).ok();
    let write = "echo written > /disk/file; sleep 1000";
    site.docker(&["run", "-d", "--name", "box", "-v", "disk:/disk", "busybox", "sh", "-c", write])
        .ok();
    let file = site.data().join("volumes/disk/_data/file");
    wait_until("the file", || {
        std::fs::read_to_string(&file).is_ok_and(|it| !it.is_empty()).then_some(())
    });
    disk.tell(Signal::STOP);
    let mut removal = site.spawn(&docker28(), &["rm", "-f", "box"]);
    wait_until("the unmounting", || mounted_volumes(&site).is_empty().then_some(()));
    let mut others = site.spawn(&docker28(), &["volume", "create", "another"]);
    let answered = (0..1200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        others.try_wait().unwrap().is_some()
    });
    let waits = removal.try_wait().unwrap().is_none();
    let again = ["run", "--rm", "-v", "disk:/disk", "busybox", "cat", "/disk/file"];
    let again = site.spawn(&docker28(), &again);
    disk.tell(Signal::CONT);
    assert!(answered, "the engine stood still");
    let again = again.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), "written\n", "{again:?}");
    assert!(removal.wait().unwrap().success() && others.wait().unwrap().success());
    assert_eq!(mounted_volumes(&site), Vec::<String>::new());
    waits
}
