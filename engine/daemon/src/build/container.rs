//! The container of a `RUN` step: a shim with a bundle, a network namespace and an overlay, without a
//! place among the engine's containers.
//!
//! ```text
//!   <data>/build/containers/<id>/shim/     the shim's directory
//!                               /bundle/   config.json
//!                               /rootfs/   mount point of the overlay
//!                               /hosts /hostname /resolv.conf
//! ```
//! Its end takes everything away, whether it came by itself, by a dropped future, or by a crash: then at
//! the next start.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use minke_engine_network::{AttachOptions, Namespace};
use minke_engine_runtime::spec::{
    ContainerSpec, Mount, MountKind, NetNamespace, Resources, Ulimit, UserNamespace,
};
use minke_engine_shim::cgroup;
use minke_engine_shim::config::{DNS_PORT, DnsConfig, ShimConfig};
use minke_engine_shim::protocol::{Exit, Request, Response, Streams};
use tokio::sync::mpsc;

use crate::build::runner::{RunBind, RunFailure, RunNetwork, RunStep, Runner};
use crate::containers::prepare;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::launch::{Launch, spawn_shim};
use crate::networks::Found;
use crate::removal::remove_tree;
use crate::shim::{Connection, ShimError};
use crate::users::{self, Users};
use crate::{apparmor, durable, rootfs};

/// How long processes may take to die.
const KILL_TIME: Duration = Duration::from_secs(10);
/// Processes of one step, as a guard against fork bombs.
const MAX_PIDS: i64 = 8192;
/// Bytes of output that wait for a slow reader before the step itself has to wait.
const MAX_WAITING: usize = 16 << 20;
/// What stands around standard error in a build's output, as in Docker.
const RED: &[u8] = b"\x1b[91m";
const PLAIN: &[u8] = b"\x1b[0m";
/// The engine's name service inside a network namespace.
const NAME_SERVICE: &str = "nameserver 127.0.0.11\noptions ndots:0\n";

/// Runs the steps of builds in containers of this engine.
pub(crate) struct StepContainers {
    daemon: Daemon,
}

impl StepContainers {
    /// Takes away what builds of an earlier daemon left.
    pub(crate) async fn open(daemon: &Daemon) -> Result<StepContainers> {
        let dir = containers_dir(daemon);
        std::fs::create_dir_all(&dir).map_err(Error::file("making", &dir))?;
        for entry in std::fs::read_dir(&dir).map_err(Error::file("reading", &dir))?.flatten() {
            if let Ok(id) = entry.file_name().into_string() {
                take_down(daemon, &id).await;
            }
        }
        Ok(StepContainers { daemon: daemon.clone() })
    }
}

impl Runner for StepContainers {
    fn run<'a>(
        &'a self,
        step: RunStep,
        output: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'a, std::result::Result<i32, RunFailure>> {
        Box::pin(async move {
            let guard = Guard { daemon: self.daemon.clone(), id: step.id.clone(), armed: true };
            let result = run(&self.daemon, &guard.id, &step, &output).await;
            guard.finish().await;
            result.map_err(|error| RunFailure(error.message()))
        })
    }
}

/// Takes a container down, in the background when the future that runs it is dropped.
struct Guard {
    daemon: Daemon,
    id: String,
    armed: bool,
}

impl Guard {
    async fn finish(mut self) {
        take_down(&self.daemon, &self.id).await;
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            let (daemon, id) = (self.daemon.clone(), self.id.clone());
            tokio::spawn(async move { take_down(&daemon, &id).await });
        }
    }
}

fn containers_dir(daemon: &Daemon) -> PathBuf {
    daemon.options.data.join("build/containers")
}

fn container_dir(daemon: &Daemon, id: &str) -> PathBuf {
    containers_dir(daemon).join(id)
}

