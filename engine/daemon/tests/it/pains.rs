//! What users of other engines suffer from: each is shown on dockerd 20.10, and is not there with ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::registry::{content, serve};
use crate::support::{Dockerd, Outcome, Site, archive_of, docker28, image_archive, wait_until};

/// One of the two daemons, as both are used.
enum Engine<'s> {
    Ours(Site),
    Theirs(Dockerd<'s>),
}

impl Engine<'_> {
    fn docker(&self, words: &[&str]) -> Outcome {
        match self {
            Engine::Ours(site) => site.docker(words),
            Engine::Theirs(dockerd) => dockerd.docker(&docker28(), words, b""),
        }
    }

    /// Ends the daemon, and nothing that it started.
    fn kill(&mut self) {
        match self {
            Engine::Ours(site) => site.kill_engine(),
            Engine::Theirs(dockerd) => dockerd.kill(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Engine::Ours(site) => site.start_engine(),
            Engine::Theirs(dockerd) => dockerd.start_again(),
        }
    }

    /// Where unpacked layers come to be.
    fn layers(&self) -> PathBuf {
        match self {
            Engine::Ours(site) => site.data().join("images"),
            Engine::Theirs(dockerd) => dockerd.data().join("overlay2"),
        }
    }

    fn client(&self) -> (String, PathBuf) {
        let socket = match self {
            Engine::Ours(site) => site.socket(),
            Engine::Theirs(dockerd) => dockerd.socket(),
        };
        (format!("unix://{}", socket.display()), docker28())
    }
}

/// Does the same with both; what came of it with ours, and with dockerd.
fn both<T>(pain: impl Fn(&mut Engine<'_>) -> T) -> (T, T) {
    let ours = pain(&mut Engine::Ours(Site::new()));
    let site = Site::stopped();
    let dockerd = Dockerd::start_whole(&site);
    let loaded = dockerd.docker(&docker28(), &["load"], &image_archive());
    assert!(loaded.ok().contains("busybox:latest"));
    (ours, pain(&mut Engine::Theirs(dockerd)))
}

/// Whether something comes to pass soon. What is never the case costs all of the time.
fn soon(mut holds: impl FnMut() -> bool) -> bool {
    (0..20).any(|_| {
        std::thread::sleep(Duration::from_millis(250));
        holds()
    })
}

/// The processes in this network namespace: no container's, but whatever serves containers.
fn processes() -> BTreeSet<u32> {
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns == own))
        .collect()
}

/// Memory of processes, KiB, what they share with others in parts.
fn memory(of: &BTreeSet<u32>) -> u64 {
    let pss = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:").map(str::to_owned));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    of.iter().map(pss).sum()
}

/// Waits for what has only just begun or is about to end.
fn at_rest() -> BTreeSet<u32> {
    wait_until("the same processes for a while", || {
        let before = processes();
        std::thread::sleep(Duration::from_millis(500));
        (processes() == before).then_some(before)
    })
}

/// moby #37142: requests to a published port fail while the daemon is away.
#[test]
fn a_published_port_answers_while_no_daemon_is_there() {
    let (ours, theirs) = both(|engine| {
        let serve = "while true; do echo served | nc -l -p 80; done";
        let run = ["run", "-d", "-p", "127.0.0.1:18080:80", "busybox", "sh", "-c", serve];
        engine.docker(&run).ok();
        let says = || {
            let said = std::net::TcpStream::connect("127.0.0.1:18080").ok().map(|mut stream| {
                let mut text = String::new();
                let _ = std::io::Read::read_to_string(&mut stream, &mut text);
                text
            });
            said.as_deref() == Some("served\n")
        };
        assert!(soon(says));
        engine.kill();
        soon(says)
    });
    assert_eq!((ours, theirs), (true, false));
}

