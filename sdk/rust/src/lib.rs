//! A client of a Minke server: what the CLI uses, and what programs of yours can use.
//!
//! ```no_run
//! # async fn example() -> Result<(), minke_sdk_rust::Error> {
//! use minke_sdk_rust::Client;
//!
//! let mut client = Client::new("http://127.0.0.1:8080")?;
//! client.login("admin@example.com", "secret").await?;
//! for fleet in client.fleets().await? {
//!     println!("{}", fleet.slug);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call is one or a few requests to the public API; nothing here keeps state but the token.

// Fields are named as in the API, where two underscores mark a navigation.
#![allow(non_snake_case)]

mod account;
mod builder;
mod client;
mod device;
mod error;
mod fleet;
mod json_array;
mod logs;
pub mod odata;
mod release;
mod variable;

pub use account::{Actor, User};
pub use builder::{BuildEvent, BuildOptions};
pub use client::Client;
pub use device::{Device, RegisteredDevice, ServiceStatus};
pub use error::Error;
pub use fleet::{Fleet, Organization};
pub use logs::{LogCount, LogEntry, LogOptions};
pub use release::{Image, Release, ReleaseDetail};
pub use reqwest::Body;
pub use variable::{Owner, Scope, Variable, VariableKind};
