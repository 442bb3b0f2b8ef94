//! A corpus of ways out of a container. Each is tried in a default container, in one in a user namespace
//! and in a build, and none may reach the host.

use std::path::Path;

use crate::support::{Outcome, Site, docker28, image_layer, wait_until};

const ATTACKS: &str = include_str!("escapes/attacks.sh");

/// How many ways the corpus has, so that none is lost unseen.
fn count() -> usize {
    ATTACKS.lines().filter(|line| line.starts_with("attack '")).count()
}

/// Everything was tried, and held.
#[track_caller]
fn assert_held(output: &str) {
    let held = output.lines().filter(|line| line.starts_with("held: ")).count();
    let escaped: Vec<_> = output.lines().filter(|line| line.starts_with("escaped: ")).collect();
    assert_eq!(escaped, Vec::<&str>::new(), "{output}");
    assert_eq!(held, count(), "{output}");
}

fn try_all(site: &Site, attacks: &str, options: &[&str]) -> String {
    let words = [&["run", "--rm", "-i"], options, &["busybox", "sh", "-s"]].concat();
    site.command(Path::new("docker"), &words, attacks.as_bytes()).stdout
}

#[test]
fn a_default_container_holds() {
    let site = Site::new();
    assert_held(&try_all(&site, ATTACKS, &[]));
    // The control: what does no harm is let through when nothing holds it.
    let harmless = ["mount a tmpfs", "unshare the mounts", "a user namespace of its own"];
    let wanted = |line: &&str| harmless.iter().any(|name| line.contains(&format!("'{name}'")));
    let function = ATTACKS.split_once("# Mounts.").unwrap().0;
    let lines: Vec<_> = ATTACKS.lines().filter(wanted).collect();
    let open = try_all(&site, &format!("{function}\n{}\n", lines.join("\n")), &["--privileged"]);
    assert_eq!(open.matches("escaped: ").count(), harmless.len(), "{open}");
}

#[test]
fn a_container_in_a_user_namespace_holds() {
    let site = Site::empty(&["--userns-remap", "default"]);
    site.load_image();
    assert_held(&try_all(&site, ATTACKS, &[]));
}

/// An engine as a server starts one for strangers' builds.
fn worker() -> Site {
    let site = Site::empty(&["--build-worker", "--userns-remap", "default"]);
    site.load_image();
    site
}

fn build(site: &Site, dockerfile: &str, files: &[(&str, &str)]) -> Outcome {
    let context = site.dir.path().join("context");
    let _ = std::fs::remove_dir_all(&context);
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    for (name, text) in files {
        std::fs::write(context.join(name), text).unwrap();
    }
    let words = ["build", "--no-cache", "-t", "built", context.to_str().unwrap()];
    site.docker(&words)
}

#[test]
fn a_build_holds() {
    let site = worker();
    let outcome = build(
        &site,
        "FROM busybox\nCOPY attacks.sh /\nRUN cat /proc/self/uid_map; sh /attacks.sh\n",
        &[("attacks.sh", ATTACKS)],
    );
    assert!(outcome.stdout.contains("1900000000"), "{outcome:?}");
    assert_held(&outcome.ok());
}

