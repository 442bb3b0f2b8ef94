//! `cargo xtask bench`: our engine beside dockerd, in the same run, on this machine.
//!
//! Each engine has a network namespace and a data folder of its own and the same registry beside
//! it. Operations alternate between the engines, so that a busy moment of the machine hits both.

mod engines;
mod measure;
mod site;
mod table;

use std::process::Command;

use anyhow::{Context, Result, bail};
use minke_tests_testkit::Binaries;

use crate::{command, docker, tools};

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    /// Only these: start, memory, run, exec, pull, loop.
    only: Vec<String>,
    /// Repetitions of each operation; the median is shown.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// The cargo profile of the binaries: `device` takes long to build and is what ships.
    #[arg(long, default_value = "release")]
    profile: String,
    /// The part that needs root; the binaries are built already.
    #[arg(long, hide = true)]
    built: bool,
}

impl Options {
    fn wants(&self, what: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == what)
    }
}

const KNOWN: [&str; 6] = ["start", "memory", "run", "exec", "pull", "loop"];

pub fn run(options: &Options) -> Result<()> {
    if let Some(unknown) = options.only.iter().find(|it| !KNOWN.contains(&it.as_str())) {
        bail!("`{unknown}` is nothing that can be measured; there are {}", KNOWN.join(", "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("engines need root; start `cargo xtask bench` as root");
    }
    tools::ensure(&[tools::DEMO, tools::TEST])?;
    command::run(Command::new(env!("CARGO")).current_dir(crate::root()).args([
        "build",
        "--workspace",
        "--bins",
        "--locked",
        "--profile",
        &options.profile,
    ]))?;
    let binaries = Binaries::in_folder(&crate::target().join(&options.profile))?;
    let peer = docker::unpack(&crate::target().join("tools"))?;
    let work =
        tempfile::tempdir_in(crate::target()).context("cannot make a folder to measure in")?;
    let mut table = table::Table::default();
    if KNOWN[..5].iter().any(|what| options.wants(what)) {
        engines::compare(options, &binaries, &peer, work.path(), &mut table)?;
    }
    if options.wants("loop") {
        site::measure_loop(&binaries, work.path(), &mut table)?;
    }
    println!();
    table.print();
    Ok(())
}
