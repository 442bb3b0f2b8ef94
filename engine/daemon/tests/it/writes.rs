//! What each operation asks of the disk: syncs, counted in every process of the engine by strace, and
//! bytes, counted by the disk itself. Flash wears out, and every sync is a wait.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::power_cut::disk::{Loop, run};
use crate::power_cut::images;
use crate::registry::{Content, digest, put_image, serve};
use crate::support::{Numbers, Site, engine, image_config, shim, wait_until};

/// An engine under strace, on a disk of its own.
struct Watched {
    tracer: Child,
    site: Site,
    disk: Loop,
}

/// What an operation cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// Syncs of a file or a directory.
    fsyncs: usize,
    /// Syncs of the engine's file system.
    syncfs: usize,
    /// Syncs of every file system of the machine.
    syncs: usize,
    /// Thousands of bytes that came to the disk, journal included.
    kilobytes: u64,
}

impl Watched {
    fn start() -> Watched {
        let site = Site::stopped();
        std::fs::create_dir(site.data()).unwrap();
        let disk = Loop::start(site.dir.path(), &site.data());
        // On a slow machine the journal would else be written several times within one operation.
        let seldom = ["-o", "remount,commit=300"];
        run(Command::new("mount").args(seldom).arg(site.data()));
        let log = site.dir.path().join("trace");
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o"])
            .arg(&log)
            .arg(engine())
            .arg("--data")
            .arg(site.data())
            .arg("--socket")
            .arg(site.socket())
            .env("MINKE_SHIM", shim())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let watched = Watched { tracer, site, disk };
        wait_until("the engine", || {
            let there = watched.site.socket().exists();
            (there && watched.site.docker(&["info"]).code == 0).then_some(())
        });
        watched
    }

    fn trace(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("trace")).unwrap_or_default()
    }

    /// Runs the docker CLI and says what that cost the engine, when all of it is on the disk.
    fn cost(&self, words: &[&str]) -> Cost {
        self.disk.settle();
        let (lines, bytes) = (self.trace().lines().count(), self.disk.written());
        self.site.docker(words).ok();
        let trace = self.trace();
        self.disk.settle();
        let count = |call: &str| {
            let call = format!(" {call}(");
            trace.lines().skip(lines).filter(|line| line.contains(&call)).count()
        };
        Cost {
            fsyncs: count("fsync") + count("fdatasync"),
            syncfs: count("syncfs"),
            syncs: count("sync"),
            kilobytes: (self.disk.written() - bytes) / 1000,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The engine is the tracer's child, and ends with it asked to.
        let children = format!("/proc/{0}/task/{0}/children", self.tracer.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            if let Some(child) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(child, rustix::process::Signal::TERM);
            }
        }
        let _ = self.tracer.wait();
    }
}

#[test]
fn every_operation_keeps_to_its_budget_of_syncs_and_bytes() {
    let watched = Watched::start();
    let name = format!("{}/app:1", serve(images::content()));
    let size = images::size_of("1");
    let image_kilobytes = size / 1000;
    // (what, syncs of files, syncs of the file system, thousands of bytes)
    let budget: [(&[&str], usize, usize, u64); 6] = [
        // A layer: one sync of the file system and one of the directory it appears in. An image: its
        // configuration and the index, each a file and its directory. The bytes come unpacked, and as
        // they were sent, which is as much here, if the sync of one layer finds others on their way.
        (&["pull", "-q", &name], 3 + 4, 3, image_kilobytes * 2 + 1000),
        (&["pull", "-q", &name], 0, 0, 100),
        (&["create", "--name", "box", "--network", "none", &name, "sleep", "100"], 4, 0, 400),
        (&["start", "box"], 3, 0, 600),
        (&["kill", "box"], 6, 0, 600),
        (&["rm", "box"], 2, 0, 400),
    ];
    let mut broken = Vec::new();
    for (words, fsyncs, syncfs, kilobytes) in budget {
        let cost = watched.cost(words);
        println!("{:10} {cost:?}", words[0]);
        let fits = cost.fsyncs <= fsyncs && cost.syncfs <= syncfs && cost.kilobytes <= kilobytes;
        if !fits || cost.syncs > 0 {
            broken.push(format!("{words:?}: {cost:?}, allowed {fsyncs}, {syncfs}, {kilobytes}"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    // That strace sees what it should: a pull syncs.
    assert!(watched.trace().contains(" syncfs("));
}

/// A layer of `kilobytes`, of which about a third is left when it is packed.
fn layer(kilobytes: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(7);
    let mut tar = tar::Builder::new(Vec::new());
    for number in 0..kilobytes / 100 {
        let mut bytes = vec![b'x'; 100_000];
        for piece in bytes.chunks_mut(1000) {
            piece[..300].fill_with(|| numbers.below(256) as u8);
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("file-{number}"), &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A registry with `app:1`, an image of this layer as registries mostly have them.
fn packed(layer: &[u8]) -> Content {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(layer).unwrap();
    let mut content = Content::new();
    put_image(&mut content, "app", "1", &image_config(layer), &[packer.finish().unwrap()]);
    let (kind, manifest) = content["app/manifests/1"].clone();
    let manifest = String::from_utf8(manifest).unwrap();
    let manifest = manifest.replace(".layer.v1.tar\"", ".layer.v1.tar+gzip\"").into_bytes();
    for reference in ["1".to_owned(), digest(&manifest)] {
        content.insert(format!("app/manifests/{reference}"), (kind.clone(), manifest.clone()));
    }
    content
}

#[test]
fn a_packed_image_is_written_unpacked_and_at_most_as_it_was_sent_besides() {
    const KILOBYTES: usize = 16_000;
    let watched = Watched::start();
    let name = format!("{}/app:1", serve(packed(&layer(KILOBYTES))));
    let cost = watched.cost(&["pull", "-q", &name]);
    crate::soak::report(&format!("| pull of {KILOBYTES} kB, packed | {} kB |\n", cost.kilobytes));
    let most = KILOBYTES as u64 * 14 / 10;
    assert!(cost.kilobytes >= KILOBYTES as u64, "all of it is on the disk: {cost:?}");
    assert!(cost.kilobytes <= most, "{cost:?}, allowed {most}");
}