/// Kills what runs and removes everything; goes on after a failure, which the next start repeats.
async fn take_down(daemon: &Daemon, id: &str) {
    let dir = container_dir(daemon, id);
    let shim = dir.join("shim");
    let kill = move || cgroup::kill_and_remove(&cgroup::listed(&shim), KILL_TIME);
    let killed = tokio::task::spawn_blocking(kill).await.map_err(std::io::Error::other).flatten();
    if let Err(error) = killed {
        tracing::warn!(%error, id, "a build step's processes stay");
    }
    if let Err(error) = daemon.networks.release(id).await {
        tracing::warn!(%error, id, "a build step's network stays");
    }
    if let Err(error) = rootfs::unmount_all(&dir.join("rootfs")) {
        tracing::warn!(error = error.message(), id, "a build step's overlay stays");
        return;
    }
    if let Err(error) = remove_tree(&dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, id, "a build step's directory stays");
    }
}

async fn run(
    daemon: &Daemon,
    id: &str,
    step: &RunStep,
    output: &mpsc::Sender<Bytes>,
) -> Result<i32> {
    let dir = container_dir(daemon, id);
    for name in ["shim", "bundle", "rootfs"] {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("making", &path))?;
    }
    apparmor::load_default().await;
    let joined = join(daemon, id, &step.network).await?;
    let user_namespace = user_namespace(daemon, id)?;
    mount_trees(daemon, user_namespace.as_ref(), &dir.join("rootfs"), step)?;
    write_files(&dir, id, step, joined.gateway)?;
    let spec = ContainerSpec { user_namespace, ..spec(daemon, id, &dir, step, joined.namespace)? };
    let bundle = dir.join("bundle");
    let dns = joined.dns;
    let config = ShimConfig { id: id.to_owned(), bundle, dns, ..ShimConfig::default() };
    let shim = dir.join("shim");
    spawn_shim(daemon, Launch { dir: &shim, spec: &spec, config }).await?;
    let exit = follow(&shim, output).await?;
    Ok(i32::try_from(exit.code).unwrap_or(255))
}

/// Connects, starts, and hands output on until the end.
async fn follow(shim: &Path, output: &mpsc::Sender<Bytes>) -> Result<Exit> {
    let mut waiting = Connection::open(shim).await.map_err(failed)?;
    let wait = Request::Wait { session: String::new() };
    waiting.writer.send(&wait).await.map_err(|e| failed(e.into()))?;
    let mut attached = Connection::open(shim).await.map_err(failed)?;
    let streams = Streams { stdin: false, stdout: true, stderr: true };
    attached.attach("", streams).await.map_err(failed)?;
    let mut control = Connection::open(shim).await.map_err(failed)?;
    control.start().await.map_err(failed)?;
    hand_over(&mut attached, output).await.map_err(|e| failed(e.into()))?;
    match waiting.reader.next().await.map_err(|e| failed(e.into()))? {
        Some(Response::Exited(exit)) => Ok(exit),
        _ => {
            let what = "the step's shim ended without saying how the step did";
            Err(Error::System { doing: "running the step".into(), source: what.into() })
        }
    }
}

/// Hands output on until the step has ended. What a slow reader has not taken yet waits here: the shim
/// cuts off who does not read.
async fn hand_over(attached: &mut Connection, output: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut waiting = BytesMut::new();
    loop {
        // Both arms are cancel-safe: bytes stay in the connection's buffer, a permit is taken or not.
        tokio::select! {
            answer = attached.reader.next(), if waiting.len() < MAX_WAITING => match answer? {
                Some(Response::Stdout(bytes)) => waiting.extend_from_slice(&bytes),
                Some(Response::Stderr(bytes)) => {
                    for piece in [RED, &bytes, PLAIN] {
                        waiting.extend_from_slice(piece);
                    }
                }
                Some(Response::Exited(_)) | None => break,
                Some(_) => {}
            },
            permit = output.reserve(), if !waiting.is_empty() => match permit {
                Ok(permit) => permit.send(waiting.split().freeze()),
                // Nobody reads any more: the future is about to be dropped.
                Err(_) => waiting.clear(),
            },
        }
    }
    if !waiting.is_empty() {
        let _ = output.send(waiting.freeze()).await;
    }
    Ok(())
}

