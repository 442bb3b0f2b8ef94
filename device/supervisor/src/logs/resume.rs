//! Where a log is taken up again. Pure.
//!
//! A cursor is the time of the last line that was taken. A clock that went back makes new lines older
//! than that: a device without a battery begins each boot with the time at which it was switched off,
//! or with 1970.
//!
//! ```text
//!            floor          now           cursor
//!   ───────────┼─────────────┼──────────────┼────────>  what a line says of its time
//!     before   │  new lines  │ taken before │  new lines, once the clock is right again
//! ```
//!
//! No new line is later than now, so one that is and that the cursor covers was taken before.

/// Nanoseconds since 1970, for each: which lines of one log are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resume {
    /// No line before this is new.
    pub since: i128,
    taken: Option<i128>,
}

impl Resume {
    /// After the line at `cursor`, or from the beginning. `floor` is a time before which nothing was
    /// written since the clock may have gone back.
    pub fn new(cursor: Option<i128>, now: i128, floor: i128) -> Resume {
        let since = match cursor {
            None => 0,
            Some(cursor) if cursor <= now => cursor + 1,
            Some(_) => floor.clamp(0, now.max(0)),
        };
        Resume { since, taken: cursor }
    }

    /// Whether a line that is read `now` is a new one.
    pub fn is_new(self, line: i128, now: i128) -> bool {
        let Some(taken) = self.taken else { return true };
        line >= self.since && (line > taken || line <= now)
    }

    /// The engine's word for where to begin: seconds with nine digits behind the point.
    pub fn since(self) -> String {
        match self.since {
            0 => String::new(),
            since => format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000),
        }
    }
}

/// Sees a clock that goes back.
#[derive(Debug)]
pub(super) struct Clock {
    last: i128,
}

impl Clock {
    pub fn new(now: i128) -> Clock {
        Clock { last: now }
    }

    /// Whether it is earlier now than when this was last asked.
    pub fn went_back(&mut self, now: i128) -> bool {
        std::mem::replace(&mut self.last, now) > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_line_is_one_nanosecond_later() {
        let after = |cursor: i128| Resume::new(Some(cursor), i128::MAX, 0).since();
        assert_eq!(after(1_795_233_600_999_999_999), "1795233601.000000000");
        assert_eq!(after(1_000_000_041), "1.000000042");
        assert_eq!(Resume::new(None, 50, 10).since(), "");
    }

    #[test]
    fn with_a_clock_that_is_right_the_cursor_is_the_end_of_what_was_taken() {
        let resume = Resume::new(Some(40), 50, 10);
        let is_new = [39, 40, 41, 50, 51].map(|line| resume.is_new(line, 50));
        assert_eq!(is_new, [false, false, true, true, true]);
        let from_the_beginning = Resume::new(None, 50, 10);
        assert!(from_the_beginning.is_new(1, 50) && from_the_beginning.is_new(60, 50));
    }

    #[test]
    fn after_a_clock_that_went_back_only_what_was_taken_is_left_out() {
        let resume = Resume::new(Some(100), 50, 30);
        assert_eq!(resume.since, 30);
        for (line, now, is_new, what) in [
            (29, 50, false, "of before the boot"),
            (30, 50, true, "of this boot"),
            (50, 50, true, "of this moment"),
            (51, 50, false, "of before, and later than now"),
            (100, 50, false, "the last that was taken"),
            (51, 51, true, "written a moment later"),
            (101, 50, true, "beyond all that was taken"),
            (99, 200, true, "written on the way to the right time"),
        ] {
            assert_eq!(resume.is_new(line, now), is_new, "{what}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_is_seen_once() {
        let mut clock = Clock::new(10);
        assert_eq!(
            [11, 11, 5, 5, 6].map(|now| clock.went_back(now)),
            [false, false, true, false, false]
        );
    }
}
