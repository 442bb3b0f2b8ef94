//! What unpacking keeps in mind until the end of a layer. The tar chooses how much there is of it, so all
//! of it is counted.

use std::collections::BTreeSet;

use crate::layer::LayerError;

/// Bytes that the paths of one kind may take together.
const MAX_PATHS: usize = 32 << 20;
/// What is kept with each path, near enough.
const BESIDE: usize = 48;

/// How much of their room the paths of one kind have taken.
#[derive(Debug)]
pub(crate) struct Room {
    what: &'static str,
    taken: usize,
}

impl Room {
    /// All of it; `what` says in an error what there is too much of.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, taken: 0 }
    }

    /// One more path is kept.
    pub(crate) fn take(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.taken += path.len() + BESIDE;
        if self.taken > MAX_PATHS {
            return Err(LayerError::Limit { what: self.what, limit: MAX_PATHS as u64 });
        }
        Ok(())
    }

    fn give_back(&mut self, path: &[u8]) {
        self.taken -= path.len() + BESIDE;
    }
}

/// Names of lower layers that were hidden where this layer has something of its own.
#[derive(Debug)]
pub(crate) struct Hidden {
    paths: BTreeSet<Vec<u8>>,
    room: Room,
}

impl Default for Hidden {
    fn default() -> Self {
        Self { paths: BTreeSet::new(), room: Room::of("the bytes of all hidden names") }
    }
}

impl Hidden {
    /// Whether this path was hidden.
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(path)
    }

    /// This path is hidden.
    pub(crate) fn add(&mut self, path: Vec<u8>) -> Result<(), LayerError> {
        if !self.paths.contains(&path) {
            self.room.take(&path)?;
            self.paths.insert(path);
        }
        Ok(())
    }

    /// The directory has gone, and what was hidden in it with it.
    pub(crate) fn forget_below(&mut self, directory: &[u8]) {
        let below = [directory, b"/"].concat();
        // They stand together in the order of bytes. All would be too many to look at each time.
        let inside = self.paths.range(below.clone()..);
        let gone: Vec<_> = inside.take_while(|path| path.starts_with(&below)).cloned().collect();
        for path in gone {
            self.paths.remove(&path);
            self.room.give_back(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(number: usize) -> Vec<u8> {
        format!("a/{number:04000}").into_bytes()
    }

    /// Adds until no more are taken.
    fn filled(hidden: &mut Hidden) -> (usize, LayerError) {
        (0..1_000_000)
            .find_map(|number| Some((number, hidden.add(long(number)).err()?)))
            .expect("there is no limit")
    }

    #[test]
    fn hidden_names_take_so_much_memory_and_no_more() {
        let mut hidden = Hidden::default();
        let (count, error) = filled(&mut hidden);
        assert_eq!(count, MAX_PATHS / (4002 + BESIDE));
        assert_eq!(
            error.to_string(),
            "the bytes of all hidden names is over the limit of 33554432"
        );
        // What is known takes nothing.
        assert!(hidden.contains(&long(7)));
    }

    #[test]
    fn names_of_a_directory_that_has_gone_make_room() {
        let mut hidden = Hidden::default();
        for _ in 0..2 * MAX_PATHS / BESIDE {
            hidden.add(b"a.b".to_vec()).unwrap();
        }
        for name in [&b"a"[..], b"a/b", b"a/b/c", b"a0"] {
            hidden.add(name.to_vec()).unwrap();
        }
        let taken = hidden.room.taken;
        for number in 0..3 {
            hidden.add([b"b/", &long(number)[..]].concat()).unwrap();
        }
        hidden.forget_below(b"b");
        assert_eq!(hidden.room.taken, taken);
        hidden.forget_below(b"a");
        let left: Vec<_> = hidden.paths.iter().map(|path| &path[..]).collect();
        assert_eq!(left, [&b"a"[..], b"a.b", b"a0"]);
        assert_eq!(hidden.room.taken, "aa.ba0".len() + 3 * BESIDE);
    }
}
