//! The options of a container and of an exec, as the daemon fills them in.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that decides what a container is. `Default` is a container with Docker's defaults and
/// no command.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// Container id.
    pub id: String,
    /// The mounted root file system (absolute).
    pub rootfs: PathBuf,
    pub readonly_rootfs: bool,
    /// Entrypoint and command together.
    pub args: Vec<String>,
    /// `KEY=value`. `PATH`, `HOSTNAME`, `HOME` and `TERM` are added where they are missing.
    pub env: Vec<String>,
    /// Working directory; empty means `/`. It is not created.
    pub cwd: String,
    /// `user`, `user:group`, `uid`, `uid:gid` or empty.
    pub user: String,
    /// Further groups, names or numbers.
    pub group_add: Vec<String>,
    pub tty: bool,
    pub hostname: String,
    pub domainname: String,
    pub network: NetNamespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    /// `None`: private on cgroup v2, the host's on v1, as Docker does.
    pub cgroup_namespace: Option<Namespace>,
    /// Bind, volume and tmpfs mounts, and the daemon's own (hosts, hostname, resolv.conf). Their order
    /// does not matter: outer targets are mounted first.
    pub mounts: Vec<Mount>,
    pub privileged: bool,
    /// With or without `CAP_`; `ALL` is known.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub no_new_privileges: bool,
    pub devices: Vec<DeviceRequest>,
    /// As in `c 42:* rmw`.
    pub device_cgroup_rules: Vec<String>,
    pub resources: Resources,
    /// −1000 to 1000.
    pub oom_score_adj: i32,
    /// Bytes of /dev/shm; 0 means 64 MiB.
    pub shm_size: u64,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    /// `None`: Docker's default list.
    pub masked_paths: Option<Vec<String>>,
    /// `None`: Docker's default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Path below the root of each hierarchy: `/minke/<engine id>/<container id>`.
    pub cgroup_path: String,
    /// Allow every system call (`seccomp=unconfined`).
    pub seccomp_unconfined: bool,
}

/// A process to run in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to the container's; the same name replaces.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub cwd: String,
    /// Empty: the container's.
    pub user: String,
    pub tty: bool,
    pub privileged: bool,
}

/// The network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetNamespace {
    /// A new one with nothing but a loopback that is down.
    #[default]
    Private,
    Host,
    /// The one a file names: what `minke-engine-network` makes, or `/proc/<pid>/ns/net`.
    Path(PathBuf),
}

/// A pid, IPC, UTS or cgroup namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    #[default]
    Private,
    Host,
    /// That of another process, as `/proc/<pid>/ns/<kind>`.
    Path(PathBuf),
}

/// Something mounted into a container.
#[derive(Clone, Debug)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute path in the container; made if it does not exist.
    pub target: String,
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    Bind {
        source: PathBuf,
        /// Also what is mounted below the source.
        recursive: bool,
        /// `rprivate` (also if empty), `private`, `rshared`, `shared`, `rslave` or `slave`.
        propagation: String,
    },
    Tmpfs {
        /// `size=64m`, `mode=1777`, `exec`, …: added to Docker's `noexec,nosuid,nodev`.
        options: Vec<String>,
    },
}

/// A device of the host.
#[derive(Clone, Debug)]
pub struct DeviceRequest {
    /// A node, or a directory whose nodes are all taken.
    pub host: PathBuf,
    pub container: String,
    /// Of `r`, `w`, `m`; empty means all.
    pub permissions: String,
}

/// Limits; `None` and 0 mean none.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; −1 unlimited.
    pub memory_swap: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub nano_cpus: i64,
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds.
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<BlockWeight>,
    pub blkio_read_bps: Vec<BlockRate>,
    pub blkio_write_bps: Vec<BlockRate>,
    pub blkio_read_iops: Vec<BlockRate>,
    pub blkio_write_iops: Vec<BlockRate>,
}

/// Weight of one block device.
#[derive(Clone, Debug)]
pub struct BlockWeight {
    pub path: PathBuf,
    pub weight: u16,
}

/// Rate limit of one block device, per second.
#[derive(Clone, Debug)]
pub struct BlockRate {
    pub path: PathBuf,
    pub rate: u64,
}

/// A resource limit by Docker's name (`nofile`); −1 is unlimited. Limits above what this process may
/// give are lowered to that.
#[derive(Clone, Debug)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

impl ContainerSpec {
    /// Hostname to set: only a UTS namespace of its own has one.
    pub(super) fn hostname_of_namespace(&self) -> Option<String> {
        (self.uts == Namespace::Private && !self.hostname.is_empty()).then(|| self.hostname.clone())
    }

    pub(super) fn domainname_of_namespace(&self) -> Option<String> {
        let set = self.uts == Namespace::Private && !self.domainname.is_empty();
        set.then(|| self.domainname.clone())
    }
}
