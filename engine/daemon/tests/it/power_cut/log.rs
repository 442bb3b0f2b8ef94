//! The log of a recorded disk, and the disks that a power cut could leave.
//!
//! The log is dm-log-writes': a first sector about the log, then for each request a sector (where, how
//! many sectors, flags) and what was written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::copy;

const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request: written data, or a flush, or both.
#[derive(Debug, Clone, Copy)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where in the log its data is.
    data: u64,
}

/// What was done to a disk, in order.
pub struct Log {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    next: u64,
}

impl Log {
    pub fn open(path: &Path) -> Log {
        let file = File::open(path).unwrap();
        Log { path: path.to_owned(), file, entries: Vec::new(), next: SECTOR }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn truncate(&mut self, length: usize) {
        self.entries.truncate(length);
    }

    /// Reads what has been added.
    pub fn read_on(&mut self) {
        let mut head = [0; 32];
        while self.file.read_exact_at(&mut head, self.next).is_ok() {
            let number =
                |at: usize| u64::from_le_bytes(head[at * 8..at * 8 + 8].try_into().unwrap());
            let (sector, sectors, flags) = (number(0), number(1), number(2));
            if sectors == 0 && flags == 0 {
                return;
            }
            let data = self.next + SECTOR;
            self.next = data + if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
            self.entries.push(Entry { sector, sectors, flags, data });
        }
    }

    fn apply(&self, entry: &Entry, disk: &File, sectors: u64) {
        if entry.flags & DISCARD != 0 {
            return;
        }
        let mut data = vec![0; (sectors * SECTOR) as usize];
        self.file.read_exact_at(&mut data, entry.data).unwrap();
        disk.write_all_at(&data, entry.sector * SECTOR).unwrap();
    }
}

/// What becomes of the writes after the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// None of them is there.
    AllUnflushed,
    /// All of them are there.
    None,
    /// Any half of them is there: later ones without earlier ones.
    Some,
    /// Of any half of them the first sectors are there.
    Torn,
}

impl Cut {
    pub const ALL: [Cut; 4] = [Cut::AllUnflushed, Cut::Some, Cut::Torn, Cut::None];
}

/// Makes disks as power cuts leave them, at later and later points.
pub struct Replay<'a> {
    log: &'a Log,
    /// Everything that is sure to be on the disk.
    sure: PathBuf,
    applied: usize,
    image: PathBuf,
}

impl<'a> Replay<'a> {
    pub fn new(log: &'a Log, base: &Path, dir: &Path) -> Replay<'a> {
        let sure = dir.join("sure.raw");
        copy(base, &sure);
        Replay { log, sure, applied: 0, image: dir.join("cut.raw") }
    }

    /// The disk after a cut when `at` requests were made.
    pub fn image(&mut self, at: usize, cut: Cut, seed: u64) -> PathBuf {
        let entries = &self.log.entries[..at];
        let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
        let flushed = flushed.map_or(0, |last| last + 1);
        assert!(flushed >= self.applied, "points go forward");
        let sure = File::options().write(true).open(&self.sure).unwrap();
        for entry in &entries[self.applied..flushed] {
            self.log.apply(entry, &sure, entry.sectors);
        }
        self.applied = flushed;
        copy(&self.sure, &self.image);
        let disk = File::options().write(true).open(&self.image).unwrap();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64);
        for entry in &entries[flushed..] {
            let kept = match cut {
                _ if entry.flags & FUA != 0 => entry.sectors,
                Cut::AllUnflushed => 0,
                Cut::None => entry.sectors,
                Cut::Some => entry.sectors * (dice.roll() & 1),
                Cut::Torn => match dice.roll() & 1 {
                    0 => 0,
                    _ => dice.roll() % (entry.sectors + 1),
                },
            };
            self.log.apply(entry, &disk, kept);
        }
        self.image.clone()
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
