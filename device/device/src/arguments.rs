//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use minke_device_keeper::{KeeperOptions, Power};
use minke_device_supervisor::SupervisorOptions;
use minke_device_tunnel::TunnelOptions;
use minke_engine_daemon::{EngineOptions, TcpOptions, TlsFiles};

use crate::verify::Verify;

/// Everything that runs on a device.
///
/// Each applet is a process of its own; on a device they are started at boot. `virtual` starts them
/// all in namespaces, which makes a device of any Linux machine.
#[derive(Parser)]
#[command(name = "minke-device", version, max_term_width = 100)]
pub struct Arguments {
    /// Say more on stderr; twice says everything.
    #[arg(long, short = 'v', action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub applet: Applet,
}

/// What to be.
#[derive(Subcommand)]
pub enum Applet {
    /// A container engine that speaks the Docker Engine API.
    Engine(Engine),
    /// Brings the device to what its fleet wants, and reports.
    Supervisor(Supervisor),
    /// Holds the connection through which the server reaches the device.
    Tunnel(Tunnel),
    /// The host side: reboot, hostname, boot id.
    Keeper(Keeper),
    /// A whole device in namespaces of its own. Needs root.
    Virtual(Virtual),
    /// Makes and enters containers for a shim; not for people.
    Runtime,
    /// The first process of a virtual device; not for people.
    #[command(hide = true)]
    VirtualInit(Virtual),
}

/// Options of the engine.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Engine {
    #[command(subcommand)]
    command: Option<EngineCommand>,
    /// Everything that the engine keeps: images, containers, volumes, networks.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Where to listen: `docker -H unix://PATH …` then talks to it.
    #[arg(long, value_name = "PATH", required_unless_present = "cleanup")]
    socket: Option<PathBuf>,
    /// Also serve the API on this address: with TLS, or without it on loopback only.
    #[arg(long, value_name = "ADDR:PORT")]
    tcp: Option<SocketAddr>,
    /// The authority whose clients may come over TCP (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["tcp", "tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// The engine's own certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// The key of the engine's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// Asked for images of docker.io before Docker Hub; may be given several times.
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// A registry that may be asked without TLS; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Run containers in user namespaces, so that their root is nobody on the host: `default`,
    /// FIRST:COUNT of the host's ids, or a user with ranges in /etc/subuid and /etc/subgid.
    #[arg(long, value_name = "RANGE", value_parser = minke_engine_daemon::parse_range)]
    userns_remap: Option<minke_engine_daemon::IdRange>,
    /// Read every layer of the images again within this time and fetch again what is damaged; 0 is
    /// never.
    #[arg(long, value_name = "SECONDS", default_value_t = 7 * 24 * 3600)]
    scrub_interval: u64,
    /// Only builds and pushes: keeps compressed layers, and leaves nothing in the kernel at its end.
    #[arg(long, hide = true)]
    build_worker: bool,
    /// Remove what an engine of this data directory left on the machine (containers, mounts,
    /// networks, rules, cgroups), and end. Images and volumes stay.
    #[arg(long)]
    cleanup: bool,
}

/// What can be done with an engine's data besides running it.
#[derive(Subcommand)]
enum EngineCommand {
    /// Read every byte of the images and find what is damaged; with --repair, fetch it again.
    ///
    /// Ends with 0 if everything is right, or was repaired.
    Verify(Verify),
}

impl Engine {
    /// Runs the engine, verifies its images, or cleans up after one.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(EngineCommand::Verify(verify)) = self.command {
            return verify.run();
        }
        let tls = match (self.tls_ca, self.tls_cert, self.tls_key) {
            (Some(ca), Some(cert), Some(key)) => Some(TlsFiles { ca, cert, key }),
            _ => None,
        };
        let data = self.data.unwrap_or_default();
        let options = EngineOptions {
            tcp: self.tcp.map(|address| TcpOptions { address, tls }),
            socket: self.socket.unwrap_or_else(|| data.join("run/engine.sock")),
            data,
            registry_mirrors: self.registry_mirror,
            insecure_registries: self.insecure_registry,
            build_worker: self.build_worker,
            user_range: self.userns_remap,
            scrub_interval: Duration::from_secs(self.scrub_interval),
        };
        if self.cleanup {
            minke_engine_daemon::clean_up(options)
        } else {
            minke_engine_daemon::run(options)
        }
    }
}

