//! What the end-to-end tests share: a site in a folder of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minke_tests_testkit::{Binaries, FLEET, Options, Site, Weather};

/// The name of the device that [`TestSite::with_device`] starts.
pub const DEVICE: &str = "one";

/// A site that is gone, with its folder, when the test ends.
#[derive(Debug)]
pub struct TestSite {
    /// The running site.
    pub site: Site,
    /// The example, to change and push.
    pub weather: Weather,
    // Dropped last: the site lives in it.
    _folder: tempfile::TempDir,
}

impl TestSite {
    /// A server with a fleet and no device.
    pub fn start() -> Result<TestSite> {
        let binaries = Binaries::beside_this_program()?;
        let folder = tempfile::Builder::new().prefix("minke-e2e").tempdir().context("no folder")?;
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
        Ok(TestSite { site, weather, _folder: folder })
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
