//! The device's side of the cloud: registration, the target state, reports and logs.
//!
//! ```text
//!   config.json ─> provision ─> target (GET state, ETag) ─> watch ─> supervisor
//!                               report (PATCH state)     <─ watch <─┘
//!                               log_stream <─ spool on disk <─ LogSink
//! ```
//!
//! Invariants:
//!
//! * Every retry, back-off and jitter of the device is here; callers only see the latest value.
//! * A device key is on disk before the server hears of it, and no crash makes a second device
//!   (`provision`).
//! * A log line that was taken is delivered at least once and in order, unless the spool's limit
//!   dropped it, which is then said in the log itself (`spool`).
//! * No secret is ever printed.

mod backoff;
mod config_file;
mod http;
mod lease;
mod log_stream;
mod provision;
mod random;
mod report;
mod spool;
mod target;

#[cfg(test)]
mod fake_cloud;

pub use backoff::Backoff;
pub use config_file::{ConfigFile, ConfigFileError};
pub use http::{CloudHttp, HttpError, SoftwareVersions};
pub use lease::TunnelLease;
pub use log_stream::{LogLine, LogSink, LogStream};
pub use provision::{Provisioned, mac_addresses, provision};
pub use random::hex as random_hex;
pub use report::Reporter;
pub use target::{PollHealth, Target, TargetFollower};
