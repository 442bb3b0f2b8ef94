//! A long test: how it is run, and where its report goes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, docker, machine};

/// The cargo profile of tests and programs, unless somebody says otherwise.
pub const DEFAULT: &str = "release";

/// A test of the suite with a count of its own.
pub struct Long {
    /// Name of the report: `docs/soak/<name>.md`.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// The crate that the test is in.
    pub package: &'static str,
    /// The test's name, or how the names of several begin.
    pub test: &'static str,
    /// The environment variable that says how often.
    pub variable: &'static str,
    /// How often, unless somebody says otherwise.
    pub count: u32,
}

/// Builds what the test starts, runs it, and writes its report.
pub fn run(long: &Long, count: u32, profile: &str) -> Result<()> {
    // Everything, as `cargo xtask test` builds it: fewer packages would be built with other features.
    let words = ["build", "--locked", "--workspace", "--all-targets", "--profile", profile];
    command::run(cargo().args(words))?;
    let work = tempfile::tempdir_in(crate::target()).context("cannot make a folder")?;
    let found = work.path().join("report.md");
    let begun = std::time::Instant::now();
    let peer = docker::unpack(&crate::target().join("tools"))?;
    let mut nextest = cargo();
    nextest
        .env("MINKE_DOCKER20", peer.programs.join("docker"))
        .env("PATH", peer.path_with_cli())
        .env(long.variable, count.to_string())
        .env("MINKE_SOAK_REPORT", &found)
        .args(["nextest", "run", "--locked", "--workspace", "--profile", "soak"])
        .args(["--cargo-profile", profile, "--success-output", "final"])
        .arg("-E")
        .arg(format!("package({}) & test(/^{}/)", long.package, long.test));
    let outcome = command::run(&mut nextest);
    let text = std::fs::read_to_string(&found).unwrap_or_default();
    // What it found before it failed is what explains the failure.
    println!("\n{text}");
    outcome?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let path = crate::root().join("docs/soak").join(format!("{}.md", long.name));
    write(&path, &document(long, count, profile, minutes, &text)?)?;
    println!("written to {}", path.display());
    Ok(())
}

fn document(long: &Long, count: u32, profile: &str, minutes: f64, found: &str) -> Result<String> {
    // Times and memory are those of programs that were built like this.
    let built = if profile == DEFAULT { String::new() } else { format!(" --profile {profile}") };
    Ok(format!(
        "# {}\n\n`cargo xtask soak {} --count {count}{built}`, {}, {}; {minutes:.1} min.\n\n{}\n",
        long.title,
        long.name,
        machine::today()?,
        machine::describe()?,
        found.trim_end()
    ))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root());
    cargo
}
