//! The engine as a program of its own, for this crate's tests: what `minke-device engine` and
//! `minke-device runtime` are on a device.

use std::path::PathBuf;
use std::process::ExitCode;

use minke_engine_daemon::{EngineOptions, TcpOptions, TlsFiles};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "runtime").is_some() {
        return minke_engine_runtime::main(args);
    }
    let mut options = EngineOptions::default();
    // A directory with ca.pem, cert.pem and key.pem, as the docker CLI has one.
    let (mut tcp, mut tls) = (None, None);
    while let Some(name) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match name.as_str() {
            "--data" => options.data = PathBuf::from(value()),
            "--socket" => options.socket = PathBuf::from(value()),
            "--registry-mirror" => options.registry_mirrors.push(value()),
            "--insecure-registry" => options.insecure_registries.push(value()),
            "--userns-remap" => {
                options.user_range = minke_engine_daemon::parse_range(&value()).ok();
            }
            "--tcp" => tcp = value().parse().ok(),
            "--tls" => tls = Some(PathBuf::from(value())),
            "--scrub-interval" => {
                let seconds = value().parse().unwrap_or_default();
                options.scrub_interval = std::time::Duration::from_secs(seconds);
            }
            "--build-worker" => options.build_worker = true,
            other => {
                eprintln!("unknown option {other}");
                return ExitCode::FAILURE;
            }
        }
    }
    options.tcp = tcp.map(|address| TcpOptions {
        address,
        tls: tls.map(|dir| TlsFiles {
            ca: dir.join("ca.pem"),
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        }),
    });
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match minke_engine_daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
