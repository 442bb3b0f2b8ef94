//! Which release a device should run.

/// What of a release decides whether a fleet may move to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Row id.
    pub id: i64,
    /// `status`.
    pub status: &'a str,
    /// Whether `revision` is set.
    pub is_final: bool,
    /// `is_passing_tests`.
    pub is_passing_tests: bool,
    /// `is_invalidated`.
    pub is_invalidated: bool,
    /// `start_timestamp`, milliseconds since the epoch.
    pub start_timestamp: i64,
}

impl Candidate<'_> {
    /// Whether a fleet that tracks the latest release may run this one.
    pub fn is_eligible(&self) -> bool {
        self.status == "success" && self.is_final && self.is_passing_tests && !self.is_invalidated
    }
}

/// The release that a fleet which tracks the latest should run: of those eligible the one that was
/// started last, by id where two started together.
pub fn latest(candidates: &[Candidate<'_>]) -> Option<i64> {
    candidates
        .iter()
        .filter(|release| release.is_eligible())
        .max_by_key(|release| (release.start_timestamp, release.id))
        .map(|release| release.id)
}

/// The release that a device should run: its own pin before its fleet's target.
pub fn of_device(pinned: Option<i64>, fleet_target: Option<i64>) -> Option<i64> {
    pinned.or(fleet_target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Candidate<'_> = Candidate {
        id: 1,
        status: "success",
        is_final: true,
        is_passing_tests: true,
        is_invalidated: false,
        start_timestamp: 10,
    };

    #[test]
    fn the_last_started_wins_and_drafts_do_not_count() {
        let later = Candidate { id: 2, start_timestamp: 20, ..GOOD };
        let twin = Candidate { id: 3, ..later };
        let draft = Candidate { id: 4, start_timestamp: 30, is_final: false, ..GOOD };
        let failed = Candidate { id: 5, start_timestamp: 40, status: "failed", ..GOOD };
        let invalid = Candidate { id: 6, start_timestamp: 50, is_invalidated: true, ..GOOD };
        assert_eq!(latest(&[later, GOOD, draft, failed, invalid]), Some(2));
        assert_eq!(latest(&[twin, later]), Some(3));
        assert_eq!(latest(&[draft]), None);
    }

    #[test]
    fn a_pin_goes_before_the_fleet() {
        assert_eq!(of_device(Some(1), Some(2)), Some(1));
        assert_eq!(of_device(None, Some(2)), Some(2));
        assert_eq!(of_device(None, None), None);
    }
}
