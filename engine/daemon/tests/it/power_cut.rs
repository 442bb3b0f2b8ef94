//! Power cuts without a guest: the engine's data directory is on a block device that records every write
//! and flush, and what the device could hold after a power cut at any point is made again and looked at.
//!
//! ```text
//! engine ─► ext4 ─► loop device ─► file of qemu-storage-daemon (FUSE) ─► blklogwrites ─► log of writes
//!                                                                                      and flushes
//! log up to a point ─► what was flushed + some of the rest, in any order, torn ─► mounted ─► engine
//! ```
//!
//! What was flushed before the cut is there. Of what was written after the last flush, any part may be
//! missing. After each cut the file system is mounted (its journal is replayed), the engine starts, and
//! [`check`] says what is wrong. The same check on an engine whose syncs do nothing must find something,
//! or the check would be worth nothing.
//!
//! `MINKE_POINTS` says how many cuts; the whole form also looks at Debian's dockerd.

mod check;
pub mod disk;
pub mod images;
mod log;
mod peer;
mod table;
mod work;

use std::path::PathBuf;

use crate::registry;
use crate::support::Site;
use check::{Fault, examine};
use disk::{Reboot, Recorded};
use log::{Cut, Replay};
use peer::Peer;
use table::Table;
use work::{Phase, Step, record};

/// Cuts in the default run.
const SAMPLE: usize = 12;

/// What an engine did on a recorded disk.
struct Recording {
    site: Site,
    reboot: Reboot,
    base: PathBuf,
    log: log::Log,
    steps: Vec<Step>,
    /// Bytes below the data directory of an engine that has done nothing.
    bare: u64,
}

impl Recording {
    fn of(peer: &Peer) -> Recording {
        let site = Site::stopped();
        let registry = registry::serve(images::content());
        let reboot = Reboot::prepare(site.dir.path());
        std::fs::create_dir(site.data()).unwrap();
        let mut disk = Recorded::start(site.dir.path(), &site.data());
        let running = peer.start(&site).unwrap();
        let bare = check::bytes_below(&site.data());
        let steps = record(&site, &mut disk, &registry);
        running.stop();
        let (base, log) = disk.finish();
        Recording { site, reboot, base, log, steps, bare }
    }

    /// Points spread over the phases, the moment of every acknowledgement among them.
    fn points(&self, count: usize) -> Vec<(Phase, usize)> {
        let mut points = Vec::new();
        for phase in Phase::ALL {
            let steps: Vec<&Step> = self.steps.iter().filter(|step| step.phase == phase).collect();
            let inside: Vec<usize> =
                steps.iter().flat_map(|step| step.from + 1..=step.to).collect();
            let share = (count / Phase::ALL.len()).max(1);
            for number in 0..share {
                // Half of one stride in, so that also the middle of few is looked at.
                let at = (number * 2 + 1) * inside.len() / (share * 2);
                points.push((phase, inside[at.min(inside.len() - 1)]));
            }
        }
        points.sort_by_key(|(_, at)| *at);
        points
    }

    /// Cuts the power at these points and collects what is wrong after each.
    fn cut(&self, peer: &Peer, points: &[(Phase, usize)], cuts: &[Cut]) -> Table {
        let mut table = Table::new(peer.name());
        let mut replay = Replay::new(&self.log, &self.base, self.site.dir.path());
        for (number, (phase, at)) in points.iter().enumerate() {
            let cut = cuts[number % cuts.len()];
            let image = replay.image(*at, cut, number as u64);
            self.reboot.again(number);
            let faults = examine(self, peer, &image, *at);
            for fault in &faults {
                eprintln!("{} cut at {at} in {phase:?} ({cut:?}): {fault}", peer.name());
            }
            table.add(*phase, faults);
        }
        table
    }
}

fn count() -> usize {
    let asked = std::env::var("MINKE_POINTS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(SAMPLE)
}

fn report(text: &str) {
    println!("{text}");
    if let Some(path) = std::env::var_os("MINKE_SOAK_REPORT") {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{text}").unwrap();
    }
}

#[test]
fn no_power_cut_loses_or_tears_anything() {
    let recording = Recording::of(&Peer::Minke);
    let points = recording.points(count());
    let table = recording.cut(&Peer::Minke, &points, &Cut::ALL);
    report(&table.to_markdown(recording.log.len()));
    if count() > SAMPLE {
        // Its start alone takes longer than all of the sample. What it loses is its own business.
        let dockerd = Peer::Dockerd;
        let recording = Recording::of(&dockerd);
        let table = recording.cut(&dockerd, &recording.points(count()), &Cut::ALL);
        report(&table.to_markdown(recording.log.len()));
    }
    assert!(points.len() >= count().min(4 * Phase::ALL.len()));
    assert_eq!(table.faults(), 0, "see above");
}

/// The negative control.
#[test]
fn an_engine_whose_syncs_do_nothing_is_found_out() {
    let peer = Peer::MinkeWithoutSyncs;
    let recording = Recording::of(&peer);
    // The moment after something was acknowledged, as often as that happened.
    let mut points: Vec<(Phase, usize)> =
        recording.steps.iter().map(|step| (step.phase, step.to)).collect();
    if count() == SAMPLE {
        points.truncate(4);
    }
    let table = recording.cut(&peer, &points, &[Cut::AllUnflushed]);
    report(&table.to_markdown(recording.log.len()));
    assert!(table.found(Fault::is_lost) > 0, "the check finds nothing where nothing is synced");
}