/// Options of the supervisor.
#[derive(Args)]
pub struct Supervisor {
    /// The device's config.json; it is rewritten when the device gets its identity.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The device's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The engine's socket, as unix:///run/engine.sock.
    #[arg(long, value_name = "unix:///PATH")]
    engine: String,
    /// Where the device API listens; by default on every address and config.json's port.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where services find and leave their update locks.
    #[arg(long, value_name = "DIR", default_value = "/tmp/balena-supervisor")]
    lock_root: PathBuf,
    /// The keeper's socket; by default run/keeper.sock in the data directory.
    #[arg(long, value_name = "PATH")]
    keeper: Option<PathBuf>,
}

impl Supervisor {
    /// What the supervisor is started with.
    pub fn options(self) -> SupervisorOptions {
        let keeper = self.keeper.unwrap_or_else(|| self.data.join("run/keeper.sock"));
        SupervisorOptions {
            config: self.config,
            data: self.data,
            engine: PathBuf::from(self.engine.trim_start_matches("unix://")),
            listen: self.listen,
            lock_root: self.lock_root,
            keeper,
        }
    }
}

/// Options of the tunnel.
#[derive(Args)]
pub struct Tunnel {
    /// The device's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The device's config.json; by default the one in the data directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The supervisor's device API; by default on this host and config.json's port.
    #[arg(long, value_name = "ADDR:PORT")]
    supervisor: Option<SocketAddr>,
    /// Where ports other than the supervisor's are looked for.
    #[arg(long, value_name = "ADDR")]
    local: Option<IpAddr>,
}

impl Tunnel {
    /// What the tunnel is started with.
    pub fn options(self) -> TunnelOptions {
        let mut options = TunnelOptions::new(&self.data);
        options.config = self.config.unwrap_or(options.config);
        options.supervisor = self.supervisor.unwrap_or(options.supervisor);
        options.local = self.local.unwrap_or(options.local);
        options
    }
}

/// Options of the keeper.
#[derive(Args)]
pub struct Keeper {
    /// The keeper's own directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where it listens.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The file with the boot id.
    #[arg(long, value_name = "FILE", default_value = "/proc/sys/kernel/random/boot_id")]
    boot_id: PathBuf,
    /// Who is asked to restart the host: `init`, `kernel`, or nobody.
    #[arg(long, default_value = "refuse", value_parser = ["init", "kernel", "refuse"])]
    power: String,
}

impl Keeper {
    /// What the keeper is started with.
    pub fn options(self) -> KeeperOptions {
        let power = match self.power.as_str() {
            "init" => Power::Init,
            "kernel" => Power::Kernel,
            _ => Power::Refuse,
        };
        KeeperOptions { socket: self.socket, data: self.data, boot_id: self.boot_id, power }
    }
}

/// Options of a virtual device.
#[derive(Args, Clone)]
pub struct Virtual {
    /// The config.json of the device, as `minke config generate` makes it.
    #[arg(long, value_name = "FILE", required_unless_present = "cleanup")]
    pub config: Option<PathBuf>,
    /// Everything that the device keeps. With it, the same device starts again.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The device's hostname.
    #[arg(long, default_value = "virtual")]
    pub name: String,
    /// Join this bridge, which has an address and a way out; by default the device makes its own.
    #[arg(long)]
    pub bridge: Option<String>,
    /// Asked for images of docker.io before Docker Hub; may be given several times.
    #[arg(long, value_name = "URL")]
    pub registry_mirror: Vec<String>,
    /// A registry that may be asked without TLS, besides that of an http:// server.
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,
    /// Remove what a virtual device of this data directory left on the machine, and end.
    #[arg(long)]
    pub cleanup: bool,
}

impl Virtual {
    /// The file that the device is provisioned from.
    pub fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.data.join("config.json"))
    }
}
