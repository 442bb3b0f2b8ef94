//! Containers in user namespaces: their root is nobody on the host, and their files show as their own.

use std::os::unix::fs::MetadataExt;

use crate::support::Site;

/// Host id of the containers' root.
const FIRST: u32 = 1_900_000_000;

fn remapped() -> Site {
    let site = Site::empty(&["--userns-remap", "default"]);
    site.load_image();
    site
}

#[test]
fn root_in_a_container_is_nobody_outside() {
    let site = remapped();
    assert!(site.docker(&["info", "-f", "{{.SecurityOptions}}"]).ok().contains("name=userns"));
    let seen = site.docker(&["run", "--rm", "busybox", "cat", "/proc/self/uid_map"]).ok();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "1900000000", "65536"]);
    site.docker(&["run", "-d", "--name", "box", "-p", "0:80", "busybox", "sleep", "1000"]).ok();
    let pid = site.docker(&["inspect", "-f", "{{.State.Pid}}", "box"]).ok();
    let process = std::fs::metadata(format!("/proc/{}", pid.trim())).unwrap();
    assert_eq!((process.uid(), process.gid()), (FIRST, FIRST));
    // It is root over its own namespaces, but not over the host's.
    let exec = |words: &[&str]| site.docker(&[&["exec", "box"], words].concat());
    assert_eq!(exec(&["id", "-u"]).ok(), "0\n");
    assert_eq!(exec(&["cat", "/proc/self/uid_map"]).ok(), seen);
    let sets = ["grep", "-E", "^Cap(Prm|Eff|Bnd|Inh):", "/proc/self/status"];
    let root = exec(&sets).ok();
    assert_eq!(root.matches("00000000a80425fb").count(), 3, "{root}");
    let app = site.docker(&[&["exec", "-u", "app", "box"], &sets[..]].concat()).ok();
    assert_eq!(app.matches("00000000a80425fb").count(), 1, "{app}");
    assert_eq!(exec(&["grep", "^Seccomp:", "/proc/self/status"]).ok(), "Seccomp:\t2\n");
    exec(&["ping", "-c", "1", "-W", "2", "127.0.0.1"]).ok();
    assert_eq!(exec(&["sh", "-c", "echo 1 > /proc/sysrq-trigger"]).code, 1);
    assert_eq!(exec(&["kill", "-0", "1"]).ok(), "");
    assert_eq!(site.docker(&["exec", "-u", "app", "box", "id", "-u"]).ok(), "12\n");
    // Until it asks for the host's users.
    let plain = ["run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map"];
    let seen = site.docker(&plain).ok();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    for (words, why) in [
        (&["--privileged"][..], "privileged mode is incompatible"),
        (&["--network", "host"], "host's network namespace"),
        (&["--pid", "host"], "host PID namespace"),
    ] {
        let refused = site.docker(&[&["run", "--rm"], words, &["busybox", "true"]].concat());
        assert!(refused.stderr.contains(why), "{refused:?}");
        let own = [&["run", "--rm", "--userns", "host"], words, &["busybox", "true"]].concat();
        site.docker(&own).ok();
    }
    site.docker(&["rm", "-f", "box"]).ok();
    assert_eq!(site.remains(), Vec::<String>::new());
}

#[test]
fn files_keep_the_owners_that_the_container_knows() {
    let site = remapped();
    let look = "stat -c '%u:%g %n' /bin/busybox /var/data/seed /etc/hosts /v/made /tmp/mine";
    let work = format!("touch /v/made /tmp/mine; chown 12:34 /v/made; chown 7 /tmp/mine; {look}");
    let owners =
        "0:0 /bin/busybox\n12:12 /var/data/seed\n0:0 /etc/hosts\n12:34 /v/made\n7:0 /tmp/mine\n";
    let run = ["run", "--name", "box", "-v", "vol:/v", "-v", "seeded:/var/data", "busybox"];
    assert_eq!(site.docker(&[&run[..], &["sh", "-c", &work]].concat()).ok(), owners);
    // On the disk they are the same, so every other view of them is right.
    let volume = std::fs::metadata(site.data().join("volumes/vol/_data/made")).unwrap();
    assert_eq!((volume.uid(), volume.gid()), (12, 34));
    assert!(site.docker(&["diff", "box"]).ok().contains("A /tmp/mine"));
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "box"]).ok();
    let own = site.data().join("containers").join(id.trim()).join("upper/tmp/mine");
    assert_eq!(std::fs::metadata(own).unwrap().uid(), 7);
    let again = ["run", "--rm", "--userns", "host", "-v", "vol:/v", "-v", "seeded:/var/data"];
    let look = "stat -c '%u:%g %n' /var/data/seed /v/made";
    let again = [&again[..], &["busybox", "sh", "-c", look]].concat();
    assert_eq!(site.docker(&again).ok(), "12:12 /var/data/seed\n12:34 /v/made\n");
    // A directory of the host is not mapped: its files belong to somebody outside.
    let host = site.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let bind = format!("{}:/h", host.display());
    let outside = ["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "stat -c %u /h; touch /h/x"];
    let refused = site.docker(&outside);
    assert!(refused.stdout == "65534\n" && refused.code != 0, "{refused:?}");
}

