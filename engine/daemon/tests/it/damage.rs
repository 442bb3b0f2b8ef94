//! Damage that is noticed when an image is used, or by reading it again: the container then runs with the
//! right bytes, or is told why it cannot.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::power_cut::disk::Loop;
use crate::registry::{content, serve};
use crate::support::{Site, wait_until};
use crate::verify::{flip, layer, pulled};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:12:34:app:/tmp:/bin/sh\n";

/// What happened to images, as `action: error or why`.
fn told(site: &Site) -> Vec<String> {
    let now = site.command_of("date", &["+%s"], b"").ok().trim().parse::<u64>().unwrap() + 1;
    let words = ["events", "--since", "1", "--until", &now.to_string(), "--format", "{{json .}}"];
    let events = site.docker(&words).ok();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_damage =
        events.filter(|event| matches!(event["Action"].as_str(), Some("damage" | "repair")));
    let text = |event: Value| {
        let attributes = &event["Actor"]["Attributes"];
        let more = attributes["error"].as_str().or(attributes["why"].as_str()).unwrap_or_default();
        format!("{}: {more}", event["Action"].as_str().unwrap())
    };
    of_damage.map(text).collect()
}

/// What a container is made of is not looked at again if it is started within this time.
const LOOKED_AT: std::time::Duration = std::time::Duration::from_millis(600);

#[test]
fn run_pulls_a_damaged_image_again_and_start_fetches_it() {
    let (mut site, name) = pulled();
    let passwd = layer(&site).join("fs/etc/passwd");
    // Under a running daemon.
    flip(&passwd);
    let run = site.docker(&["run", "--rm", &name, "cat", "/etc/passwd"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, PASSWD), "{run:?}");
    assert!(run.stderr.contains("Unable to find image"), "{run:?}");
    assert!(told(&site)[0].contains("etc/passwd"), "{:?}", told(&site));
    // Of a container that is there already, under a running daemon and under none.
    site.docker(&["create", "--name", "box", &name, "cat", "/etc/passwd"]).ok();
    std::thread::sleep(LOOKED_AT);
    for stopped in [false, true] {
        if stopped {
            site.stop_engine();
        }
        flip(&passwd);
        if stopped {
            site.start_engine();
        }
        assert_eq!(site.docker(&["start", "-a", "box"]).ok(), PASSWD, "stopped: {stopped}");
        assert_eq!(fs::read_to_string(&passwd).unwrap(), PASSWD);
        let told = told(&site);
        assert_eq!(told.last().map(String::as_str), Some("repair: "), "{told:?}");
    }
    assert!(site.block_on(site.client().verify(false, |_| {})).unwrap().damaged.is_empty());
}

