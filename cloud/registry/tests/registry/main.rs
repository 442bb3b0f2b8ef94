//! The registry over HTTP, as its clients see it.

mod auth;
mod fixture;
mod garbage;
mod http;
mod manifests;
mod skopeo;
mod uploads;
