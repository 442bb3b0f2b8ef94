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
    /// The root file system cannot be written.
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
    /// It has a terminal.
    pub tty: bool,
    /// Name of the host in its UTS namespace.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// Network namespace.
    pub network: NetNamespace,
    /// Process namespace.
    pub pid: Namespace,
    /// IPC namespace.
    pub ipc: Namespace,
    /// Namespace of host names.
    pub uts: Namespace,
    /// `None`: private on cgroup v2, the host's on v1, as Docker does.
    pub cgroup_namespace: Option<Namespace>,
    /// `None`: its users are the host's.
    pub user_namespace: Option<UserNamespace>,
    /// Bind, volume and tmpfs mounts, and the daemon's own (hosts, hostname, resolv.conf). Their order
    /// does not matter: outer targets are mounted first.
    pub mounts: Vec<Mount>,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// With or without `CAP_`; `ALL` is known.
    pub cap_add: Vec<String>,
    /// As `cap_add`; `ALL` first.
    pub cap_drop: Vec<String>,
    /// Programs cannot gain privileges (set-user-id).
    pub no_new_privileges: bool,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// As in `c 42:* rmw`.
    pub device_cgroup_rules: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// −1000 to 1000.
    pub oom_score_adj: i32,
    /// What is at /dev/shm.
    pub shm: Shm,
    /// Bytes of a /dev/shm of its own; 0 means 64 MiB.
    pub shm_size: u64,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// `None`: Docker's default list.
    pub masked_paths: Option<Vec<String>>,
    /// `None`: Docker's default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Path below the root of each hierarchy: `/minke/<engine id>/<container id>`.
    pub cgroup_path: String,
    /// AppArmor profile of its programs; empty: none.
    pub apparmor: String,
    /// Which system calls its programs may make.
    pub seccomp: Seccomp,
}

/// Where the filter of system calls comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default list; none if the container is privileged.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in moby's JSON, also if the container is privileged.
    Profile(String),
}

/// A process to run in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the container's; the same name replaces.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub cwd: String,
    /// Empty: the container's.
    pub user: String,
    /// It has a terminal.
    pub tty: bool,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
}

/// The network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetNamespace {
    /// A new one with nothing but a loopback that is down.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one a file names: what `minke-engine-network` makes, or `/proc/<pid>/ns/net`.
    Path(PathBuf),
}

/// A pid, IPC, UTS or cgroup namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another process, as `/proc/<pid>/ns/<kind>`.
    Path(PathBuf),
}

/// What is mounted at /dev/shm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shm {
    /// Memory of its own.
    #[default]
    Private,
    /// A directory of the host: memory that other containers have too, or the host's own.
    Shared(PathBuf),
    /// Nothing.
    None,
}

/// The user namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// A file that names it: what `runtime userns` makes, or `/proc/<pid>/ns/user`.
    pub path: PathBuf,
    /// Host id of its root.
    pub first: u32,
}

/// Something mounted into a container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where its content comes from.
    pub kind: MountKind,
    /// Absolute path in the container; made if it does not exist.
    pub target: String,
    /// It cannot be written, nor what is mounted below it.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host; it must exist.
        source: PathBuf,
        /// Also what is mounted below the source.
        recursive: bool,
        /// The owners of its files are ids of the container: it shows them in a user namespace too.
        own_ids: bool,
        /// `rprivate` (also if empty), `private`, `rshared`, `shared`, `rslave` or `slave`.
        propagation: String,
    },
    /// Memory, empty at the start.
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
    /// Path in the container.
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
    /// Bytes to get down to when memory is scarce.
    pub memory_reservation: Option<i64>,
    /// 0 to 100; only on version 1.
    pub memory_swappiness: Option<u64>,
    /// Wait instead of killing; only on version 1.
    pub oom_kill_disable: bool,
    /// CPUs × 10⁹; goes before period and quota.
    pub nano_cpus: i64,
    /// Weight; 1024 is usual.
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds.
    pub cpu_quota: i64,
    /// As in `0-2,7`.
    pub cpuset_cpus: String,
    /// As in `0,1`.
    pub cpuset_mems: String,
    /// Most processes.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: u16,
    /// Weight per device.
    pub blkio_weight_device: Vec<BlockWeight>,
    /// Bytes per second.
    pub blkio_read_bps: Vec<BlockRate>,
    /// Bytes per second.
    pub blkio_write_bps: Vec<BlockRate>,
    /// Operations per second.
    pub blkio_read_iops: Vec<BlockRate>,
    /// Operations per second.
    pub blkio_write_iops: Vec<BlockRate>,
}

/// Weight of one block device.
#[derive(Clone, Debug)]
pub struct BlockWeight {
    /// Device node.
    pub path: PathBuf,
    /// 10 to 1000.
    pub weight: u16,
}

/// Rate limit of one block device, per second.
#[derive(Clone, Debug)]
pub struct BlockRate {
    /// Device node.
    pub path: PathBuf,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// A resource limit by Docker's name (`nofile`); −1 is unlimited. Limits above what this process may
/// give are lowered to that.
#[derive(Clone, Debug)]
pub struct Ulimit {
    /// Docker's name.
    pub name: String,
    /// What is in force.
    pub soft: i64,
    /// What a process may raise it to.
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
