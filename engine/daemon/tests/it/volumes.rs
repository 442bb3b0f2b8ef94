//! Volumes, binds and tmpfs.

use std::os::unix::fs::MetadataExt;

use crate::support::{Site, ask, clis};

#[test]
fn a_named_volume_takes_the_images_content_and_persists() {
    let site = Site::new();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let run = |line: &str| {
            cli(&["run", "--rm", "-v", "data:/var/data", "busybox", "sh", "-c", line]).ok()
        };
        assert_eq!(run("cat /var/data/seed; echo more > /var/data/more"), "from the image\n");
        assert_eq!(run("ls /var/data; stat -c '%u %a' /var/data"), "more\nseed\n12 750\n");
        let held = cli(&["create", "--name", "holder", "-v", "data:/x", "busybox"]);
        held.ok();
        let used = cli(&["volume", "rm", "data"]);
        assert!(used.code == 1 && used.stderr.contains("volume is in use"), "{used:?}");
        cli(&["rm", "-v", "holder"]).ok();
        let mountpoint = cli(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).ok();
        assert_eq!(std::fs::metadata(mountpoint.trim()).unwrap().uid(), 12);
        cli(&["volume", "rm", "data"]).ok();
        assert_eq!(cli(&["volume", "ls", "-q"]).ok(), "");
    }
}

#[test]
fn anonymous_volumes_go_with_their_container_when_asked() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    cli(&["run", "--rm", "-v", "/var/data", "busybox", "true"]).ok();
    assert_eq!(cli(&["volume", "ls", "-q"]).ok(), "");
    cli(&["run", "--name", "kept", "-v", "/var/data", "busybox", "true"]).ok();
    cli(&["rm", "kept"]).ok();
    assert_eq!(cli(&["volume", "ls", "-q"]).ok().lines().count(), 1);
}