/// Names are looked up by the daemon, and so by nobody when it is away.
#[test]
fn names_are_found_while_no_daemon_is_there() {
    let (ours, theirs) = both(|engine| {
        let out = tempfile::tempdir().unwrap();
        engine.docker(&["network", "create", "team"]).ok();
        let other =
            ["run", "-d", "--name", "other", "--network", "team", "busybox", "sleep", "1000"];
        engine.docker(&other).ok();
        let ask = "while true; do ping -c1 -W2 other >/dev/null 2>&1; echo $? >> /out/said; \
                   sleep 0.1; done";
        let volume = format!("{}:/out", out.path().display());
        let run = ["run", "-d", "--network", "team", "-v", &volume, "busybox", "sh", "-c", ask];
        engine.docker(&run).ok();
        let said = || {
            let said = fs::read_to_string(out.path().join("said")).unwrap_or_default();
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        wait_until("a name that is found", || (said().last()? == "0").then_some(()));
        engine.kill();
        let before = said().len();
        // The first may have been on its way.
        let after = wait_until("more answers", || said().get(before + 3).cloned());
        after == "0"
    });
    assert_eq!((ours, theirs), (true, false));
}

/// projectatomic/docker #311: a container that writes stands still when the daemon is away.
#[test]
fn a_container_goes_on_writing_while_no_daemon_is_there() {
    let (ours, theirs) = both(|engine| {
        let out = tempfile::tempdir().unwrap();
        let volume = format!("{}:/out", out.path().display());
        let write = "until [ -e /out/go ]; do sleep 0.05; done; seq 1 200000; touch /out/done";
        engine.docker(&["run", "-d", "-v", &volume, "busybox", "sh", "-c", write]).ok();
        engine.kill();
        fs::write(out.path().join("go"), "").unwrap();
        soon(|| out.path().join("done").exists())
    });
    assert_eq!((ours, theirs), (true, false));
}

/// moby #49784: a file that a power cut has emptied stays empty, however often it is pulled again.
#[test]
fn an_emptied_file_of_an_image_is_fetched_again() {
    let (ours, theirs) = both(|engine| {
        let name = format!("{}/team/app:v1", serve(content()));
        engine.docker(&["pull", &name]).ok();
        let files = ["fs/etc/passwd", "diff/etc/passwd"];
        let layers = engine.layers();
        let folders = fs::read_dir(&layers)
            .unwrap()
            .chain(fs::read_dir(layers.join("layers")).into_iter().flatten());
        let paths = folders.flatten().flat_map(|entry| files.map(|file| entry.path().join(file)));
        let found: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
        assert!(!found.is_empty());
        for path in found {
            fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
        engine.docker(&["pull", &name]).ok();
        engine.docker(&["run", "--rm", "--net", "none", &name, "cat", "/etc/passwd"]).stdout
    });
    assert!(ours.starts_with("root:x:0:0"), "{ours:?}");
    assert_eq!(theirs, "");
}

/// balena-engine #202 and balena's users with many ports: what each container and each port costs.
#[test]
fn a_container_costs_little_memory_and_a_port_no_process() {
    let (ours, theirs) = both(|engine| {
        let before = at_rest();
        engine.docker(&["run", "-d", "--net", "none", "busybox", "sleep", "1000"]).ok();
        let with_one = at_rest();
        let kib = memory(&with_one.difference(&before).copied().collect());
        let ports = "127.0.0.1:19000-19019:19000-19019/udp";
        engine.docker(&["run", "-d", "-p", ports, "busybox", "sleep", "1000"]).ok();
        let with_ports = at_rest();
        // The other container's own.
        (kib, with_ports.difference(&with_one).count() - 1)
    });
    assert!(ours.0 > 0 && ours.0 * 4 < theirs.0, "{ours:?} {theirs:?}");
    assert_eq!(ours.1, 0);
    assert!(theirs.1 >= 20, "{theirs:?}");
}

/// An archive of an image with one large layer that cannot be packed.
fn large_archive() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    let mut layer = tar::Builder::new(Vec::new());
    for number in 0..40 {
        let mut header = tar::Header::new_gnu();
        header.set_size(4 << 20);
        header.set_mode(0o644);
        let bytes: Vec<u8> = (0..4 << 20).map(|_| next()).collect();
        layer.append_data(&mut header, format!("large/{number}"), &bytes[..]).unwrap();
    }
    archive_of(&layer.into_inner().unwrap(), "large:latest")
}

fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// balena-engine #193: what was being unpacked when the daemon ended fills the disk for ever.
#[test]
fn a_layer_that_was_being_unpacked_leaves_nothing_after_a_kill() {
    let archive = large_archive();
    const ENOUGH: u64 = 24 << 20;
    let (ours, theirs) = both(|engine| {
        let before = bytes_below(&engine.layers());
        let (host, cli) = engine.client();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &archive).unwrap();
        let mut load = std::process::Command::new(cli);
        load.args(["--host", &host, "load", "-q", "-i"]).arg(file.path());
        let mut load = load.stderr(std::process::Stdio::null()).spawn().unwrap();
        let layers = engine.layers();
        wait_until("a layer in the making", || {
            (bytes_below(&layers) > before + ENOUGH).then_some(())
        });
        engine.kill();
        load.wait().unwrap();
        engine.start_again();
        engine.docker(&["system", "prune", "--force"]).ok();
        let gone = || bytes_below(&layers) < before + (1 << 20);
        let is_whole = engine.docker(&["image", "inspect", "large"]).code == 0;
        assert!(!is_whole, "it was not killed in time");
        soon(gone)
    });
    assert_eq!((ours, theirs), (true, false));
}
