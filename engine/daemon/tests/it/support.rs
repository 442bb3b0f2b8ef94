//! A daemon for one test: its own network namespace, data directory and image, and nothing left of it
//! afterwards, also when the test fails.

mod debian;
mod disk;
mod dockerd;
mod guest;
mod http;
mod image;
mod numbers;
mod picture;
mod project;
mod served;
mod site;
mod tools;

pub use disk::Disk;
pub use dockerd::Dockerd;
pub use guest::run_in_guest;
pub use http::{Begun, ask, ask_with, begin};
pub use image::{IMAGE, archive_of, image_archive, image_config, image_layer};
pub use numbers::{Numbers, seeds};
pub use picture::{Picture, describe};
pub use project::Project;
pub use served::Served;
pub use site::{Outcome, Site, now, wait_until};
pub use tools::{clis, docker_registry, docker20_programs, docker28, engine, on_path, shim};
