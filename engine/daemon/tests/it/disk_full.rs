//! A disk without room, at everything that the engine does: it is said, nothing is torn, and it goes on
//! when there is room again.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::power_cut::disk::Loop;
use crate::power_cut::images;
use crate::registry::serve;
use crate::support::{Outcome, Site, wait_until};

/// A build wants 67 MB to be left.
const SIZE: u64 = 192 << 20;

/// An engine on a small disk of its own.
struct Small {
    site: Site,
    disk: Loop,
}

impl Small {
    fn new() -> Small {
        let mut site = Site::stopped();
        fs::create_dir(site.data()).unwrap();
        let disk = Loop::of_size(site.dir.path(), &site.data(), SIZE);
        site.restart_with(&[]);
        site.load_image();
        Small { site, disk }
    }

    /// Does something while only so much is free.
    fn with_little<T>(&self, leave: u64, work: impl FnOnce() -> T) -> T {
        let filler = self.disk.fill(leave);
        let done = work();
        fs::remove_file(filler).unwrap();
        done
    }

    /// What there is to see, and that nothing of it is torn.
    fn inventory(&self) -> Vec<String> {
        let report = self.site.block_on(self.site.client().verify(false, |_| {})).unwrap();
        assert_eq!(report.damaged, []);
        let list = |words: &[&str]| self.site.docker(words).ok();
        [
            list(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]),
            list(&["images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]),
            list(&["volume", "ls", "-q"]),
            list(&["network", "ls", "--format", "{{.Name}}"]),
        ]
        .to_vec()
    }

    /// What the containers `runs` and `made` and the process of the first have.
    fn running(&self) -> Vec<String> {
        let form = "{{json .HostConfig.PidsLimit}} {{range $name, $own := .NetworkSettings.Networks}}{{$name}} \
                    {{$own.IPAddress}} {{end}}";
        let limit = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => "/sys/fs/cgroup/pids.max",
            false => "/sys/fs/cgroup/pids/pids.max",
        };
        let exec = |words: &[&str]| self.site.docker(&[&["exec", "runs"], words].concat()).ok();
        [
            self.site.docker(&["inspect", "-f", form, "runs", "made"]).ok(),
            self.site.docker(&["diff", "runs"]).ok(),
            exec(&["cat", limit]),
            exec(&["ls", "/sys/class/net"]),
        ]
        .to_vec()
    }

    /// Does everything of a table on a full disk, and then with room. Of each: what is done, how much is free
    /// meanwhile, and what takes it away. Little things may be `done` on a full disk, too: a few bytes can
    /// find room in a block that is there.
    fn check(&self, table: &[(&[&str], u64, &[&str])], done: bool) {
        let site = &self.site;
        let all = || [self.inventory(), self.running()];
        for (words, leave, undo) in table {
            let before = all();
            let outcome = self.with_little(*leave, || site.docker(words));
            if !(done && outcome.code == 0) {
                assert!(says_so(&outcome), "{words:?} with {leave} bytes: {outcome:?}");
                assert_eq!(all(), before, "{words:?} with {leave} bytes");
                site.docker(words).ok();
            }
            // What runs does not notice.
            assert_eq!(site.docker(&["exec", "runs", "echo", "here"]).ok(), "here\n");
            site.docker(undo).ok();
            site.docker(&["builder", "prune", "-af"]).ok();
            site.docker(&["image", "prune", "-f"]).ok();
        }
    }
}

fn says_so(outcome: &Outcome) -> bool {
    let text = format!("{}{}", outcome.stdout, outcome.stderr).to_lowercase();
    let words = ["no space left on device", "not enough space", "are free", "disk is full"];
    outcome.code != 0 && words.iter().any(|word| text.contains(word))
}

/// A folder to build, with a file that does not fit and a step that does not.
fn context(dir: &Path) -> String {
    let context = dir.join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("file"), vec![b'f'; 200_000]).unwrap();
    let dockerfile = "FROM busybox\nCOPY file /file\nRUN seq 200000 > /made\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.to_string_lossy().into_owned()
}

#[test]
fn everything_says_that_the_disk_is_full_and_is_done_when_there_is_room() {
    let small = Small::new();
    let site = &small.site;
    let image = format!("{}/app:1", serve(images::content()));
    let archive = site.dir.path().join("archive.tar").to_string_lossy().into_owned();
    let loaded = format!("{}/app:3", image.trim_end_matches("/app:1"));
    site.docker(&["pull", "-q", &loaded]).ok();
    site.docker(&["tag", &loaded, "loaded:1"]).ok();
    site.docker(&["save", "-o", &archive, "loaded:1"]).ok();
    site.docker(&["rmi", "loaded:1", &loaded]).ok();
    let context = context(site.dir.path());
    site.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    site.docker(&["exec", "runs", "dd", "if=/dev/zero", "of=/made", "bs=1k", "count=900"]).ok();
    site.docker(&["create", "--name", "made", "busybox", "sleep", "1000"]).ok();
    let build = ["build", "--network", "none", "--no-cache", "-t", "built:1", &context];
    small.check(
        &[
            (&["pull", &image], 0, &["rmi", &image]),
            (&["pull", &image], 1 << 20, &["rmi", &image]),
            (&["load", "-i", &archive], 500_000, &["rmi", "loaded:1"]),
            (&["commit", "runs", "committed:1"], 0, &["rmi", "committed:1"]),
            (&["commit", "runs", "committed:1"], 500_000, &["rmi", "committed:1"]),
            (&build, 0, &["rmi", "built:1"]),
            (&build, 700_000, &["rmi", "built:1"]),
            (&["create", "--name", "new", "busybox"], 0, &["rm", "new"]),
            (&["volume", "create", "new"], 0, &["volume", "rm", "new"]),
            (&["network", "create", "new"], 0, &["network", "rm", "new"]),
            (&["start", "made"], 0, &["stop", "-t", "0", "made"]),
        ],
        false,
    );
}

