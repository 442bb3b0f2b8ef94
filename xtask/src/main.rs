//! Every command of the project: `cargo xtask --help`.

mod bench;
mod command;
mod demo;
mod device;
mod docker;
mod machine;
mod soak;
mod test;
mod tidy;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole loop on this machine: push a project, see it run on a device, change it.
    ///
    /// Stays until Ctrl-C, then removes everything that it made.
    Demo(demo::Options),
    /// Our engine beside dockerd and podman in the same run, and the stages of a push.
    Bench(bench::Options),
    /// The long forms of tests, run whole; results go to docs/soak.
    Soak(soak::Options),
    /// Everything that CI runs: tidy, format, lints, tests; ends with counts. Needs root.
    Test(test::Options),
    /// The programs as they ship to devices: smallest code, at a fixed address.
    BuildDevice,
    /// The rules that a compiler does not check: arrows, sizes, licences, words.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Test(options) => test::run(&options),
        Command::BuildDevice => device::run(),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds the workspace.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// The folder that cargo builds into.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
