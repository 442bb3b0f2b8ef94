//! The demo's own program, on a machine whose network is its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use minke_tests_testkit::{Binaries, Traces, base_images, wait_until};

use crate::{Machine, PATIENCE};

/// The program with a machine to run on. Dropping it removes what a demo has left there.
#[derive(Debug)]
pub struct Demo {
    /// Where it runs.
    pub host: Machine,
    program: PathBuf,
    traces: Traces,
    folder: tempfile::TempDir,
}

impl Demo {
    /// A machine on which no demo has run.
    pub fn new() -> Result<Demo> {
        let binaries = Binaries::beside_this_program()?;
        let folder = tempfile::Builder::new().prefix("minke-e2e").tempdir()?;
        // The demo keeps what it makes where cargo would build, and finds the base images there.
        let cache = binaries.path("../base-images");
        base_images::prepare(&cache, &mut |text| println!("{text}"))?;
        std::os::unix::fs::symlink(cache.canonicalize()?, folder.path().join("base-images"))?;
        let traces = Traces::before(folder.path())?;
        Ok(Demo { host: Machine::start()?, program: binaries.path("xtask"), traces, folder })
    }

    /// The demo with these words, not yet started; its programs are built.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.host.command(&[]);
        command.arg(&self.program).args(["demo", "--built"]).args(words);
        command.env("CARGO_TARGET_DIR", self.folder.path());
        command
    }

    /// Runs it to its end, which must be a good one; what it says.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot start the demo")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}\n{complaints}");
        Ok(said)
    }

    /// Where it keeps what it makes.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    /// Notes the engines that run now, so that what they leave is found.
    pub fn note(&mut self) {
        self.traces.note_engines(&self.folder());
    }

    /// Nothing of the demo is on its machine or on this one.
    pub fn is_gone(&self) -> Result<()> {
        let links = self.host.run(&["ip", "-brief", "link"])?;
        ensure!(links.lines().count() == 1, "links are left: {links}");
        ensure!(!self.folder().exists(), "the demo's folder is left");
        let mut left = Vec::new();
        // A command line that spoke to the server ends by itself, a moment after it.
        wait_until("the end of all processes", PATIENCE, || {
            left = self.traces.left()?;
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left are {left:#?}"))
    }

    /// Where the build worker's steps run, a folder each.
    pub fn steps(&self) -> PathBuf {
        self.folder().join("cloud/builder/engine/build/containers")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if Path::new(&self.folder()).exists()
            && let Err(error) = self.run(&["--stop"])
        {
            eprintln!("{error:#}");
        }
    }
}
