//! Turns a pushed project into a release: archive in, images in the registry and rows out.
//!
//! The crate knows HTTP, project layouts and the engine worker. It knows no database: everything
//! it records goes through [`Releases`], which the server binary implements.
//!
//! Invariants:
//! - A project is read and checked whole (compose file, every Dockerfile, every base image) before a
//!   release exists.
//! - A release becomes `success` only after every image of it is in the registry, by digest.
//! - Whatever goes wrong after that point is written on the release and its images; the release
//!   that devices run is never touched.
//! - Every input is bounded by [`Limits`]; an excess is refused with the limit it broke.

mod archive;
mod bases;
mod builder;
mod context;
mod http;
mod limits;
mod message;
mod ports;
mod project;
mod push;
mod report;
mod secrets;
mod service;
mod worker;

pub use archive::ArchiveError;
pub use builder::{Builder, BuilderOptions};
pub use http::router;
pub use limits::Limits;
pub use ports::{
    BoxFuture, Credential, Fleet, ImageRow, ImageUpdate, NewImage, NewRelease, Outcome,
    ReleaseError, ReleaseRow, Releases, Status,
};
pub use project::ProjectError;
pub use worker::{Worker, WorkerError, WorkerOptions};
