//! Large files of a layer: what would fill the memory that running programs' files are kept in.

use std::path::Path;

use rustix::fs::{Advice, fadvise};

use crate::layer::beneath::Beneath;

/// Bytes of names that are kept: enough for thousands of files, and little whatever a layer holds.
const MOST: usize = 1 << 20;

/// Names of large files; a layer with too many keeps those that came first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Large {
    names: Vec<Vec<u8>>,
    bytes: usize,
}

impl Large {
    pub(crate) fn add(&mut self, path: &[u8]) {
        if self.bytes + path.len() <= MOST {
            self.bytes += path.len();
            self.names.push(path.to_vec());
        }
    }

    /// Lets the kernel forget what it holds of these files in memory. They are on the disk: what it would
    /// have to forget for them otherwise is what runs. Whoever starts the image reads what it needs.
    pub(crate) fn forget(&self, view: &Path) {
        // It is only advice, and the layer is whole without it.
        let Ok(view) = Beneath::open(view) else { return };
        for name in &self.names {
            // A later entry may have put something else in its place.
            if let Ok(file) = view.file(name) {
                let _ = fadvise(&file, 0, None, Advice::DontNeed);
            }
        }
    }
}
