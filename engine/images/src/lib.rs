//! The content store of the engine: images and their layers on disk, and how they come and go
//! (pull, push, build, load, save, remove, garbage collection).
//!
//! ```text
//!   registry ──blob bytes──► partial file ─┐ (kept for resume)
//!                 │                        │
//!                 └─► SHA-256 ─► inflate ─► SHA-256 ─► tar ─► files (view) + manifest
//!                      blob digest           DiffID             │
//!                                                     syncfs, rename: the layer exists
//! ```
//!
//! Invariants:
//!
//! * An image is listed only when its configuration and every layer are on disk and their digests were
//!   checked; it appears and disappears by one rename.
//! * A layer is a manifest and a view; together they rebuild a tar whose SHA-256 is the DiffID, and
//!   [`Store::verify`] finds any altered byte.
//! * Whatever a crash leaves in `staging/` is dropped or taken over at the next open; only the bytes of
//!   broken-off downloads stay, for resume, for a limited time.
//! * Nothing in a layer can name, read or write a file outside of the directory it is unpacked to.
//! * Everything that comes from a registry, an archive or a layer has a limit; errors name it.

mod config;
mod durable;
mod error;
mod ids;
mod image;
pub mod layer;
mod options;
mod progress;
pub mod registry;
mod store;

pub use config::{History, ImageConfig, RootFs, RunConfig};
pub use durable::Writes;
pub use error::{Error, ErrorKind, chain};
pub use ids::{DiffId, ImageId, chain_id};
pub use image::Image;
pub use options::{
    Credentials, Limits, Options, Patience, Platform, Pruned, PullOptions, PushOptions, Pushed,
    RemoveOptions, Removed, Use,
};
pub use progress::{ProgressDetail, ProgressEvent};
pub use store::{
    CommittedLayer, Damage, Found, GcReport, Loaded, Offer, Part, Repair, Standing, Store,
    VerifyProgress, VerifyReport,
};

/// The result of an operation on images.
pub type Result<T, E = Error> = std::result::Result<T, E>;
