//! `minke`: a fleet owner's command line.

mod commands;
mod output;
mod project;
mod session;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;

/// Push code to fleets of devices, see it run, change how it runs.
///
/// Log in once with `minke login http://SERVER:PORT`; every other command then talks to that
/// server. Every command takes --json for programs.
#[derive(Parser)]
#[command(name = "minke", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: session::Global,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(cli.command.run(&cli.global)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the async runtime")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error, json);
            ExitCode::FAILURE
        }
    }
}
