//! `minke-shim D`: the process that stays beside one container. What it does and says is documented at
//! the top of the library of this crate; this program is single-threaded and waits in one `poll`.

mod logfile;
mod logwriter;
mod packing;
mod process;
mod resolver;
mod server;
mod signals;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use minke_engine_shim::config::ShimConfig;
use minke_engine_shim::identity;

fn main() -> ExitCode {
    let outcome = match std::env::args_os().nth(1) {
        Some(directory) => prepare(directory),
        None => Err(io::Error::other("usage: minke-shim DIRECTORY")),
    };
    match outcome {
        Ok(mut server) => {
            server.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = io::stderr().write_all(format!("minke-shim: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Everything up to `ready`.
fn prepare(directory: OsString) -> io::Result<server::Server> {
    process::close_inherited();
    std::env::set_current_dir(&directory)?;
    let text = fs::read("shim.conf")?;
    let config = ShimConfig::parse(&text)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("shim.conf: {why}")))?;
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Best effort: without the privilege the shim is as likely a victim as its parent.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    let signals = signals::install()?;
    let resolver = match &config.dns {
        Some(dns) => Some(resolver::Resolver::open(dns)?),
        None => None,
    };
    let listener = listen()?;
    let pid = std::process::id();
    fs::write("shim.pid", identity::print(pid, identity::start_time(pid)?))?;
    let server = server::Server::new(config, listener, signals, resolver);
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;
    process::detach_stdio()?;
    Ok(server)
}

fn listen() -> io::Result<UnixListener> {
    match fs::remove_file("shim.sock") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind("shim.sock");
    rustix::process::umask(mask);
    let listener = listener?;
    fs::set_permissions("shim.sock", fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
