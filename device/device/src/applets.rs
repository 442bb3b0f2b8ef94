//! The command line: which part runs, and with what.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use minke_device_keeper::{KeeperOptions, Power};
use minke_device_supervisor::SupervisorOptions;
use minke_device_tunnel::TunnelOptions;
use minke_engine_daemon::EngineOptions;

use crate::virtual_device;

/// Everything that runs on a device, in one program.
///
/// A device runs four parts: the engine (containers), the supervisor (what should run), the tunnel
/// (remote access) and the keeper (reboot, hostname). `virtual` runs them all in namespaces of their
/// own: a whole device on this machine.
#[derive(Debug, Parser)]
#[command(name = "minke-device", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Applet,
}

/// The parts.
#[derive(Debug, Subcommand)]
pub enum Applet {
    /// A container engine that speaks Docker's API
    ///
    /// Try it: `minke-device engine --data /var/lib/minke --socket /run/minke.sock`, then
    /// `docker -H unix:///run/minke.sock run --rm busybox echo hello`.
    Engine(EngineArguments),
    /// Brings the device to what its fleet wants, and reports
    Supervisor(SupervisorArguments),
    /// Connects to the server, so that the device can be reached from there
    Tunnel(TunnelArguments),
    /// The host side: reboot, shutdown, hostname, boot id
    Keeper(KeeperArguments),
    /// The helper that makes containers; the engine calls it
    #[command(disable_help_flag = true)]
    Runtime {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// A whole device in its own network, processes and mounts
    ///
    /// Prints one line of JSON when the device is ready: {"uuid", "address", "engine_socket", "supervisor"}.
    /// SIGTERM is its power switch. Everything it keeps is in --data: start it again with the same
    /// directory and it is the same device.
    Virtual(VirtualArguments),
    #[command(hide = true)]
    VirtualInit(virtual_device::InitArguments),
}

#[derive(Debug, Args)]
pub struct EngineArguments {
    /// Directory of images, containers and volumes
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Unix socket of the API
    #[arg(long, value_name = "PATH", required_unless_present = "cleanup")]
    socket: Option<PathBuf>,
    /// Registry that is asked for images of docker.io first
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry that may be asked without TLS
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// For a server's builds: keep compressed layers, leave nothing running at the end
    #[arg(long)]
    build_worker: bool,
    /// Remove what an engine that was killed left in the kernel, then end
    #[arg(long)]
    cleanup: bool,
}

#[derive(Debug, Args)]
pub struct SupervisorArguments {
    /// The device's config.json; rewritten when it registers
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Directory of the device's data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The engine: unix:///PATH
    #[arg(long, value_name = "unix:///PATH")]
    engine: String,
    /// Where the device API listens [default: every address, port 48484]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Directory of the services' update locks
    #[arg(long, value_name = "DIR", default_value = "/tmp/balena-supervisor")]
    locks: PathBuf,
    /// The keeper's socket [default: run/keeper.sock in --data]
    #[arg(long, value_name = "PATH")]
    keeper: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TunnelArguments {
    /// Directory of the device's data; config.json is in it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The device API
    #[arg(long, value_name = "ADDR:PORT")]
    supervisor: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PowerWord {
    /// Ask the init process by SIGINT (reboot) or SIGUSR2 (off)
    Init,
    /// Ask the kernel
    Kernel,
    /// Refuse
    Refuse,
}

#[derive(Debug, Args)]
pub struct KeeperArguments {
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Directory of the keeper's own files
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// File with the boot id
    #[arg(long, value_name = "FILE", default_value = "/proc/sys/kernel/random/boot_id")]
    boot_id: PathBuf,
    /// How the host is restarted and turned off
    #[arg(long, value_enum, default_value = "refuse")]
    power: PowerWord,
}

#[derive(Debug, Args)]
pub struct VirtualArguments {
    /// config.json, as for a physical device [default: the one in --data]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of everything the device keeps
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Host name of the device [default: the first digits of its uuid]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Bridge of this machine to join; without one the device makes its own, with NAT
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Registry that is asked for images of docker.io first
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry that may be asked without TLS (the server's own is known from config.json)
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Remove what a device that was killed left on this machine, then end
    #[arg(long)]
    cleanup: bool,
}

impl Applet {
    /// Runs the part to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Applet::Engine(arguments) => engine(arguments)?,
            Applet::Supervisor(arguments) => supervisor(arguments)?,
            Applet::Tunnel(arguments) => tunnel(arguments)?,
            Applet::Keeper(arguments) => keeper(arguments)?,
            Applet::Runtime { .. } => bail!("`runtime` must be the first word"),
            Applet::Virtual(arguments) => return run_virtual(arguments),
            Applet::VirtualInit(arguments) => return virtual_device::init(arguments),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn engine(arguments: EngineArguments) -> anyhow::Result<()> {
    if arguments.cleanup {
        return virtual_device::clean_engine(&arguments.data);
    }
    minke_engine_daemon::run(EngineOptions {
        data: arguments.data,
        socket: arguments.socket.context("--socket is needed")?,
        registry_mirrors: arguments.registry_mirror,
        insecure_registries: arguments.insecure_registry,
        build_worker: arguments.build_worker,
    })
}

fn supervisor(arguments: SupervisorArguments) -> anyhow::Result<()> {
    let mut options = SupervisorOptions::new(&arguments.data);
    options.config = arguments.config;
    let path = arguments.engine.strip_prefix("unix://").unwrap_or(&arguments.engine);
    if !Path::new(path).is_absolute() {
        bail!("--engine is an absolute path: unix:///run/engine.sock");
    }
    options.engine = PathBuf::from(path);
    options.listen = arguments.listen;
    options.lock_root = arguments.locks;
    options.keeper = arguments.keeper.unwrap_or(options.keeper);
    minke_device_supervisor::run(options)
}

fn tunnel(arguments: TunnelArguments) -> anyhow::Result<()> {
    let mut options = TunnelOptions::new(&arguments.data);
    options.supervisor = arguments.supervisor.unwrap_or(options.supervisor);
    minke_device_tunnel::run(options)
}

fn keeper(arguments: KeeperArguments) -> anyhow::Result<()> {
    let power = match arguments.power {
        PowerWord::Init => Power::Init,
        PowerWord::Kernel => Power::Kernel,
        PowerWord::Refuse => Power::Refuse,
    };
    minke_device_keeper::run(KeeperOptions {
        socket: arguments.socket,
        data: arguments.data,
        boot_id: arguments.boot_id,
        power,
    })
}

fn run_virtual(arguments: VirtualArguments) -> anyhow::Result<ExitCode> {
    let options = virtual_device::VirtualOptions {
        config: arguments.config,
        data: arguments.data,
        name: arguments.name,
        bridge: arguments.bridge,
        registry_mirrors: arguments.registry_mirror,
        insecure_registries: arguments.insecure_registry,
    };
    if arguments.cleanup {
        virtual_device::clean(&options.data)?;
        return Ok(ExitCode::SUCCESS);
    }
    virtual_device::run(options)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
