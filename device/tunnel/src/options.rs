//! What the tunnel of one device is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use minke_common_model::config_json::ConfigJson;
use minke_common_tunnel::HEARTBEAT_MS;

/// Where things are and how long to wait. [`TunnelOptions::new`] is right for a device.
#[derive(Debug, Clone)]
pub struct TunnelOptions {
    /// `config.json`.
    pub config: PathBuf,
    /// Where the supervisor keeps the key of its API.
    pub api_key_file: PathBuf,
    /// The supervisor's API; port 48484 in the tunnel. Port 0 stands for the one in `config.json`.
    pub supervisor: SocketAddr,
    /// Where every other port is looked for.
    pub local: IpAddr,
    /// How often an idle tunnel shows that it lives.
    pub heartbeat: Duration,
    /// How long the supervisor believes, without hearing it again, that the tunnel is up.
    pub lease: Duration,
    /// How often `config.json` is looked at.
    pub config_poll: Duration,
    /// First and longest wait between two dials.
    pub backoff: (Duration, Duration),
    /// How long a dial, a connection to a port or a first line may take.
    pub timeout: Duration,
}

impl TunnelOptions {
    /// For the device whose files are in `data`.
    pub fn new(data: &Path) -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            config: data.join("config.json"),
            api_key_file: data.join("supervisor/api-key"),
            supervisor: SocketAddr::new(local, 0),
            local,
            heartbeat: Duration::from_millis(HEARTBEAT_MS),
            lease: Duration::from_secs(600),
            config_poll: Duration::from_secs(5),
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
            timeout: Duration::from_secs(20),
        }
    }

    /// As they are with this `config.json`.
    pub(crate) fn with(&self, config: &ConfigJson) -> Self {
        let mut options = self.clone();
        if options.supervisor.port() == 0 {
            options.supervisor.set_port(config.port());
        }
        options
    }
}