fn failed(error: ShimError) -> Error {
    match error {
        ShimError::Failed { failure, message } => Error::Start { failure, message },
        other => Error::system("running the step")(other),
    }
}

/// In which user namespace a step is.
fn user_namespace(daemon: &Daemon, id: &str) -> Result<Option<UserNamespace>> {
    let Some(range) = daemon.options.user_range else { return Ok(None) };
    let path = daemon.networks.namespace(id)?.user;
    Ok(Some(UserNamespace { path, first: range.first }))
}

/// Mounts a step's root file system, and the parts of layers that it binds. An overlay's owners can only
/// be mapped while it is being mounted.
fn mount_trees(
    daemon: &Daemon,
    users: Option<&UserNamespace>,
    root: &Path,
    step: &RunStep,
) -> Result<()> {
    let (upper, work) = (&step.upper, &step.work);
    // What a build has made is synced when it becomes a layer.
    let volatile = true;
    let mut all = vec![rootfs::Overlay { lower: &step.lower, upper, work, target: root, volatile }];
    all.extend(step.binds.iter().filter_map(|bind| match bind {
        RunBind::Tree { lower, dirs, .. } => {
            let (upper, work, target) = (&dirs.upper, &dirs.work, &dirs.target);
            Some(rootfs::Overlay { lower, upper, work, target, volatile })
        }
        RunBind::Path { .. } | RunBind::Tmpfs { .. } => None,
    }));
    for overlay in all {
        match (users, daemon.options.user_range) {
            (Some(users), Some(range)) => {
                users::mount_mapped(&daemon.options.data, range, &users.path, overlay)?;
            }
            _ => overlay.mount_at_target()?,
        }
    }
    Ok(())
}

fn host_network(daemon: &Daemon) -> Result<Joined> {
    match daemon.options.user_range {
        None => Ok(Joined::of(NetNamespace::Host)),
        Some(_) => Err(Error::Invalid(
            "the host's network: builds run here in user namespaces, which cannot have it"
                .to_owned(),
        )),
    }
}

/// How a step reaches others.
struct Joined {
    namespace: NetNamespace,
    dns: Option<DnsConfig>,
    /// What `host-gateway` means.
    gateway: Option<Ipv4Addr>,
}

impl Joined {
    fn of(namespace: NetNamespace) -> Joined {
        Joined { namespace, dns: None, gateway: None }
    }
}

async fn join(daemon: &Daemon, id: &str, network: &RunNetwork) -> Result<Joined> {
    let name = match network {
        RunNetwork::Host => return host_network(daemon),
        RunNetwork::Container(other) => {
            let namespace = prepare::namespace_of(daemon, other, "net")?;
            if daemon.options.user_range.is_some() {
                let theirs = Users::Of(prepare::namespace_of(daemon, other, "user")?);
                let make = |user: &Path| users::make(daemon, &theirs, user, None);
                daemon.networks.make_user_namespace_by(id, make)?;
            }
            return Ok(Joined::of(NetNamespace::Path(namespace)));
        }
        RunNetwork::None => None,
        RunNetwork::Bridge => Some("bridge"),
        RunNetwork::Named(name) => match daemon.find_network(name)? {
            Found::Host => return host_network(daemon),
            Found::None => None,
            Found::Bridge(_) => Some(name.as_str()),
        },
    };
    let namespace = match daemon.options.user_range {
        None => daemon.networks.make_namespace(id, &[]).await?,
        Some(range) => {
            let make = |namespace: &Namespace| {
                let own = Users::New(range);
                users::make(daemon, &own, &namespace.user, Some(&namespace.netns))
            };
            daemon.networks.make_namespace_by(id, &[], make).await?
        }
    };
    let Some(name) = name else { return Ok(Joined::of(NetNamespace::Path(namespace.netns))) };
    if name == "bridge" {
        daemon.ensure_default_network().await?;
    }
    let attach = AttachOptions {
        network: name.to_owned(),
        container: id.to_owned(),
        default_route: true,
        ..AttachOptions::default()
    };
    daemon.networks.attach(attach).await?;
    let gateway = Some(daemon.networks.get(name)?.gateway);
    let (netns, sources) = (namespace.netns.clone(), namespace.dns);
    let dns = Some(DnsConfig { netns, sources, port: DNS_PORT });
    Ok(Joined { namespace: NetNamespace::Path(namespace.netns), dns, gateway })
}

