//! What a daemon is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use minke_engine_runtime::idmap::IdRange;

/// How to run an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Everything the engine keeps is below this directory.
    pub data: PathBuf,
    /// Where the API's unix socket is made.
    pub socket: PathBuf,
    /// Where the API is also served, over TCP.
    pub tcp: Option<TcpOptions>,
    /// Base URLs that are asked for images of docker.io before Docker Hub, in this order.
    pub registry_mirrors: Vec<String>,
    /// Registries (`host:port`) that may be asked without TLS.
    pub insecure_registries: Vec<String>,
    /// The engine only builds and pushes: it keeps layers' compressed bytes after unpacking (a push
    /// need not compress again), and nothing of it stays in the kernel when it ends.
    pub build_worker: bool,
    /// Containers run in user namespaces over this range of the host's ids, unless they ask for the
    /// host's users.
    pub user_range: Option<IdRange>,
    /// How often all images are read again and compared with what they should be; zero is never.
    pub scrub_interval: Duration,
}

/// A TCP listener.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Who may come and how we show who we are; only loopback can do without.
    pub tls: Option<TlsFiles>,
}

/// PEM files of mutual TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificates of the authorities whose clients may come.
    pub ca: PathBuf,
    /// Our certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The key of our certificate.
    pub key: PathBuf,
}
