//! `minke-cloud`: the server. Parses, builds, runs, exits.

mod admin;
mod arguments;
mod build_worker;
mod data_directory;
mod glue;
mod housekeeping;
mod memory;
mod open_registry;
mod presence;
mod releases;
mod serve;
mod stop;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.verbose);
    memory::give_back();
    // One provider for everything in the process that speaks TLS.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::warn!("a TLS provider was installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting the runtime")),
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Serve(options) => serve::run(options).await,
            Command::Registry(options) => open_registry::run(options).await,
            Command::Migrate(options) => admin::migrate(options).await,
            Command::Admin(options) => admin::run(options).await,
        }
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> std::process::ExitCode {
    eprintln!("minke-cloud: {error:#}");
    std::process::ExitCode::FAILURE
}

/// To stderr, so that stdout has only what the command answers.
fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::INFO,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level)
        .init();
}