#[test]
fn a_volume_that_is_asked_for_by_name_stays_though_it_was_made_without_one() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let made = cli(&["volume", "create"]).ok().trim().to_owned();
    cli(&["run", "--name", "first", "-v", "/data", "busybox", "true"]).ok();
    cli(&["rm", "first"]).ok();
    let left = cli(&["volume", "ls", "-q"]).ok();
    let left = left.lines().find(|name| *name != made).unwrap().to_owned();
    let names = || {
        let names = cli(&["volume", "ls", "-q"]).ok();
        names.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let both = [made.clone(), left.clone()].into();
    for volume in [&made, &left] {
        let bind = format!("{volume}:/data");
        cli(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo kept > /data/file"]).ok();
        cli(&["create", "--name", "box", "-v", &bind, "busybox"]).ok();
        cli(&["create", "--name", "other", "--volumes-from", "box", "busybox"]).ok();
        cli(&["rm", "-v", "box", "other"]).ok();
        assert_eq!(names(), both);
        let seen = cli(&["run", "--rm", "-v", &bind, "busybox", "cat", "/data/file"]);
        assert_eq!(seen.ok(), "kept\n");
    }
    // What nobody names goes with the last container that has it.
    cli(&["create", "--name", "box", "-v", "/data", "busybox"]).ok();
    cli(&["create", "--name", "other", "--volumes-from", "box", "busybox"]).ok();
    cli(&["rm", "-v", "box"]).ok();
    assert_eq!(names().len(), 3);
    cli(&["rm", "-v", "other"]).ok();
    assert_eq!(names(), both);
    // To be pruned is enough that a volume has been made without a name.
    cli(&["volume", "prune", "-f"]).ok();
    assert_eq!(names().len(), 0);
}

#[test]
fn directories_that_are_nested_deeper_than_the_engine_has_descriptors_are_removed() {
    let site = Site::new();
    let engine = rustix::process::Pid::from_raw(site.engine_pid() as i32);
    let few = rustix::process::Rlimit { current: Some(256), maximum: Some(256) };
    rustix::process::prlimit(engine, rustix::process::Resource::Nofile, few).unwrap();
    let nest = "for top in /root /data; do cd $top; i=0; \
                while [ $i -lt 600 ]; do mkdir d; cd d; i=$((i+1)); done; done";
    site.docker(&["run", "--rm", "-v", "/data", "busybox", "sh", "-c", nest]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
    let volumes = || std::fs::read_dir(site.data().join("volumes")).unwrap().count();
    crate::support::wait_until("an empty folder", || (volumes() == 0).then_some(()));
}

#[test]
fn binds_volumes_from_and_tmpfs() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let host = site.dir.path().join("made/by/engine");
    let bind = format!("{}:/bound", host.display());
    cli(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo from inside > /bound/file"])
        .ok();
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "from inside\n");
    let read_only =
        cli(&["run", "--rm", "-v", &format!("{bind}:ro"), "busybox", "touch", "/bound/x"]);
    assert!(read_only.code == 1 && read_only.stderr.contains("Read-only"), "{read_only:?}");
    let missing = format!("type=bind,source={}/no,target=/x", host.display());
    let missing = cli(&["run", "--rm", "--mount", &missing, "busybox", "true"]);
    assert!(missing.code == 125 && missing.stderr.contains("bind source path does not exist"));
    cli(&["create", "--name", "source", "-v", &bind, "-v", "vol:/vol", "busybox"]).ok();
    let seen = cli(&["run", "--rm", "--volumes-from", "source", "busybox", "cat", "/bound/file"]);
    assert_eq!(seen.ok(), "from inside\n");
    let tmpfs = cli(&[
        "run",
        "--rm",
        "--tmpfs",
        "/t:size=1m,mode=0700",
        "busybox",
        "sh",
        "-c",
        "mount | grep ' /t '; stat -c %a /t",
    ]);
    let tmpfs = tmpfs.ok();
    assert!(tmpfs.contains("size=1024k") && tmpfs.ends_with("700\n"), "{tmpfs}");
}

#[test]
fn a_directory_inside_a_volume_is_mounted_and_cannot_lead_out() {
    let site = Site::new();
    let cli = |words: &[&str]| site.docker(words);
    let make = "mkdir -p /v/sub; echo deep > /v/sub/file; ln -s /etc /v/out; ln -s sub /v/in";
    cli(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", make]).ok();
    let list = |subpath: &str| {
        let mount = format!("type=volume,source=vol,target=/x,volume-subpath={subpath}");
        cli(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/x"])
    };
    assert_eq!(list("sub").ok(), "file\n");
    assert_eq!(list("in").ok(), "file\n");
    assert_ne!(list("out").code, 0, "the link leads to /etc of the volume, which is not there");
    assert!(list("../..").stderr.contains("subpath"));
}

#[test]
fn a_volume_that_loses_its_document_while_no_engine_runs_is_kept() {
    let mut site = Site::new();
    let run = ["run", "--rm", "-v", "keep:/v", "busybox", "sh", "-c", "echo data > /v/file"];
    site.docker(&run).ok();
    site.docker(&["create", "--name", "box", "-v", "/anonymous", "busybox"]).ok();
    site.stop_engine();
    let all = site.data().join("volumes");
    for volume in std::fs::read_dir(&all).unwrap().flatten() {
        std::fs::write(volume.path().join("_data/more"), "").unwrap();
        std::fs::remove_file(volume.path().join("volume.json")).unwrap();
    }
    site.start_engine();
    let seen = site.docker(&["run", "--rm", "-v", "keep:/v", "busybox", "cat", "/v/file"]);
    assert_eq!(seen.ok(), "data\n");
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok().lines().count(), 2);
    // That it has no name of its own is known from its container.
    site.docker(&["rm", "-v", "box"]).ok();
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok(), "keep\n");
}

#[test]
fn containers_that_start_at_once_with_a_new_volume_all_see_it_filled() {
    let site = Site::new();
    for round in 0..3 {
        let bind = format!("new{round}:/var/data");
        let run = ["run", "--rm", "-v", &bind, "busybox", "cat", "/var/data/seed"];
        let children: Vec<_> =
            (0..4).map(|_| site.spawn(&crate::support::docker28(), &run)).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "from the image\n", "{output:?}");
        }
    }
    site.docker(&["volume", "prune", "-af"]).ok();
    assert_eq!(std::fs::read_dir(site.data().join("volumes")).unwrap().count(), 0);
}

