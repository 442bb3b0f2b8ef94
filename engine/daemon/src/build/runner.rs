//! What a build needs of the engine: one container, run to its end.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use minke_engine_client::wire::Ulimit;
use minke_engine_runtime::spec::Resources;
use tokio::sync::mpsc;

use crate::build::work::StepDir;

/// A container for one `RUN` step.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunStep {
    /// 64 hex digits, new.
    pub id: String,
    /// Overlay lower directories, top first; never empty.
    pub lower: Vec<PathBuf>,
    /// Takes the step's changes.
    pub upper: PathBuf,
    /// Empty, on the same file system as `upper`.
    pub work: PathBuf,
    /// The whole command.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Exists in the tree.
    pub workdir: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// How it reaches others.
    pub network: RunNetwork,
    /// Further mounts.
    pub binds: Vec<RunBind>,
    /// Limits.
    pub resources: Resources,
    /// Limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Where its cgroup is made; empty is the engine's own place.
    pub cgroup_parent: String,
    /// Bytes of `/dev/shm`; 0 is the usual.
    pub shm_size: u64,
    /// `name:address` for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
}

/// The network of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum RunNetwork {
    /// The engine's own bridge, with address translation.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// A loopback only.
    None,
    /// A network that somebody made, by name or id.
    Named(String),
    /// That of a container, by name or id.
    Container(String),
}

impl RunNetwork {
    /// As `docker build --network` says it.
    pub(crate) fn read(text: &str) -> RunNetwork {
        match text {
            "" | "default" | "bridge" => RunNetwork::Bridge,
            "host" => RunNetwork::Host,
            "none" => RunNetwork::None,
            other => match other.strip_prefix("container:") {
                Some(name) => RunNetwork::Container(name.to_owned()),
                None => RunNetwork::Named(other.to_owned()),
            },
        }
    }
}

/// Something mounted for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunBind {
    /// A file or directory of the host.
    Path {
        /// On the host.
        source: PathBuf,
        /// In the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// Part of layers, on an overlay of its own: a writable one changes nothing that others see.
    Tree {
        /// Top first.
        lower: Vec<PathBuf>,
        /// Takes what is written.
        dirs: StepDir,
        /// Which part, without a leading slash; it exists.
        path: String,
        /// In the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// In the container.
        target: String,
        /// Bytes; `None` is the kernel's choice.
        size: Option<u64>,
    },
}

/// Why a step did not come to an exit code; the text is for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RunFailure(pub String);

/// Runs containers for builds.
pub(crate) trait Runner: Send + Sync + 'static {
    /// Runs a step to its end and answers its exit code. What it writes goes to `output` as it comes,
    /// both streams in one. When the future is dropped the container is killed, and everything made for
    /// it is removed; the same happens at the daemon's start with what a crash left.
    fn run<'a>(
        &'a self,
        step: RunStep,
        output: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'a, Result<i32, RunFailure>>;
}
