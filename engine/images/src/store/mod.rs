//! The store as its users see it. Every operation is in a file of its own.

mod archive;
mod ask;
mod build;
mod checked;
mod collect;
mod commit;
mod import;
mod index;
mod inflated;
mod info;
mod inner;
mod keeper;
mod lookup;
mod open;
mod pending;
mod pull;
mod push;
mod remove;
mod repair;
mod room;
mod scrub;
mod settle;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

pub use archive::Loaded;
pub use ask::{Found, Offer};
pub use build::CommittedLayer;
pub use collect::GcReport;
pub use repair::Repair;
pub use scrub::Standing;
pub use verify::{Damage, Part, VerifyProgress, VerifyReport};

use crate::durable::Writes;
use crate::error::Error;
use crate::options::Options;
use crate::store::inner::Inner;

/// The images of one engine. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl Store {
    /// Opens the store in `dir`, making it if there is none. Only one process may have it open.
    ///
    /// What a crash left is removed; what a pull can go on from is kept.
    pub async fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self, Error> {
        let dir = dir.into();
        let inner = blocking(move || open::open(dir, options)).await?;
        Ok(Self { inner })
    }

    /// What this store has asked of the disk since it was opened.
    pub fn writes(&self) -> Writes {
        self.inner.ledger.reading()
    }
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Cancelled),
    }
}
