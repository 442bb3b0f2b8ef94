//! What the end-to-end tests share: a site in a folder of its own, and a device's engine.

mod demo;
mod docker;
mod machine;
mod phases;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_tests_testkit::{Binaries, FLEET, Inside, Options, Response, Site, Weather, request};
use serde_json::Value;
use std::time::Duration;

pub use demo::Demo;
pub use docker::{Container, Docker};
pub use machine::Machine;
pub use phases::{Follower, PHASES, Phase};

/// The name of the device that [`TestSite::with_device`] starts.
pub const DEVICE: &str = "one";

/// How long one answer may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A site that is gone, with its folder, when the test ends.
#[derive(Debug)]
pub struct TestSite {
    /// The running site.
    pub site: Site,
    /// The example, to change and push.
    pub weather: Weather,
    /// Where it lives: dropped last.
    pub folder: tempfile::TempDir,
}

impl TestSite {
    /// A server with a fleet and no device.
    pub fn start() -> Result<TestSite> {
        TestSite::start_in(TestSite::folder()?)
    }

    /// An empty folder for a site.
    pub fn folder() -> Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("minke-e2e").tempdir().context("no folder")
    }

    /// The same in a folder that is there.
    pub fn start_in(folder: tempfile::TempDir) -> Result<TestSite> {
        let binaries = Binaries::beside_this_program()?;
        let options = Options {
            folder: folder.path().to_owned(),
            base_images: cache(&binaries),
            binaries,
            // Unique on this machine while this process lives, and short enough for an interface.
            bridge: format!("mke{}", std::process::id()),
            port: 0,
        };
        let site = Site::start(options, &mut |text| println!("{text}"))?;
        site.cli().run(&["fleet", "create", FLEET])?;
        let weather = Weather::copy(&example(), &folder.path().join("weather"))?;
        Ok(TestSite { site, weather, folder })
    }

    /// Asks the server's API as the administrator.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Response> {
        let token = format!("Bearer {}", self.site.cli().token()?);
        let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
        request(method, &format!("{}{path}", self.site.url()), &headers, body, PATIENCE)
    }

    /// What the server knows of the device.
    pub fn device_row(&self) -> Result<Value> {
        self.site.cli().json(&["device", &self.site.device(DEVICE)?.uuid])
    }

    /// The device from inside.
    pub fn inside(&self) -> Result<Inside> {
        Inside::of(&self.site.device_data(DEVICE))
    }

    /// The device's engine.
    pub fn docker(&self) -> Result<Docker> {
        Ok(Docker::at(&self.site.device(DEVICE)?.engine_socket))
    }

    /// A server with a fleet and one device in it.
    pub fn with_device() -> Result<TestSite> {
        let mut test = TestSite::start()?;
        test.site.add_device(FLEET, DEVICE)?;
        Ok(test)
    }
}

/// The project that newcomers push.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/weather")
}

/// Base images are made once per target folder, which holds the folder of the binaries.
fn cache(binaries: &Binaries) -> PathBuf {
    let mut folder = binaries.path("minke");
    folder.pop();
    folder.pop();
    folder.join("base-images")
}
