//! Brings the device from what it runs to what the fleet wants it to run.
//!
//! One round of the loop, and the module that owns each word of it:
//!
//! ```text
//!   observe ──> Observed ─┐
//!   (engine)   (state)    ├─> plan ──> Plan { steps, waits } ──> perform
//!   cloud ─> compose ─> Target                                    │
//!      ^     (pure)      (state)            reconcile: the loop <─┘
//!      └── report <── Status ──> api (48484), logs
//! ```
//!
//! Invariants, each held by a property test in `plan/tests/laws.rs`:
//!
//! * `plan` is a pure function: no clock, no I/O, no randomness, no memory.
//! * It ends: every device reaches every target, through lost steps and changed minds.
//! * Steps of one plan are independent: any order, or all at once. A crash between needs no
//!   recovery code: the next round observes.
//! * No service is touched while its app holds an update lock; nothing new starts before all images of
//!   its release are here; what ended by itself stays ended; a volume goes only with its app or by purge.

mod api;
mod api_keys;
mod compose;
mod device_view;
mod host;
mod locks;
mod logs;
mod memory;
mod metrics;
mod narrate;
mod observe;
mod perform;
mod plan;
mod reconcile;
mod report;
mod run;
mod state;
mod step;

pub use run::{SupervisorOptions, run};

/// The version that is reported; the major number is that of the balena supervisor whose API this is.
pub const VERSION: &str =
    concat!("19.", env!("CARGO_PKG_VERSION_MINOR"), ".", env!("CARGO_PKG_VERSION_PATCH"));
