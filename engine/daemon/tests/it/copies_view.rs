//! What `docker cp` sees of a container: all that it has mounted, whether it runs or not, and nothing of the
//! host's.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Site, ask, ask_with, clis, wait_until};

/// An archive of one file.
fn archive(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(3);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, name, &b"new"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn put(site: &Site, name: &str, path: &str, bytes: &[u8]) -> u16 {
    let path = format!("/containers/{name}/archive?path={path}");
    ask_with(site, "PUT", &path, &["Content-Type: application/x-tar"], bytes).status
}

fn directory(site: &Site, name: &str) -> PathBuf {
    let path = site.dir.path().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn upper(site: &Site, name: &str) -> PathBuf {
    let id = site.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    site.data().join("containers").join(id.trim()).join("upper")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits until the engine has no mount namespace beside its own.
fn wait_for_views(site: &Site) {
    let namespaces = || -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", site.engine_pid())).unwrap();
        let read = |task: std::fs::DirEntry| std::fs::read_link(task.path().join("ns/mnt")).ok();
        let mut all: Vec<_> = tasks.flatten().filter_map(read).collect();
        all.sort();
        all.dedup();
        all
    };
    wait_until("the end of all views", || (namespaces().len() == 1).then_some(()));
}

#[test]
fn links_into_the_hosts_processes_lead_copies_nowhere() {
    let site = Site::new();
    let outside = directory(&site, "outside");
    std::fs::write(outside.join("secret"), "of the host").unwrap();
    let words = ["run", "-d", "--name", "box", "--pid", "host", "-v", "/proc:/host/proc"];
    site.docker(&[&words[..], &["busybox", "sleep", "1000"]].concat()).ok();
    // The test itself is a process of the host's.
    let root = format!("proc/{}/root{}", std::process::id(), outside.display());
    for (number, to) in [format!("/{root}"), format!("/host/{root}")].iter().enumerate() {
        // By its text, a link leads to what the container has at the same path.
        let link = format!("mkdir -p {}; ln -s {to} /way{number}", outside.display());
        site.docker(&["exec", "box", "sh", "-c", &link]).ok();
    }
    for started in [true, false] {
        if !started {
            site.docker(&["stop", "-t", "0", "box"]).ok();
        }
        for way in ["way0", "way1"] {
            assert_ne!(put(&site, "box", "/", &archive(&format!("{way}/x"))), 200, "{way}");
            assert_ne!(put(&site, "box", &format!("/{way}"), &archive("x")), 200, "{way}");
            let read = format!("/containers/box/archive?path=/{way}/secret");
            let read = ask(&site, "GET", &read, None);
            assert!(read.status == 404 && !read.text.contains("of the host"), "{}", read.text);
        }
    }
    assert_eq!(names(&outside), ["secret"]);
    wait_for_views(&site);
}

#[test]
fn a_containers_root_is_copied_whole_with_what_is_mounted_and_without_the_kernels_files() {
    let site = Site::new();
    let host = directory(&site, "host");
    std::fs::write(host.join("file"), "of the host").unwrap();
    let bind = format!("{}:/srv/host", host.display());
    for docker in clis() {
        let cli = |words: &[&str]| site.cli(&docker, words);
        let words = ["run", "-d", "--name", "box", "-v", &bind, "-v", "vol:/var/data"];
        cli(&[&words[..], &["busybox", "sleep", "1000"]].concat()).ok();
        cli(&["exec", "box", "sh", "-c", "echo last > /zzz; echo x > /var/data/new"]).ok();
        for started in [true, false] {
            if !started {
                cli(&["stop", "-t", "0", "box"]).ok();
            }
            let out = site.dir.path().join("out");
            cli(&["cp", "box:/", out.to_str().unwrap()]).ok();
            let read = |path: &str| {
                let read = std::fs::read_to_string(out.join(path));
                read.unwrap_or_else(|error| panic!("{path}: {error}: {:?}", names(&out)))
            };
            assert_eq!(
                (read("zzz"), read("srv/host/file")),
                ("last\n".into(), "of the host".into())
            );
            assert_eq!(names(&out.join("var/data")), ["new", "seed"]);
            assert!(read("etc/hosts").contains("localhost") && read("etc/passwd").contains("app"));
            for kernels in ["proc", "sys", "dev"] {
                assert_eq!(names(&out.join(kernels)), Vec::<String>::new(), "{kernels}");
            }
            std::fs::remove_dir_all(out).unwrap();
        }
        cli(&["rm", "box"]).ok();
        cli(&["volume", "rm", "vol"]).ok();
    }
    assert_eq!(site.remains(), Vec::<String>::new());
}

/// Makes directories one in another, deeper than a path may say.
fn nest(top: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(CWD, top, flags, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..30 {
        mkdirat(&here, &name, Mode::RWXU).unwrap();
        here = openat(&here, &name, flags, Mode::empty()).unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_a_failure_and_no_shorter_archive() {
    let site = Site::new();
    // Files that nobody can read, root neither.
    let words = ["run", "-d", "--name", "box", "-v", "/sys/bus/platform:/x", "busybox"];
    site.docker(&[&words[..], &["sleep", "1000"]].concat()).ok();
    let out = site.dir.path().join("out");
    for docker in clis() {
        let copy = site.cli(&docker, &["cp", "box:/x", out.to_str().unwrap()]);
        assert!(copy.code != 0, "{copy:?}");
        let _ = std::fs::remove_dir_all(&out);
    }
    assert!(site.log().contains("/bind: Permission denied"), "it is said which file");
    let top = upper(&site, "box").join("top");
    site.docker(&["exec", "box", "mkdir", "/top"]).ok();
    nest(&top);
    let tar = site.dir.path().join("a.tar").display().to_string();
    for docker in clis() {
        let export = site.cli(&docker, &["export", "-o", &tar, "box"]);
        assert!(export.code != 0, "{export:?}");
    }
    site.docker(&["save", "-o", &tar, "busybox"]).ok();
    let layers = std::fs::read_dir(site.data().join("images/layers")).unwrap().flatten();
    let programs = layers.map(|layer| layer.path().join("fs/bin/busybox"));
    let program = programs.into_iter().find(|path| path.is_file()).unwrap();
    std::fs::remove_file(program).unwrap();
    for docker in clis() {
        let save = site.cli(&docker, &["save", "-o", &tar, "busybox"]);
        assert!(save.code != 0, "{save:?}");
    }
}

#[test]
fn copies_to_and_from_a_stopped_container_find_its_volumes() {
    let site = Site::new();
    let local = directory(&site, "tree/data");
    std::fs::write(local.join("new"), "from outside").unwrap();
    let words = ["create", "--name", "box", "-v", "vol:/srv/data", "-v", "seeded:/var/data"];
    site.docker(&[&words[..], &["busybox", "sh", "-c", "ln -s /etc /srv/data/conf"]].concat()).ok();
    let out = site.dir.path().join("out");
    // As with Docker, what the image has for a volume is in it before the first start.
    site.docker(&["cp", "box:/var/data/seed", out.to_str().unwrap()]).ok();
    assert!(out.is_file());
    std::fs::remove_file(&out).unwrap();
    site.docker(&["start", "-a", "box"]).ok();
    let tree = format!("{}/.", site.dir.path().join("tree").display());
    site.docker(&["cp", &tree, "box:/srv"]).ok();
    site.docker(&["cp", "box:/srv", out.to_str().unwrap()]).ok();
    assert_eq!(names(&out.join("data")), ["conf", "new"]);
    let seen = ["run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/new"];
    assert_eq!(site.docker(&seen).ok(), "from outside");
    assert!(!upper(&site, "box").join("srv/data/new").exists(), "the volume would hide it");
    // A link in a volume leads to what the container has there.
    let through = "/containers/box/archive?path=/srv/data/conf/passwd";
    let answer = ask(&site, "GET", through, None);
    assert!(answer.status == 200 && answer.text.contains("app:x:12"), "{}", answer.text);
    assert_eq!(site.docker(&["diff", "box"]).ok(), "");
    wait_for_views(&site);
}

#[test]
fn a_volume_whose_content_is_elsewhere_is_mounted_for_a_copy() {
    let site = Site::new();
    let there = directory(&site, "there");
    let local = directory(&site, "local");
    std::fs::write(local.join("file"), "copied").unwrap();
    let device = format!("device={}", there.display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    site.docker(&[&["volume", "create"][..], &options, &["vol"]].concat()).ok();
    site.docker(&["create", "--name", "box", "-v", "vol:/data", "busybox", "true"]).ok();
    site.docker(&["cp", local.join("file").to_str().unwrap(), "box:/data/"]).ok();
    assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "copied");
    let back = local.join("back");
    site.docker(&["cp", "box:/data/file", back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(back).unwrap(), "copied");
    // Nothing stays mounted, and nothing has gone to this disk.
    assert_eq!(site.remains(), Vec::<String>::new());
    assert_eq!(names(&site.data().join("volumes/vol/_data")), Vec::<String>::new());
}

#[test]
fn what_is_read_only_or_not_there_takes_nothing() {
    let site = Site::new();
    let (host, file) = (directory(&site, "host"), site.dir.path().join("file"));
    std::fs::write(&file, "mounted").unwrap();
    symlink("/var/data", host.join("link")).unwrap();
    let (gone, bind) = (directory(&site, "gone"), format!("{}:/host:ro", host.display()));
    let missing = format!("{}:/gone", gone.display());
    let conf = format!("{}:/conf", file.display());
    let words = ["create", "--name", "box", "-v", &bind, "-v", "vol:/var/data", "-v", &conf];
    let words = [&words[..], &["-v", &missing, "busybox", "sleep", "1000"]].concat();
    site.docker(&words).ok();
    let words = ["create", "--name", "fixed", "--read-only", "-v", "vol:/var/data", "busybox"];
    site.docker(&[&words[..], &["sleep", "1000"]].concat()).ok();
    std::fs::remove_dir(&gone).unwrap();
    let put = |name: &str, path: &str, file: &str| put(&site, name, path, &archive(file));
    assert_eq!(put("box", "/gone", "x"), 404);
    assert_eq!(ask(&site, "GET", "/containers/box/archive?path=/gone", None).status, 404);
    // Nor beneath it, where the mount would hide it.
    assert_eq!(put("box", "/", "gone/x"), 403);
    std::fs::create_dir(&gone).unwrap();
    for started in [false, true] {
        if started {
            site.docker(&["start", "box", "fixed"]).ok();
        }
        assert_eq!(put("box", "/host", "x"), 403);
        assert_eq!(put("box", "/", "host/x"), 403);
        // A link out of it leads to a volume that may be written.
        assert_eq!(put("box", "/host/link", "x"), 200);
        // Another file in its place would not be the one that is mounted.
        assert_eq!(put("box", "/", "conf"), 400);
        assert_eq!(put("fixed", "/etc", "x"), 403);
        assert_eq!(put("fixed", "/var/data", "y"), 200);
    }
    assert_eq!(names(&host), ["link"]);
    assert_eq!(names(&site.data().join("volumes/vol/_data")), ["seed", "x", "y"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mounted");
    assert!(!upper(&site, "box").join("gone/x").exists());
}

#[test]
fn volumes_of_a_container_in_a_user_namespace_keep_their_owners_in_copies() {
    let site = Site::empty(&["--userns-remap", "default"]);
    site.load_image();
    let run = ["run", "-d", "--name", "box", "-v", "vol:/v", "busybox", "sleep", "1000"];
    site.docker(&run).ok();
    site.docker(&["exec", "box", "sh", "-c", "echo x > /v/a; chown 12:34 /v/a"]).ok();
    let tar = |words: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", site.socket().display()));
        command.args(words).output().unwrap().stdout
    };
    for started in [true, false] {
        if !started {
            site.docker(&["stop", "-t", "0", "box"]).ok();
        }
        let copied = tar(&["cp", "box:/v", "-"]);
        let mut read = tar::Archive::new(&copied[..]);
        let owners = read.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            (entry.path_bytes().into_owned(), header.uid().unwrap(), header.gid().unwrap())
        });
        let owners: Vec<_> = owners.filter(|(path, ..)| path == b"v/a").collect();
        assert_eq!(owners, [(b"v/a".to_vec(), 12, 34)]);
        let to = format!("/v/{started}");
        std::fs::create_dir(site.data().join("volumes/vol/_data").join(started.to_string()))
            .unwrap();
        site.command(Path::new("docker"), &["cp", "-a", "-", &format!("box:{to}")], &copied).ok();
    }
    for started in ["true", "false"] {
        let made = site.data().join("volumes/vol/_data").join(started).join("v/a");
        let made = std::fs::metadata(made).unwrap();
        assert_eq!((made.uid(), made.gid()), (12, 34), "on the disk they are the container's");
    }
}
