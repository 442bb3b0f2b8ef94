//! Where in an update a device is, from what its engine says and what lies in its store.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use minke_tests_testkit::Inside;
use serde_json::Value;

/// What happens to a service whose image is replaced, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The device has not begun, or decides.
    Before,
    /// The image is asked for; nothing of it is unpacked.
    Pull,
    /// A layer is being written.
    Unpack,
    /// The old container is asked to end.
    Stop,
    /// It has ended and is to go.
    Remove,
    /// The new container is to be made.
    Create,
    /// It is to be started.
    Start,
    /// It runs; the server does not know yet.
    Report,
    /// The server knows.
    After,
}

/// The phases that something can be killed in.
pub const PHASES: [Phase; 7] = [
    Phase::Pull,
    Phase::Unpack,
    Phase::Create,
    Phase::Start,
    Phase::Stop,
    Phase::Remove,
    Phase::Report,
];

/// Follows one service through one update.
#[derive(Debug)]
pub struct Follower {
    inside: Inside,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The phase that the last event began.
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Follower {
    /// Listens to the engine's events from now on.
    pub fn start(inside: Inside, socket: &str, service: &str) -> Result<Follower> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to the engine at {socket}"))?;
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: engine\r\n\r\n")
            .context("cannot ask the engine for its events")?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("the engine closed its events")??;
        if !status.contains(" 200 ") {
            bail!("the engine gives no events: {status}");
        }
        let seen = Arc::new(Seen { phase: Mutex::new(Phase::Before), changed: Condvar::new() });
        let (told, prefix) = (seen.clone(), format!("{service}_"));
        // It ends with the stream, which ends with the engine or the device.
        std::thread::spawn(move || {
            for line in lines.map_while(std::io::Result::ok) {
                let Some(phase) = begun_by(&line, &prefix) else { continue };
                *told.phase.lock().expect("no panic while it is held") = phase;
                told.changed.notify_all();
            }
        });
        Ok(Follower { inside, seen })
    }

    /// The phase as far as the device itself shows it: [`Phase::Report`] never ends.
    pub fn phase(&self) -> Phase {
        let told = *self.seen.phase.lock().expect("no panic while it is held");
        if told != Phase::Before {
            return told;
        }
        let store = self.inside.engine("images");
        if holds_files(&store.join("staging"), 0) {
            Phase::Unpack
        } else if has_entries(&store.join("pending")) {
            Phase::Pull
        } else {
            Phase::Before
        }
    }

    /// Waits until `phase` or a later one has begun.
    pub fn wait_for(&self, phase: Phase, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.phase() < phase {
            if begun.elapsed() > limit {
                bail!("waited {} s in vain for {phase:?}", limit.as_secs());
            }
            let told = self.seen.phase.lock().expect("no panic while it is held");
            // Files are looked at again after a moment, events are told of.
            let (_told, _) = self
                .seen
                .changed
                .wait_timeout(told, Duration::from_millis(1))
                .expect("no panic while it is held");
        }
        Ok(())
    }
}

/// The phase that an event of a container begins.
fn begun_by(line: &str, prefix: &str) -> Option<Phase> {
    let event: Value = serde_json::from_str(line).ok()?;
    let name = event["Actor"]["Attributes"]["name"].as_str()?;
    if event["Type"] != "container" || !name.trim_start_matches('/').starts_with(prefix) {
        return None;
    }
    match event["Action"].as_str()? {
        "kill" => Some(Phase::Stop),
        "die" => Some(Phase::Remove),
        "destroy" => Some(Phase::Create),
        "create" => Some(Phase::Start),
        "start" => Some(Phase::Report),
        _ => None,
    }
}

fn has_entries(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Whether anything but the beginnings of a layer lies three folders down.
fn holds_files(folder: &Path, depth: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        depth == 2 || (is_folder && holds_files(&entry.path(), depth + 1))
    })
}
