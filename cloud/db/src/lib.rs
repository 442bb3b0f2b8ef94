//! The resource model as data, its tables, and one SQL statement per OData request.
//!
//! ```text
//! request text ──common/odata──▶ tree ──compile──▶ one statement ──store──▶ SQLite or PostgreSQL
//!                                         ▲  ▲
//!                         model.json ─────┘  └───── the caller's permissions (cloud/fleet)
//! ```
//!
//! Invariants:
//! * the only crate that knows SQL;
//! * a row that a caller may not see does not exist for it, in reads and in writes alike;
//! * both engines give equal answers and equal errors for the same request;
//! * a write, what its rules add, and the state generation it moves are one transaction.

mod accounts;
mod caller;
mod cell;
mod compile;
mod database;
mod devices;
mod error;
mod generation;
pub mod model;
mod report;
mod rules;
mod seed;
mod store;
mod write;

pub use accounts::{Account, ApiKey, Identity, NewAccount, NewApiKey};
pub use caller::Caller;
pub use database::{Created, Db, Tx};
pub use devices::DeviceRef;
pub use error::{Error, Result};
pub use generation::Moved;
pub use model::Model;
pub use report::{Install, Report};