#[test]
fn what_cannot_be_fetched_is_not_run_and_says_why() {
    let site = Site::new();
    site.docker(&["create", "--name", "box", "busybox", "cat", "/etc/passwd"]).ok();
    std::thread::sleep(LOOKED_AT);
    flip(&layer(&site).join("fs/etc/passwd"));
    let start = site.docker(&["start", "-a", "box"]);
    assert!(start.code != 0 && start.stdout.is_empty(), "{start:?}");
    let says = ["layer sha256:", "damaged", "cannot be fetched", "build or load it again"];
    assert!(says.iter().all(|word| start.stderr.contains(word)), "{start:?}");
    let run = site.docker(&["run", "--rm", "--pull", "never", "busybox", "true"]);
    assert!(run.code != 0 && run.stderr.contains("No such image"), "{run:?}");
    let status = site.docker(&["info", "-f", "{{json .DriverStatus}}"]).ok();
    assert!(status.contains(r#"["Damaged Layers","1"]"#), "{status}");
    // To load it again repairs it.
    site.load_image();
    assert_eq!(site.docker(&["start", "-a", "box"]).ok(), PASSWD);
}

#[test]
fn what_runs_keeps_its_files_when_its_image_is_fetched_again() {
    let (mut site, name) = pulled();
    site.docker(&["run", "-d", "--name", "runs", &name, "sleep", "1000"]).ok();
    flip(&layer(&site).join("fs/etc/passwd"));
    let report = site.block_on(site.client().verify(true, |_| {})).unwrap();
    assert!(report.damaged.len() == 1 && report.is_good(), "{report:?}");
    let group = || site.docker(&["exec", "runs", "cat", "/etc/group"]).ok();
    assert_eq!(group(), "root:x:0:\napp:x:34:\n");
    assert_eq!(site.docker(&["run", "--rm", &name, "cat", "/etc/passwd"]).ok(), PASSWD);
    site.stop_engine();
    site.start_engine();
    let group = site.docker(&["exec", "runs", "cat", "/etc/group"]).ok();
    assert_eq!(group, "root:x:0:\napp:x:34:\n", "a new daemon takes away what still runs");
    site.docker(&["restart", "-t", "0", "runs"]).ok();
    assert_eq!(site.docker(&["exec", "runs", "cat", "/etc/passwd"]).ok(), PASSWD);
}

/// Forgets one bit of a file on the medium, and of what is in memory of it.
fn forget_a_bit(medium: &Path, file: &Path, bytes: &[u8]) {
    rustix::fs::syncfs(fs::File::open(file).unwrap()).unwrap();
    let all = fs::read(medium).unwrap();
    let places: Vec<usize> =
        (0..all.len() - bytes.len()).filter(|at| all[*at..].starts_with(bytes)).collect();
    assert!(!places.is_empty());
    let medium = fs::File::options().write(true).open(medium).unwrap();
    for at in places {
        medium.write_all_at(&[bytes[0] ^ 1], at as u64).unwrap();
    }
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(fs::File::open(file).unwrap(), 0, None, advice).unwrap();
}

#[test]
fn a_bit_that_the_medium_forgot_is_found_by_an_idle_engine_and_fetched_again() {
    let mut site = Site::stopped();
    fs::create_dir(site.data()).unwrap();
    let disk = Loop::of_size(site.dir.path(), &site.data(), 48 << 20);
    let registry = serve(content());
    site.restart_with(&["--scrub-interval", "2"]);
    let name = format!("{registry}/team/app:v1");
    site.docker(&["pull", "-q", &name]).ok();
    let passwd: PathBuf = layer(&site).join("fs/etc/passwd");
    forget_a_bit(&site.dir.path().join("disk.raw"), &passwd, b"app:x:12:34:app:/tmp:/bin/sh\n");
    wait_until("the damage to be found and repaired", || {
        let told = told(&site);
        let [found, .., repaired] = &told[..] else { return None };
        assert!(found.contains("etc/passwd"), "{told:?}");
        (repaired == "repair: ").then_some(())
    });
    assert_eq!(site.docker(&["run", "--rm", &name, "cat", "/etc/passwd"]).ok(), PASSWD);
    site.stop_engine();
    drop(disk);
}

#[test]
fn damaged_documents_are_found_and_written_again_where_they_are_known() {
    let mut site = Site::new();
    site.docker(&["volume", "create", "kept"]).ok();
    site.docker(&["create", "--name", "box", "-v", "kept:/data", "busybox", "true"]).ok();
    let id = site.docker(&["inspect", "-f", "{{.Id}}", "box"]).ok();
    let container = format!("containers/{}/config.json", id.trim());
    let network = site.docker(&["network", "create", "net"]).ok();
    let network = format!("networks/{}/network.json", network.trim());
    for file in [&*container, "volumes/kept/volume.json", &*network] {
        flip(&site.data().join(file));
        let verify = |repair| site.block_on(site.client().verify(repair, |_| {})).unwrap();
        let report = verify(false);
        assert_eq!(report.damaged.len(), 1, "{report:?}");
        assert_eq!(report.damaged[0].part, format!("file {file}"));
        assert!(verify(true).is_good());
        assert_eq!(verify(false).damaged, []);
    }
    // A volume whose document cannot be read hides no other.
    site.docker(&["volume", "create", "other"]).ok();
    site.stop_engine();
    flip(&site.data().join("volumes/kept/volume.json"));
    site.start_engine();
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok(), "other\n");
    assert!(site.block_on(site.client().verify(true, |_| {})).unwrap().is_good());
    assert_eq!(site.docker(&["volume", "ls", "-q"]).ok(), "kept\nother\n");
    assert_eq!(site.docker(&["start", "-a", "box"]).code, 0);
}