#[test]
fn instructions_of_a_build_do_not_leave_it() {
    let site = worker();
    let outside = site.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "of the host").unwrap();
    let path = outside.display();
    let up = "../../../../../../../../../../../..";
    // Each tries to write to, or read from, a directory of the host; most builds fail, some do it inside.
    let dockerfiles = [
        format!("FROM busybox\nRUN ln -s {path} /out\nCOPY file /out/written\n"),
        format!("FROM busybox\nRUN ln -s {up}{path} /out\nCOPY file /out/written\n"),
        format!("FROM busybox\nRUN ln -s {path} /out\nADD file /out/written\n"),
        format!("FROM busybox\nRUN ln -s {path} /out\nWORKDIR /out\nRUN touch written\n"),
        format!("FROM busybox\nRUN mkdir /a && ln -s {up}{path} /a/b\nWORKDIR /a/b/c\n"),
        format!("FROM busybox AS a\nRUN ln -s {path} /in\nFROM busybox\nCOPY --from=a /in /got\n"),
        format!(
            "FROM busybox AS a\nRUN ln -s {path}/secret /in\nFROM busybox\nCOPY --from=a /in /got\n"
        ),
        format!("FROM busybox\nCOPY {up}{path}/secret /got/secret\n"),
        format!("FROM busybox\nRUN --mount=type=bind,source={up}{path},target=/got true\n"),
        format!("FROM busybox\nRUN --mount=type=cache,id={up}{path},target=/c touch /c/written\n"),
        format!("FROM busybox\nRUN --mount=type=tmpfs,target={up}{path} true\n"),
        format!("FROM busybox\nVOLUME {path}\nRUN mkdir -p {path}; touch {path}/written\n"),
        "FROM busybox\nRUN --network=host true\n".to_owned(),
        "FROM busybox\nRUN --security=insecure true\n".to_owned(),
    ];
    for dockerfile in dockerfiles {
        let outcome = build(&site, &dockerfile, &[("file", "of the build")]);
        assert!(!outside.join("written").exists(), "{dockerfile}: {outcome:?}");
        assert!(!outside.join("c").exists(), "{dockerfile}: {outcome:?}");
        let may_fail = outcome.code != 0;
        if dockerfile.contains("network=host") || dockerfile.contains("insecure") {
            assert!(may_fail, "{dockerfile}: {outcome:?}");
        }
        if !may_fail {
            let find = "cat /got /got/secret 2>/dev/null | busybox grep 'of the host'";
            let found = site.docker(&["run", "--rm", "built", "sh", "-c", find]);
            assert_eq!(found.stdout, "", "{dockerfile}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn the_program_that_makes_containers_cannot_be_overwritten_from_one() {
    let site = Site::new();
    // The container's own program is the file that its helper was: the engine's.
    let words =
        ["run", "-d", "--name", "box", "--entrypoint", "/proc/self/exe", "busybox", "--help"];
    let begun = site.docker(&words);
    let helper = std::fs::read(crate::support::engine()).unwrap();
    // Whatever became of it, the file has not, and nothing in the container may open it for writing.
    let attempt = "while :; do for f in /proc/[0-9]*/exe; do t=$(busybox readlink $f); \
                   case $t in *engine*) : >> $f && echo written;; esac; done; echo looked; done";
    site.docker(&["run", "-d", "--name", "spy", "busybox", "sh", "-c", attempt]).ok();
    let said = || site.docker(&["logs", "spy"]).stdout;
    let rounds = || said().lines().filter(|line| *line == "looked").count();
    wait_until("a first look", || (rounds() > 0).then_some(()));
    // Each exec begins as the helper, in the container.
    for _ in 0..5 {
        site.docker(&["exec", "spy", "true"]);
        let seen = rounds();
        wait_until("another look", || (rounds() > seen).then_some(()));
    }
    assert!(!said().contains("written"), "{begun:?}");
    assert!(std::fs::read(crate::support::engine()).unwrap() == helper);
}

#[test]
fn device_nodes_of_a_layer_open_nothing() {
    let site = Site::empty(&[]);
    let mut layer = image_layer();
    // Without the two empty blocks at the end, more can be appended.
    layer.truncate(layer.len() - 1024);
    let mut nodes = tar::Builder::new(layer);
    let kinds = [("disk", tar::EntryType::Block, 7, 0), ("memory", tar::EntryType::Char, 1, 1)];
    for (name, kind, major, minor) in kinds {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        nodes.append_data(&mut header, name, &[][..]).unwrap();
    }
    let layer = nodes.into_inner().unwrap();
    site.command(&docker28(), &["import", "-", "nodes:1"], &layer).ok();
    for (name, what) in [("/disk", "block special file\n"), ("/memory", "character special file\n")]
    {
        let run = |words: &[&str]| site.docker(&[&["run", "--rm", "nodes:1"], words].concat());
        assert_eq!(run(&["/bin/stat", "-c", "%F", name]).ok(), what);
        let source = format!("if={name}");
        let read = run(&["/bin/dd", &source, "of=/dev/null", "bs=1", "count=1"]);
        assert!(read.code != 0 && read.stderr.contains("Operation not permitted"), "{read:?}");
    }
}
