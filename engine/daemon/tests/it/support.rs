//! A daemon for one test: its own network namespace, data directory and image, and nothing left of it
//! afterwards, also when the test fails.

mod image;
mod site;
mod tools;

pub use image::{IMAGE, image_archive, image_config, image_layer};
pub use site::{Site, wait_until};
pub use tools::{clis, docker28};