#[test]
fn copies_in_and_out_keep_owners() {
    let site = remapped();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let make = "mkdir /out; touch /out/a; chown 12:34 /out/a";
    site.docker(&["exec", "box", "sh", "-c", make]).ok();
    let copied = std::process::Command::new("docker")
        .args(["cp", "box:/out", "-"])
        .env("DOCKER_HOST", format!("unix://{}", site.socket().display()))
        .output()
        .unwrap();
    let mut archive = tar::Archive::new(copied.stdout.as_slice());
    let owners: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            (path, header.uid().unwrap(), header.gid().unwrap())
        })
        .collect();
    assert_eq!(owners, [("out".to_owned(), 0, 0), ("out/a".to_owned(), 12, 34)]);
    let docker = std::path::Path::new("docker");
    site.command(docker, &["cp", "-a", "-", "box:/tmp"], &copied.stdout).ok();
    let seen = site.docker(&["exec", "box", "stat", "-c", "%u:%g", "/tmp/out/a", "/tmp/out"]).ok();
    assert_eq!(seen, "12:34\n0:0\n");
}

#[test]
fn containers_that_share_a_namespace_share_their_users() {
    let site = remapped();
    site.docker(&["run", "-d", "--name", "box", "--ipc", "shareable", "busybox", "sleep", "1000"])
        .ok();
    let own = |of: &str| site.docker(&["exec", of, "readlink", "/proc/1/ns/user"]).ok();
    for shared in ["--network", "--ipc", "--pid"] {
        let words = ["run", "-d", "--name", "other", shared, "container:box", "busybox"];
        site.docker(&[&words[..], &["sleep", "1000"]].concat()).ok();
        assert_eq!(own("other"), own("box"), "{shared}");
        site.docker(&["rm", "-f", "other"]).ok();
    }
}

#[test]
fn an_exec_enters_the_users_of_its_container() {
    let site = remapped();
    // Kernel parameters of its network are looked at again at each exec.
    let options = ["--sysctl", "net.ipv4.ip_default_ttl=77", "-m", "64m"];
    let start = ["run", "-d", "--name", "box"];
    site.docker(&[&start[..], &options, &["busybox", "sleep", "1000"]].concat()).ok();
    let script =
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/uid_map; readlink /proc/self/ns/user";
    let seen = site.docker(&["exec", "box", "sh", "-c", script]).ok();
    let own = site.docker(&["exec", "-u", "app", "box", "readlink", "/proc/self/ns/user"]).ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["77", "0", "1900000000", "65536", own.trim()]);
    // At a terminal too.
    let tty = site.at_terminal(std::path::Path::new("docker"), "$docker exec -it box tty", b"");
    // The end of our input may be echoed first.
    assert!(tty.code == 0 && tty.stdout.contains("/dev/pts/0"), "{tty:?}");
}

/// Owners of what is in an archive, by path.
fn owners(archive: &[u8], wanted: &[&str]) -> Vec<(String, u64, u64)> {
    let mut archive = tar::Archive::new(archive);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let header = entry.header();
        if wanted.contains(&path.as_str()) {
            found.push((path, header.uid().unwrap(), header.gid().unwrap()));
        }
    }
    found.sort();
    found
}

fn output_of(site: &Site, words: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("docker")
        .args(words)
        .env("DOCKER_HOST", format!("unix://{}", site.socket().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn exports_and_commits_have_the_owners_that_the_container_knows() {
    let site = remapped();
    site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let make = "mkdir /out; touch /out/a; ln -s a /out/b; chown 12:34 /out/a; chown -h 7:8 /out/b";
    site.docker(&["exec", "box", "sh", "-c", make]).ok();
    let wanted = ["bin/busybox", "out/a", "out/b", "var/data/seed"];
    let expected =
        [("bin/busybox", 0, 0), ("out/a", 12, 34), ("out/b", 7, 8), ("var/data/seed", 12, 12)];
    let expected = expected.map(|(path, uid, gid)| (path.to_owned(), uid, gid));
    assert_eq!(owners(&output_of(&site, &["export", "box"]), &wanted), expected);
    site.docker(&["commit", "box", "made"]).ok();
    let look = ["busybox", "stat", "-c", "%u:%g", "/out/a", "/out/b", "/var/data/seed"];
    for users in [&[][..], &["--userns", "host"]] {
        let words = [&["run", "--rm"], users, &["made"], &look[..]].concat();
        assert_eq!(site.docker(&words).ok(), "12:34\n7:8\n12:12\n", "{users:?}");
    }
    site.docker(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(owners(&output_of(&site, &["export", "box"]), &wanted), expected);
    // What goes in again is as it came out.
    let archive = output_of(&site, &["export", "box"]);
    let docker = std::path::Path::new("docker");
    site.command(docker, &["import", "-", "back"], &archive).ok();
    let words = [&["run", "--rm", "back"], &look[..]].concat();
    assert_eq!(site.docker(&words).ok(), "12:34\n7:8\n12:12\n");
}
