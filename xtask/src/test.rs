//! Everything that CI runs, in the order in which it fails soonest. As root: tests make networks, mounts
//! and containers.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{command, docker, tidy, tools};

/// What `cargo xtask test` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Only tests whose name contains this; skips tidy, format and lints.
    filter: Option<String>,
    /// Do not install missing tools.
    #[arg(long)]
    no_install: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "tests make networks, mounts and containers, which needs root; start \
             `sudo -E env \"PATH=$PATH\" cargo xtask test`"
        );
    }
    if !options.no_install {
        tools::ensure(&[tools::DEMO, tools::TEST])?;
    }
    tools::ensure_nextest(!options.no_install)?;
    if options.filter.is_none() {
        stage("tidy", tidy::run)?;
        stage("format", || command::run(cargo().args(["fmt", "--all", "--check"])))?;
        stage("lints", || {
            command::run(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))
        })?;
    }
    // Tests start the binaries that users start, so those are built first. All targets at once: bins
    // alone would build many dependencies a second time, with the features that tests do not add.
    stage("build", || {
        command::run(cargo().args(["build", "--workspace", "--all-targets", "--locked", "--quiet"]))
    })?;
    let older = docker::unpack(&crate::target().join("tools"))?;
    let counts = stage("tests", || nextest(options.filter.as_deref(), &older))?;
    let seconds = begun.elapsed().as_secs();
    println!("\n{counts} (whole run: {} min {} s)", seconds / 60, seconds % 60);
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root());
    cargo
}

fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("── {name}");
    let begun = Instant::now();
    let result = work().with_context(|| format!("{name} failed"))?;
    println!("── {name}: ok, {:.0} s", begun.elapsed().as_secs_f64());
    Ok(result)
}

/// Runs all tests and returns the line that counts them.
fn nextest(filter: Option<&str>, older: &docker::Peer) -> Result<String> {
    let mut nextest = cargo();
    nextest.env("MINKE_DOCKER20", older.programs.join("docker"));
    nextest.env("PATH", older.path_with_cli());
    nextest.args(["nextest", "run", "--workspace", "--locked", "--no-tests", "fail"]);
    if std::env::var_os("CI").is_some() {
        nextest.args(["--profile", "ci"]);
    }
    nextest.args(filter);
    let mut child = nextest.stderr(Stdio::piped()).spawn().context("cannot start cargo-nextest")?;
    let stderr = child.stderr.take().context("cargo-nextest has no stderr")?;
    let summary = tee(stderr)?;
    let status = child.wait().context("cannot wait for cargo-nextest")?;
    if !status.success() {
        bail!("{}", summary.unwrap_or_else(|| format!("cargo-nextest ended with {status}")));
    }
    let summary = summary.context("cargo-nextest printed no summary")?;
    if filter.is_none() && !summary.contains(" 0 skipped") && summary.contains("skipped") {
        bail!("tests were skipped: {summary}");
    }
    Ok(summary)
}

/// Copies lines to stderr and keeps the one that nextest ends with.
fn tee(from: impl Read) -> Result<Option<String>> {
    let mut summary = None;
    for line in BufReader::new(from).lines() {
        let line = line.context("cannot read the output of cargo-nextest")?;
        eprintln!("{line}");
        if line.trim_start().starts_with("Summary") {
            summary = Some(line.trim().to_owned());
        }
    }
    Ok(summary)
}