#[test]
fn what_is_read_only_is_so_with_all_that_is_mounted_below_it() {
    let site = Site::new();
    let dir = site.dir.path().join("bound");
    std::fs::create_dir_all(dir.join("inner")).unwrap();
    let inner = dir.join("inner").display().to_string();
    site.command_of("mount", &["-t", "tmpfs", "inner", &inner], b"").ok();
    let host_network = "ls /sys/class/net/lo > /dev/null && echo shown; \
                        grep ' /sys' /proc/self/mounts | grep -v ' /sys/fs/cgroup' | grep ' rw,'";
    let seen =
        site.docker(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", host_network]);
    let write = |mount: &str, place: &str| {
        let script = format!("echo x > /d/{place}");
        site.docker(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", &script]).code == 0
    };
    let mount = format!("type=bind,source={},target=/d", dir.display());
    let written = [
        &*mount,
        &format!("{mount},readonly"),
        &format!("{mount},readonly,bind-propagation=rprivate,bind-recursive=readonly"),
    ]
    .map(|mount| (write(mount, "file"), write(mount, "inner/file")));
    site.command_of("umount", &[&inner], b"").ok();
    assert_eq!(written, [(true, true), (false, false), (false, false)]);
    assert_eq!(seen.stdout, "shown\n", "{seen:?}");
}

/// A bind of this directory in its long form.
fn bound(source: &std::path::Path, options: &str) -> String {
    format!("type=bind,source={},target=/x{options}", source.display())
}

#[test]
fn a_bind_has_what_is_mounted_below_it_unless_that_is_not_wanted() {
    let site = Site::new();
    let outer = site.dir.path().join("outer");
    let inner = outer.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(outer.join("file"), "").unwrap();
    site.command_of("mount", &["-t", "tmpfs", "none", inner.to_str().unwrap()], b"").ok();
    std::fs::write(inner.join("deep"), "").unwrap();
    let list = |options: &str| {
        let mount = bound(&outer, options);
        site.docker(&["run", "--rm", "--mount", &mount, "busybox", "sh", "-c", "cd /x; ls . inner"])
    };
    assert_eq!(list("").ok(), ".:\nfile\ninner\n\ninner:\ndeep\n");
    assert_eq!(list(",bind-recursive=disabled").ok(), ".:\nfile\ninner\n\ninner:\n");
    let refused = list(",readonly,bind-recursive=writable");
    assert!(refused.code == 125 && refused.stderr.contains("ReadOnlyNonRecursive"), "{refused:?}");
    let options = serde_json::json!({ "ReadOnlyNonRecursive": true });
    let mount = serde_json::json!({ "Type": "bind", "Source": outer, "Target": "/x",
        "ReadOnly": true, "BindOptions": options });
    let body = serde_json::json!({ "Image": "busybox", "HostConfig": { "Mounts": [mount] } });
    let answer = ask(&site, "POST", "/containers/create", Some(&body));
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("ReadOnlyNonRecursive"), "{}", answer.text);
}

#[test]
fn memory_that_is_asked_for_read_only_cannot_be_written() {
    let site = Site::new();
    for (options, code) in [("/x", 0), ("/x:rw", 0), ("/x:ro", 1), ("/x:size=1m,ro", 1)] {
        let written = site.docker(&["run", "--rm", "--tmpfs", options, "busybox", "touch", "/x/a"]);
        let why = if code == 0 { "" } else { "Read-only file system" };
        assert!(written.code == code && written.stderr.contains(why), "{options}: {written:?}");
    }
}
