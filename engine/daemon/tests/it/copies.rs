//! `docker cp` and `docker export`: what is copied arrives as it was, and nothing else is touched.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

use crate::support::{Site, ask, ask_with, clis, docker28};

/// An archive of one file with this name, which no honest program writes.
fn archive(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o644);
    header.set_size(3);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &b"new"[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn what_comes_in_goes_below_its_destination_and_removes_nothing_elsewhere() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "box", "-u", "app", "busybox", "sleep", "1000"]).ok();
    let exec = |line: &str| site.docker(&["exec", "-u", "root", "box", "sh", "-c", line]);
    exec("mkdir -p /srv/keep && echo kept > /srv/keep/file").ok();
    let put = |name: &str, more: &str| {
        let path = format!("/containers/box/archive?path=/etc{more}");
        ask_with(&site, "PUT", &path, &["Content-Type: application/x-tar"], &archive(name))
    };
    for more in ["", "&copyUIDGID=1"] {
        assert_eq!(put("/srv/keep", more).status, 200);
        let refused = put("../srv/keep", more);
        assert!(
            refused.status == 400 && refused.text.contains("leads outside"),
            "{}",
            refused.text
        );
        let seen = exec("cat /srv/keep/file /etc/srv/keep; stat -c %u /srv/keep").ok();
        assert_eq!(seen, "kept\nnew0\n");
    }
}

#[test]
fn a_file_of_the_host_that_is_mounted_is_copied_out_whether_the_container_runs_or_not() {
    let site = Site::new();
    let there = site.dir.path().join("of-the-host");
    std::fs::write(&there, "mounted\n").unwrap();
    std::fs::write(site.dir.path().join("beside"), "secret\n").unwrap();
    let bind = format!("{}:/etc/app.conf", there.display());
    let local = site.dir.path().join("local").display().to_string();
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        cli(&["create", "--name", "box", "-v", &bind, "busybox", "sleep", "1000"]).ok();
        for started in [false, true] {
            if started {
                cli(&["start", "box"]).ok();
            }
            cli(&["cp", "box:/etc/app.conf", &local]).ok();
            assert_eq!(std::fs::read_to_string(&local).unwrap(), "mounted\n");
            std::fs::remove_file(&local).unwrap();
        }
        cli(&["rm", "-f", "box"]).ok();
    }
    site.docker(&["create", "--name", "box", "-v", &bind, "busybox", "true"]).ok();
    for path in ["/etc/app.conf/x", "/etc/app.conf/../beside", "/etc/beside"] {
        let answer = ask(&site, "GET", &format!("/containers/box/archive?path={path}"), None);
        assert!([400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
    }
}

#[test]
fn links_pipes_capabilities_and_times_survive_a_copy_and_an_export() {
    let site = Site::new();
    let make = "mkdir -p /x/sub; echo x > /x/one; ln /x/one /x/two; mkfifo /x/pipe; \
                touch -d '2001-09-09 01:46:40' /x/sub";
    site.docker(&["run", "--name", "from", "busybox", "sh", "-c", make]).ok();
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "from"]).ok();
    let upper = site.data().join("containers").join(id.trim()).join("upper");
    let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (flags, name) = (rustix::fs::XattrFlags::empty(), "security.capability");
    rustix::fs::lsetxattr(upper.join("x/one"), name, &capability, flags).unwrap();
    let tar = site.dir.path().join("x.tar");
    // A tar is no text, as which a site takes what a command says.
    let docker = |words: &[&str], stdin: Stdio| {
        let host = format!("unix://{}", site.socket().display());
        let mut command = Command::new(docker28());
        let output = command.args(words).env("DOCKER_HOST", host).stdin(stdin).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    std::fs::write(&tar, docker(&["cp", "from:/x", "-"], Stdio::null())).unwrap();
    docker(&["create", "--name", "to", "busybox", "true"], Stdio::null());
    docker(&["cp", "-", "to:/"], std::fs::File::open(&tar).unwrap().into());
    std::fs::write(&tar, docker(&["export", "from"], Stdio::null())).unwrap();
    docker(&["import", "-", "exported"], std::fs::File::open(&tar).unwrap().into());
    let layers = site.data().join("images/layers");
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "to"]).ok();
    let copied = site.data().join("containers").join(id.trim()).join("upper");
    let mut roots = vec![copied];
    for layer in std::fs::read_dir(layers).unwrap().flatten() {
        roots.push(layer.path().join("fs"));
    }
    roots.retain(|root| root.join("x").exists());
    assert_eq!(roots.len(), 2, "the copy and the layer of the import");
    for root in roots.iter().map(|root| root.join("x")) {
        let of = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!((of("one").ino(), of("one").nlink()), (of("two").ino(), 2), "{root:?}");
        assert!(of("pipe").file_type().is_fifo(), "{root:?}");
        assert_eq!(of("sub").mtime(), 1_000_000_000, "{root:?}");
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(root.join("one"), name, &mut value).unwrap();
        assert_eq!(value[..length], capability, "{root:?}");
    }
}

/// What a program makes of bytes.
fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[test]
fn an_archive_may_be_packed_in_any_way_and_in_pieces() {
    let site = Site::new();
    site.docker(&["create", "--name", "box", "busybox", "true"]).ok();
    let put = |bytes: &[u8]| {
        let path = "/containers/box/archive?path=/tmp";
        ask_with(&site, "PUT", path, &["Content-Type: application/x-tar"], bytes)
    };
    // As parallel programs write it: a member for each piece.
    let mut tar = archive("first");
    tar.truncate(1024);
    let pieces = [tar, archive("second")].map(|bytes| through("gzip", &bytes)).concat();
    let unpacked = put(&pieces);
    assert_eq!(unpacked.status, 200, "{}", unpacked.text);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let unpacked = put(&through(program, &archive(program)));
        assert_eq!(unpacked.status, 200, "{program}: {}", unpacked.text);
    }
    let names = ["first", "second", "gzip", "bzip2", "xz", "zstd"];
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "box"]).ok();
    let upper = site.data().join("containers").join(id.trim()).join("upper");
    for name in names {
        assert_eq!(std::fs::read_to_string(upper.join("tmp").join(name)).unwrap(), "new");
    }
    for program in ["bzip2", "xz", "zstd"] {
        let mut broken = through(program, &archive("broken"));
        broken.truncate(broken.len() / 2);
        let refused = put(&broken);
        assert!(refused.status == 400 && refused.text.contains(program), "{}", refused.text);
    }
}

#[test]
fn a_file_that_the_image_has_taken_away_is_new_when_it_comes_back() {
    let site = Site::new();
    let run = |name: &str, image: &str, line: &str| {
        site.docker(&["run", "--name", name, image, "sh", "-c", line]).ok();
    };
    run("one", "busybox", "rm /etc/passwd; rm -r /var/data; mkdir /var/data");
    site.docker(&["commit", "one", "without"]).ok();
    run("two", "without", "echo x >> /etc/passwd; touch /var/data/seed; echo x > /etc/group");
    let diff = site.docker(&["diff", "two"]).ok();
    let lines: Vec<&str> = diff.lines().collect();
    for line in ["A /etc/passwd", "A /var/data/seed", "C /var/data", "C /etc/group"] {
        assert!(lines.contains(&line), "{line}: {diff}");
    }
}
