//! Whether a pull can fit on the disk, asked before anything is fetched.

use rustix::fs::statvfs;

use crate::error::Error;
use crate::progress::human_size;
use crate::store::inner::Inner;

/// What one layer that is missing will take.
pub(crate) struct Wanted {
    /// Compressed bytes, as the manifest says.
    pub size: u64,
    /// Of those, bytes that an earlier try left here.
    pub here: u64,
}

impl Inner {
    /// An error with both numbers if `missing` cannot fit. Blocking.
    ///
    /// A manifest does not say how much a layer unpacks to, so what is asked for is the least: every
    /// layer unpacked takes no less than it took compressed, and the largest is there in both forms when
    /// its last file is written. What does not fit after all is found while it is unpacked.
    pub(crate) fn check_room(&self, name: &str, missing: &[Wanted]) -> Result<(), Error> {
        let unpacked: u64 = missing.iter().map(|layer| layer.size).sum();
        let largest = missing.iter().map(|layer| layer.size).max().unwrap_or(0);
        let here: u64 = missing.iter().map(|layer| layer.here).sum();
        let needed = unpacked.saturating_add(largest).saturating_sub(here);
        let found = statvfs(&self.dir).map_err(|e| Error::io("looking at", &self.dir, e.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(Error::NoRoom {
            name: name.to_owned(),
            path: self.dir.clone(),
            needed: human_size(needed),
            free: human_size(free),
        })
    }
}
