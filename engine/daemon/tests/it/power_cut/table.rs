//! What was found after all cuts, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::check::Fault;
use super::work::Phase;

const HEADS: [&str; 6] = [
    "does not start",
    "acknowledged and lost",
    "unexpected",
    "corrupt image listed",
    "cannot be done again",
    "orphan bytes",
];

/// Points by phase, and points with each kind of fault.
pub struct Table {
    name: &'static str,
    rows: BTreeMap<Phase, (usize, [usize; HEADS.len()])>,
    faults: Vec<Fault>,
}

impl Table {
    pub fn new(name: &'static str) -> Table {
        Table { name, rows: BTreeMap::new(), faults: Vec::new() }
    }

    pub fn add(&mut self, phase: Phase, faults: Vec<Fault>) {
        let (points, kinds) = self.rows.entry(phase).or_default();
        *points += 1;
        for (kind, count) in kinds.iter_mut().enumerate() {
            *count += usize::from(faults.iter().any(|fault| fault.kind() == kind));
        }
        self.faults.extend(faults);
    }

    pub fn faults(&self) -> usize {
        self.faults.len()
    }

    pub fn found(&self, which: impl Fn(&Fault) -> bool) -> usize {
        self.faults.iter().filter(|fault| which(fault)).count()
    }

    pub fn to_markdown(&self, requests: usize) -> String {
        let points: usize = self.rows.values().map(|(points, _)| points).sum();
        let mut text = format!("## {}\n\n", self.name);
        let _ = writeln!(text, "{points} cuts in {requests} writes and flushes.\n");
        let _ = writeln!(text, "| cut during | cuts | {} |", HEADS.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(HEADS.len()));
        for (phase, (points, kinds)) in &self.rows {
            let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "| {phase:?} | {points} | {} |", kinds.join(" | "));
        }
        text
    }
}
