//! Where a stream of a device's lines goes on after a break.
//!
//! A server can be asked for lines from a millisecond on, and lines that came to it together share one.
//! So those of the last millisecond are asked for again, and the ones that were shown are known by what
//! they say.

use minke_sdk_rust::{LogCount, LogEntry, LogOptions};

/// How far a stream has been shown.
pub struct Place {
    /// How many old lines come before the new ones.
    before: u32,
    /// The lines of the last moment, as they were shown.
    shown: Vec<LogEntry>,
    /// Those of them that a stream after a break has not brought again yet.
    expected: Vec<LogEntry>,
    /// Whether it has brought one.
    is_found: bool,
}

impl Place {
    /// Nothing has been shown; a stream begins with so many old lines.
    pub fn new(before: u32) -> Place {
        Place { before, shown: Vec::new(), expected: Vec::new(), is_found: false }
    }

    /// What to ask the server for, at the beginning and after a break.
    pub fn connect(&mut self) -> LogOptions {
        self.expected.clone_from(&self.shown);
        self.is_found = false;
        match self.moment() {
            None => LogOptions { count: Some(LogCount::Last(self.before)), start: None },
            start => LogOptions { count: Some(LogCount::All), start },
        }
    }

    /// Takes in a line of the stream; whether it is to be shown.
    pub fn take(&mut self, entry: &LogEntry) -> bool {
        if self.moment() != Some(entry.created_at) {
            self.shown.clear();
            self.expected.clear();
        }
        if let Some(place) = self.expected.iter().position(|it| it == entry) {
            self.expected.remove(place);
            self.is_found = true;
            return false;
        }
        if !self.expected.is_empty() && !self.is_found {
            // Of the same moment, but before the oldest that was asked for at the beginning.
            return false;
        }
        self.shown.push(entry.clone());
        true
    }

    fn moment(&self) -> Option<i64> {
        self.shown.last().map(|entry| entry.created_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(created_at: i64, message: &str) -> LogEntry {
        LogEntry {
            message: message.to_owned(),
            created_at,
            timestamp: 0,
            is_system: false,
            is_std_err: false,
            service_id: None,
        }
    }

    /// What is shown of these lines.
    fn shown(place: &mut Place, lines: &[LogEntry]) -> Vec<String> {
        lines.iter().filter(|it| place.take(it)).map(|it| it.message.clone()).collect()
    }

    #[test]
    fn a_stream_begins_with_some_old_lines_and_goes_on_with_all_new_ones() {
        let mut place = Place::new(100);
        let first = place.connect();
        assert_eq!((first.count, first.start), (Some(LogCount::Last(100)), None));
        shown(&mut place, &[line(7, "a")]);
        let again = place.connect();
        assert_eq!((again.count, again.start), (Some(LogCount::All), Some(7)));
    }

    #[test]
    fn after_a_break_lines_of_the_last_moment_are_shown_once() {
        let mut place = Place::new(100);
        place.connect();
        // The stream breaks in the middle of lines that came together.
        assert_eq!(shown(&mut place, &[line(6, "a"), line(7, "b"), line(7, "b")]), ["a", "b", "b"]);
        place.connect();
        let rest = [line(7, "b"), line(7, "b"), line(7, "b"), line(7, "c"), line(8, "d")];
        assert_eq!(shown(&mut place, &rest), ["b", "c", "d"]);
        place.connect();
        assert_eq!(shown(&mut place, &[line(8, "d"), line(8, "e"), line(9, "f")]), ["e", "f"]);
    }

    #[test]
    fn lines_older_than_those_asked_for_stay_away_after_a_break() {
        let mut place = Place::new(1);
        place.connect();
        assert_eq!(shown(&mut place, &[line(7, "b")]), ["b"]);
        for _ in 0..2 {
            place.connect();
            assert_eq!(shown(&mut place, &[line(7, "a"), line(7, "b")]), [""; 0]);
        }
        place.connect();
        let all = [line(7, "a"), line(7, "b"), line(7, "c")];
        assert_eq!(shown(&mut place, &all), ["c"]);
    }
}