#[test]
fn what_is_changed_on_a_full_disk_stays_as_it_was_and_is_changed_when_there_is_room() {
    let small = Small::new();
    let site = &small.site;
    let file = format!("{}/file", context(site.dir.path()));
    let archive = site.dir.path().join("archive.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_path_with_name(&file, "file").unwrap();
    tar.into_inner().unwrap();
    let archive = archive.to_string_lossy().into_owned();
    site.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    site.docker(&["create", "--name", "made", "busybox", "sleep", "1000"]).ok();
    site.docker(&["network", "create", "net"]).ok();
    let remove = ["exec", "runs", "rm", "/copied"];
    small.check(
        &[
            (&["cp", &file, "runs:/copied"], 0, &remove),
            (&["cp", &file, "runs:/copied"], 100_000, &remove),
            (&["import", &archive, "imported:1"], 0, &["rmi", "imported:1"]),
            (&["import", &archive, "imported:1"], 100_000, &["rmi", "imported:1"]),
            (&["network", "connect", "net", "runs"], 0, &["network", "disconnect", "net", "runs"]),
            (&["network", "connect", "net", "made"], 0, &["network", "disconnect", "net", "made"]),
            (&["rename", "made", "renamed"], 0, &["rename", "renamed", "made"]),
            (
                &["update", "--pids-limit", "77", "runs"],
                0,
                &["update", "--pids-limit", "-1", "runs"],
            ),
            (
                &["update", "--pids-limit", "77", "made"],
                0,
                &["update", "--pids-limit", "-1", "made"],
            ),
        ],
        false,
    );
    small.check(&[(&["tag", "busybox", "tagged:1"], 0, &["rmi", "tagged:1"])], true);
}

#[test]
fn a_volume_that_did_not_fit_is_filled_as_a_whole_when_there_is_room() {
    let small = Small::new();
    let site = &small.site;
    let words = ["create", "--name", "box", "-v", "fresh:/bin", "busybox", "sha256sum"];
    site.docker(&[&words[..], &["/bin/busybox"]].concat()).ok();
    let right = site.docker(&["run", "--rm", "busybox", "sha256sum", "/bin/busybox"]).ok();
    // Enough for everything but the content.
    let outcome = small.with_little(700_000, || site.docker(&["start", "-a", "box"]));
    assert!(says_so(&outcome), "{outcome:?}");
    assert_eq!(site.docker(&["start", "-a", "box"]).ok(), right);
}

#[test]
fn a_full_disk_keeps_nothing_running_that_is_to_stop() {
    let small = Small::new();
    let site = &small.site;
    let shown = |name: &str, form: &str| site.docker(&["inspect", "-f", form, name]).ok();
    site.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    let crashes = ["run", "-d", "--name", "crashes", "--restart", "always", "busybox", "false"];
    site.docker(&crashes).ok();
    small.with_little(0, || {
        for name in ["runs", "crashes"] {
            site.docker(&["stop", "-t", "0", name]).ok();
            assert_eq!(shown(name, "{{.State.Status}}"), "exited\n", "{name}");
        }
    });
    site.docker(&["start", "runs", "crashes"]).ok();
    assert_eq!(shown("runs", "{{.State.Status}}"), "running\n");
    wait_until("a restart", || (shown("crashes", "{{.RestartCount}}") != "0\n").then_some(()));
}

#[test]
fn a_full_disk_costs_lines_of_a_log_and_neither_the_container_nor_an_exec() {
    let small = Small::new();
    let site = &small.site;
    let count = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.01; done";
    site.docker(&["run", "-d", "--name", "counts", "busybox", "sh", "-c", count]).ok();
    let log = site.docker(&["inspect", "-f", "{{.LogPath}}", "counts"]).ok();
    let length = || fs::metadata(log.trim()).unwrap().len();
    wait_until("a line", || (length() > 0).then_some(()));
    small.with_little(0, || {
        // The last block of the log takes some more, and then nothing does.
        let mut last = (length(), std::time::Instant::now());
        wait_until("a log that stands still", || {
            if length() != last.0 {
                last = (length(), std::time::Instant::now());
            }
            (last.1.elapsed().as_millis() > 3000).then_some(())
        });
        let exec = site.docker(&["exec", "counts", "echo", "inside"]);
        assert!(exec.stdout == "inside\n" && exec.code == 0 || says_so(&exec), "{exec:?}");
        assert_eq!(site.docker(&["inspect", "-f", "{{.State.Running}}", "counts"]).ok(), "true\n");
    });
    let full = length();
    wait_until("new lines", || (length() > full).then_some(()));
    assert_eq!(site.docker(&["exec", "counts", "echo", "inside"]).ok(), "inside\n");
    site.docker(&["stop", "-t", "0", "counts"]).ok();
    // Whole lines, in order.
    let text = fs::read_to_string(log.trim()).unwrap();
    let lines: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["log"].as_str().unwrap()["line ".len()..].trim().parse().unwrap())
        .collect();
    assert!(lines.is_sorted() && lines.first() == Some(&0), "{lines:?}");
    assert!(lines.len() < *lines.last().unwrap() as usize + 1, "the disk was never full");
}
