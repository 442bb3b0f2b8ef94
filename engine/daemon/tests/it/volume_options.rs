//! Volumes whose content is elsewhere: `type`, `device` and `o` of the local driver.

use serde_json::json;

use crate::support::{Site, ask, clis};

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
