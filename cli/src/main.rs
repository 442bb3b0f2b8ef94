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
/// A beginning:
///
///   minke login http://SERVER:PORT        every other command then talks to that server
///   minke fleet create NAME               a fleet
///   minke config generate --fleet NAME    the config.json with which devices join it
///   minke push NAME                       build the project in this folder, and release it
///   minke device list                     what became of it
///   minke logs UUID --tail
///
/// Every command takes --json for programs.
#[derive(Parser)]
#[command(name = "minke", version, verbatim_doc_comment)]
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
