//! `cargo xtask bench`: our engine beside dockerd and podman, in the same run, on this machine; then the
//! loop from a changed line to its answer. A run of all of it is kept in `docs/`, with DESIGN's budgets.
//!
//! Each engine has a network namespace and a data folder of its own and the same registry beside
//! it; all write to one file system that was made for them. Operations alternate between the engines, so that a busy moment of the machine hits both.

mod disk;
mod engine;
mod engines;
mod measure;
mod peers;
mod place;
mod priority;
mod site;
mod table;

use std::process::Command;

use anyhow::{Context, Result, bail};
use minke_tests_testkit::Binaries;

use crate::{command, docker, machine, tools};

/// What to measure, and how often.
#[derive(clap::Args)]
pub struct Options {
    /// Only these: start, memory, run, exec, pull (all five: engine), loop.
    only: Vec<String>,
    /// Repetitions of each operation; the median is shown.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Measure programs of this cargo profile, not those that ship: they are built sooner.
    #[arg(long)]
    profile: Option<String>,
}

impl Options {
    fn wants(&self, what: &str) -> bool {
        let of_engines = KNOWN[..5].contains(&what);
        self.only.is_empty()
            || self.only.iter().any(|it| it == what || (of_engines && it == ENGINE))
    }
}

const KNOWN: [&str; 6] = ["start", "memory", "run", "exec", "pull", "loop"];
/// The first five of them.
const ENGINE: &str = "engine";

pub fn run(options: &Options) -> Result<()> {
    if let Some(unknown) =
        options.only.iter().find(|it| !KNOWN.contains(&it.as_str()) && *it != ENGINE)
    {
        bail!("`{unknown}` is nothing that can be measured; there are {}", KNOWN.join(", "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("engines need root; start `cargo xtask bench` as root");
    }
    tools::ensure(&[tools::DEMO, tools::TEST, tools::BENCH])?;
    let binaries = programs(options)?;
    let peer = docker::unpack(&crate::target().join("tools"))?;
    let work =
        tempfile::tempdir_in(crate::target()).context("cannot make a folder to measure in")?;
    let mut table = table::Table::default();
    if KNOWN[..5].iter().any(|what| options.wants(what)) {
        let disk = disk::Disk::make(work.path())?;
        engines::compare(options, &binaries, &peer, disk.path(), &mut table)?;
        println!("\n{}", table.text());
    }
    if options.wants("loop") {
        site::measure_loop(&binaries, work.path(), &mut table)?;
    }
    if KNOWN.iter().all(|what| options.wants(what)) {
        write(options, &table)?;
    }
    println!("\n{}", table.text());
    Ok(())
}

/// The programs to measure: a device's as they ship to devices, the others as they are released.
fn programs(options: &Options) -> Result<Binaries> {
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(crate::root()).args(["build", "--locked", "--bins"]).args(words);
        command::run(&mut cargo)
    };
    if let Some(profile) = &options.profile {
        cargo(&["--workspace", "--profile", profile])?;
        return Binaries::in_folder(&crate::target().join(profile));
    }
    cargo(&["--release", "-p", "minke-cloud-cloud", "-p", "minke-cli"])?;
    let device = crate::device::build()?;
    let release = crate::target().join("release");
    let together = crate::target().join("shipped");
    std::fs::create_dir_all(&together)
        .with_context(|| format!("cannot make {}", together.display()))?;
    for (folder, name) in [
        (&release, "minke"),
        (&release, "minke-cloud"),
        (&device, "minke-device"),
        (&device, "minke-shim"),
    ] {
        let copy = together.join(name);
        // A program that still runs cannot be written to, but its name can be taken.
        if let Err(error) = std::fs::remove_file(&copy)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", copy.display()));
        }
        std::fs::copy(folder.join(name), &copy)
            .with_context(|| format!("cannot make {}", copy.display()))?;
    }
    Binaries::in_folder(&together)
}

/// Keeps what was measured in `docs/`.
fn write(options: &Options, table: &table::Table) -> Result<()> {
    let text = format!(
        "# Engines side by side, and the loop\n\n`cargo xtask bench --runs {}{}`, {}, {}. Each engine in \
         namespaces of its own with a registry of its own, operations in turn, medians, on one \
         new ext4 with a journal on a loop device without a scheduler; CPU time is that \
         of the daemon, its helpers and its command line. podman pulls in its command line, which \
         cannot be looked at when it has ended. The last rows are one site with one device: a \
         pushed project with one line changed, and what is resident when all is at rest.\n\n{}\n![Each engine relative to dockerd](bench-engine.svg)\n",
        options.runs,
        options.profile.iter().map(|name| format!(" --profile {name}")).collect::<String>(),
        machine::today()?,
        machine::describe()?,
        table.text(),
    );
    let docs = crate::root().join("docs");
    std::fs::write(docs.join("bench-engine.md"), text).context("cannot write the table")?;
    std::fs::write(docs.join("bench-engine.svg"), table.plot()).context("cannot write the plot")
}