fn write_files(dir: &Path, id: &str, step: &RunStep, gateway: Option<Ipv4Addr>) -> Result<()> {
    let name = &id[..12];
    let mut hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost\n");
    let gateway = gateway.unwrap_or(Ipv4Addr::LOCALHOST).to_string();
    for entry in &step.extra_hosts {
        if let Some((host, address)) = entry.split_once([':', '=']) {
            let address = if address == "host-gateway" { &gateway } else { address };
            hosts.push_str(&format!("{address}\t{host}\n"));
        }
    }
    let resolver = match step.network {
        RunNetwork::Bridge | RunNetwork::Named(_) => NAME_SERVICE.to_owned(),
        RunNetwork::Host | RunNetwork::Container(_) => {
            std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        }
        RunNetwork::None => String::new(),
    };
    let hostname = format!("{name}\n");
    for (file, text) in [("hosts", &hosts), ("hostname", &hostname), ("resolv.conf", &resolver)] {
        durable::write_soon(&dir.join(file), text.as_bytes())?;
    }
    Ok(())
}

fn mount_of(bound: &RunBind) -> Result<Mount> {
    Ok(match bound {
        RunBind::Path { source, target, read_only } => {
            bind(source.clone(), target.clone(), *read_only)
        }
        RunBind::Tree { dirs, path, target, read_only, .. } => {
            let source = match path.as_str() {
                "" => dirs.target.clone(),
                path => rootfs::inside(&dirs.target, Path::new(path))
                    .map_err(Error::file("finding", path))?,
            };
            // Its owners are mapped already.
            let kind = MountKind::Bind {
                source,
                recursive: true,
                own_ids: false,
                propagation: String::new(),
            };
            Mount { kind, target: target.clone(), readonly: *read_only }
        }
        RunBind::Tmpfs { target, size } => Mount {
            kind: MountKind::Tmpfs {
                options: size.iter().map(|size| format!("size={size}")).collect(),
            },
            target: target.clone(),
            readonly: false,
        },
    })
}

fn spec(
    daemon: &Daemon,
    id: &str,
    dir: &Path,
    step: &RunStep,
    network: NetNamespace,
) -> Result<ContainerSpec> {
    let mut mounts: Vec<Mount> = ["hosts", "hostname", "resolv.conf"]
        .map(|file| bind(dir.join(file), format!("/etc/{file}"), false))
        .into();
    for bind in &step.binds {
        mounts.push(mount_of(bind)?);
    }
    Ok(ContainerSpec {
        id: id.to_owned(),
        rootfs: dir.join("rootfs"),
        args: step.argv.clone(),
        env: step.env.clone(),
        cwd: step.workdir.clone(),
        user: step.user.clone(),
        hostname: id[..12].to_owned(),
        network,
        mounts,
        shm_size: step.shm_size,
        resources: Resources { pids: Some(MAX_PIDS), ..step.resources.clone() },
        ulimits: ulimits(step),
        cgroup_path: match step.cgroup_parent.as_str() {
            "" => format!("{}/build-{id}", daemon.cgroup_parent()),
            parent => format!("/{}/build-{id}", parent.trim_start_matches('/')),
        },
        apparmor: apparmor::default_profile(false),
        ..ContainerSpec::default()
    })
}

fn ulimits(step: &RunStep) -> Vec<Ulimit> {
    let limits = step.ulimits.iter();
    limits
        .map(|limit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
        .collect()
}

fn bind(source: PathBuf, target: String, readonly: bool) -> Mount {
    let kind =
        MountKind::Bind { source, recursive: false, propagation: String::new(), own_ids: true };
    Mount { kind, target, readonly }
}
