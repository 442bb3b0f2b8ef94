//! `minke-device`: everything that runs on a device, in one file.
//!
//! `main` is synchronous, and starts no thread for the runtime helper: that must be single-threaded. Every
//! other applet builds a runtime of its own.

mod arguments;
mod log;
mod verify;
mod virtual_device;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Applet, Arguments};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "runtime") {
        return minke_engine_runtime::main(words.map(|word| word.to_string_lossy().into_owned()));
    }
    minke_engine_rest::one_heap();
    let arguments = Arguments::parse();
    log::start(arguments.verbose);
    // Whoever chose another provider before would be this program itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The engine knows itself when it has nothing to do.
    if matches!(arguments.applet, Applet::Supervisor(_) | Applet::Tunnel(_) | Applet::Keeper(_)) {
        minke_engine_rest::now_and_then();
    }
    let outcome = match arguments.applet {
        Applet::Engine(engine) => engine.run(),
        Applet::Supervisor(supervisor) => minke_device_supervisor::run(supervisor.options()),
        Applet::Tunnel(tunnel) => minke_device_tunnel::run(tunnel.options()),
        Applet::Keeper(keeper) => minke_device_keeper::run(keeper.options()),
        Applet::Virtual(options) => virtual_device::run(&options),
        Applet::VirtualInit(options) => virtual_device::init::run(&options),
        // Taken before anything else was started; here for `--help` alone.
        Applet::Runtime => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minke-device: {error:#}");
            ExitCode::FAILURE
        }
    }
}
