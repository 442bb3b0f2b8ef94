//! kill -9 of the daemon at any point: what it was doing is done or undone, and nothing is left over.

use std::path::Path;
use std::time::Duration;

use crate::support::{Site, wait_until};

#[test]
fn a_daemon_killed_at_any_point_leaves_nothing_that_the_next_does_not_clear() {
    let mut site = Site::new();
    for step in 0..12u64 {
        let name = format!("box{step}");
        let words =
            ["run", "-d", "--rm", "--name", &name, "-v", "/anonymous", "busybox", "sleep", "1000"];
        let mut run = site.spawn(&crate::support::docker28(), &words);
        // No condition to wait for: the points in time are the test.
        std::thread::sleep(Duration::from_millis(15 + step * 9));
        site.kill_engine();
        run.wait().unwrap();
        site.start_engine();
        let ids = site.docker(&["ps", "-aq"]).ok();
        let ids: Vec<&str> = ids.lines().collect();
        assert!(ids.len() <= 1, "{ids:?}");
        if let Some(id) = ids.first() {
            // Whatever came of it, it can be worked with.
            let status = site.docker(&["inspect", "-f", "{{.State.Status}}", id]).ok();
            if status.trim() == "running" {
                assert_eq!(site.docker(&["exec", id, "echo", "alive"]).ok(), "alive\n");
            } else {
                site.docker(&["start", id]).ok();
            }
            site.docker(&["rm", "-fv", id]).ok();
        }
        // What was to be removed by itself is, soon after the start.
        wait_until("a clean engine", || {
            let directories = std::fs::read_dir(site.data().join("containers")).unwrap();
            (site.traces().is_empty() && directories.count() == 0).then_some(())
        });
    }
}

/// Changes what is known of a container's boot to what the first start after a reboot finds.
fn forget_boot(document: &Path) {
    let text = std::fs::read_to_string(document).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    // Without the line that says the checksum, as engines once wrote it.
    let (_, json) = text.split_once('\n').unwrap();
    std::fs::write(document, json.replace(boot.trim(), "an-earlier-boot")).unwrap();
}

#[test]
fn a_daemon_killed_in_the_first_start_after_a_reboot_leaves_a_container_that_goes_on() {
    let mut site = Site::new();
    let out = site.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let volume = format!("{}:/out", out.display());
    let script = "touch /out/ran; sleep 1000";
    let words = ["run", "-d", "--name", "box", "-v", &volume, "busybox", "sh", "-c", script];
    let id = site.docker(&words).ok();
    let dir = site.data().join("containers").join(id.trim());
    let document = dir.join("state.json");
    wait_until("the script", || out.join("ran").exists().then_some(()));
    for _ in 0..10 {
        site.docker(&["stop", "-t", "0", "box"]).ok();
        site.stop_engine();
        forget_boot(&document);
        std::fs::remove_file(out.join("ran")).unwrap();
        site.start_engine();
        let mut start = site.spawn(&crate::support::docker28(), &["start", "box"]);
        wait_until("the container's making", || dir.join("shim/cgroups").exists().then_some(()));
        site.kill_engine();
        start.wait().unwrap();
        wait_until("the container", || out.join("ran").exists().then_some(()));
        let recorded = std::fs::read_to_string(&document).unwrap().contains("\"running\"");
        site.start_engine();
        assert_eq!(site.docker(&["exec", "box", "echo", "alive"]).ok(), "alive\n");
        if !recorded {
            return;
        }
    }
    panic!("no daemon was killed between a start and the record of it");
}

#[test]
fn a_build_worker_that_is_ended_at_any_point_of_its_start_leaves_nothing() {
    let mut site = Site::empty(&["--build-worker"]);
    for step in 0..25u64 {
        site.stop_engine();
        assert_eq!(site.links(), ["lo"], "ended {step} ms after its beginning or before");
        site.spawn_engine();
        // No condition to wait for: the points in time are the test.
        std::thread::sleep(Duration::from_millis(step));
    }
    site.stop_engine();
    assert_eq!((site.links(), site.traces()), (vec!["lo".to_owned()], Vec::new()));
}

#[test]
fn a_half_made_container_and_a_half_removed_one_are_cleared() {
    let mut site = Site::new();
    site.docker(&["create", "--name", "whole", "busybox"]).ok();
    site.stop_engine();
    let containers = site.data().join("containers");
    std::fs::create_dir_all(containers.join("half-made/upper")).unwrap();
    std::fs::create_dir_all(containers.join(".gone.removed/upper")).unwrap();
    site.start_engine();
    assert_eq!(site.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "whole\n");
    assert_eq!(std::fs::read_dir(&containers).unwrap().count(), 1);
}

#[test]
fn volumes_of_a_creation_or_a_removal_that_was_cut_off_are_made_or_go() {
    let mut site = Site::new();
    site.docker(&["create", "--name", "whole", "-v", "/anonymous", "busybox"]).ok();
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "whole"]).ok();
    let directory = site.data().join("containers").join(id.trim());
    // As after a kill between the document and the volume.
    site.stop_engine();
    std::fs::remove_dir_all(site.data().join("volumes")).unwrap();
    site.start_engine();
    let listed = site.docker(&["volume", "ls", "-q", "--filter", "dangling=false"]).ok();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // As after a kill between the rename and the removal of the volume, with -v and without.
    for (with, left) in [(false, 1), (true, 0)] {
        site.stop_engine();
        let gone = directory.with_file_name(format!(".{}.removed", id.trim()));
        if with {
            std::fs::create_dir(&gone).unwrap();
            std::fs::copy(site.dir.path().join("kept"), gone.join("config.json")).unwrap();
            std::fs::write(gone.join("with-volumes"), "").unwrap();
        } else {
            std::fs::copy(directory.join("config.json"), site.dir.path().join("kept")).unwrap();
            std::fs::rename(&directory, &gone).unwrap();
        }
        site.start_engine();
        assert_eq!(site.docker(&["volume", "ls", "-q"]).ok().lines().count(), left);
        assert!(!gone.exists());
    }
}

#[test]
fn two_daemons_do_not_share_a_data_directory() {
    let site = Site::new();
    let engine =
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/engine");
    let data = site.data().to_string_lossy().into_owned();
    let socket = site.dir.path().join("second.sock").to_string_lossy().into_owned();
    let second = site.command(&engine, &["--data", &data, "--socket", &socket], b"");
    assert!(second.code == 1 && second.stderr.contains("another engine uses"), "{second:?}");
    site.docker(&["info"]).ok();
}
