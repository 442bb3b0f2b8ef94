//! Starts containers.
//!
//! Order: root file system, network, files, volumes, shim, attached clients, the process, the
//! document, the event. Whatever fails takes down what came before it, and the container is as it was,
//! with the reason in its state.

mod joining;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use minke_engine_client::wire::{EndpointSettings, HostNetwork};
use minke_engine_images::Use;
use minke_engine_network::{Endpoint, NAME_SERVICE_PORT};
use minke_engine_shim::config::{LogConfig, ShimConfig};
use minke_engine_shim::protocol::{Failure, Request, Size, Streams};

use super::container::{Container, PendingAttach};
use super::document::{MountDocument, MountKind, Status};
use super::files::{self, HostResolver};
use super::log_marks::Subject;
use super::{
    cgroup_wait, exit, health, links, log_options, membership, ports, prepare, shm, subpaths,
    unmount, update,
};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::launch::{Launch, spawn_shim};
use crate::rootfs::Overlay;
use crate::shim::{Connection, ShimError};
use crate::{apparmor, damage, durable, rootfs, stamp, users, volumes};

use joining::{Joined, join_networks};
pub(crate) use joining::{attach_options, dns_names};

/// Starts a container for somebody who asked for it.
pub(crate) async fn start(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let _turn = container.turn("started").await?;
    if container.status() == Status::Paused {
        return Err(Error::Conflict(
            "cannot start a paused container, try unpause instead".to_owned(),
        ));
    }
    // One that waits for its restart is left to that: started by hand it had all its retries again.
    if container.status().counts_as_running() {
        return Err(Error::NotModified);
    }
    let host = container.lock().config.host_config.clone();
    links::check_running(daemon, &container.name(), &host)?;
    container.lock().tasks.end_all();
    start_locked(daemon, container, false).await
}

/// Starts a container whose lifecycle lock is held. `again`: the restart policy asks.
pub(crate) async fn start_locked(
    daemon: &Daemon,
    container: &Arc<Container>,
    again: bool,
) -> Result<()> {
    let started = bring_up(daemon, container, again).await;
    let Err(error) = started else { return Ok(()) };
    container.lock().pending.clear();
    for record in exit::take_down(daemon, container).await {
        membership::tell(daemon, container, &record, "disconnect");
    }
    let exit_code = match &error {
        Error::Start { failure, .. } => i64::from(failure.exit_code()),
        _ => 128,
    };
    if matches!(&error, Error::Start { failure, .. } if *failure != Failure::NotFound) {
        damage::after_end(container, daemon, None);
    }
    let message = error.message();
    container.record_state(|state| {
        if state.status != Status::Created {
            state.status = Status::Exited;
        }
        state.pid = 0;
        state.exit_code = exit_code;
        state.error = message.clone();
    });
    if !again {
        exit::finish(daemon, container, exit_code);
    }
    Err(error)
}

async fn bring_up(daemon: &Daemon, container: &Arc<Container>, again: bool) -> Result<()> {
    cgroup_wait::begin();
    apparmor::load_default().await;
    damage::before_start(daemon, container).await?;
    super::container::make_directories(&container.dir)?;
    mount_rootfs(daemon, container).await?;
    let network = join_networks(daemon, container).await?;
    write_files(daemon, container, &network)?;
    fill_volumes(daemon, container).await?;
    shm::mount(daemon, container)?;
    subpaths::mount(daemon, container)?;
    map_rootfs(daemon, container).await?;
    let spec = prepare::spec(daemon, container)?;
    let launch = Launch {
        dir: &container.shim_dir(),
        spec: &spec,
        config: shim_config(container, &network)?,
    };
    expect_shim(daemon, container)?;
    spawn_shim(daemon, launch).await?;
    let given = Given { endpoints: network.endpoints, apparmor: spec.apparmor };
    if let Err(error) = run(daemon, container, again, given).await {
        exit::end_shim(container).await;
        return Err(error);
    }
    health::begin(daemon, container);
    Ok(())
}

/// Has the shim that comes known as one of this boot. A daemon may die after its start and before the
/// record of it, and the next goes by what the shim says.
fn expect_shim(daemon: &Daemon, container: &Container) -> Result<()> {
    let dir = container.shim_dir();
    // What a shim that was killed left behind would be taken for news of this run, and what one of
    // another boot left for that shim.
    durable::remove(&dir.join("exit"))?;
    durable::remove(&dir.join("shim.pid"))?;
    // Of a container that has never run all that is there is of this boot.
    let recorded = container.lock().state.boot_id.clone();
    if !recorded.is_empty() && recorded != daemon.boot_id {
        container.record_state(|state| state.boot_id = daemon.boot_id.clone());
    }
    Ok(())
}

/// What a container has got at its start, to be recorded when it runs.
struct Given {
    endpoints: BTreeMap<String, (EndpointSettings, Endpoint)>,
    /// The profile of AppArmor.
    apparmor: String,
}

/// Connects who waits, then starts the process and records it.
async fn run(daemon: &Daemon, container: &Arc<Container>, again: bool, given: Given) -> Result<()> {
    let dir = container.shim_dir();
    let mut waiting = Connection::open(&dir).await.map_err(start_error)?;
    let wait = Request::Wait { session: String::new() };
    waiting.writer.send(&wait).await.map_err(|error| start_error(error.into()))?;
    let pending: Vec<PendingAttach> = std::mem::take(&mut container.lock().pending);
    for attach in pending.into_iter().filter(|attach| !attach.bound.is_closed()) {
        let mut connection = Connection::open(&dir).await.map_err(start_error)?;
        connection.attach("", attach.streams).await.map_err(start_error)?;
        // Who has gone in between needs nothing any more.
        let _ = attach.bound.send(connection);
    }
    let mut control = Connection::open(&dir).await.map_err(start_error)?;
    let size = {
        let mut cell = container.lock();
        let [rows, columns] = cell.config.host_config.console_size;
        let asked = (rows > 0 && columns > 0).then_some(Size { rows, columns });
        cell.early_size.take().or(asked.filter(|_| cell.config.config.tty))
    };
    if let Some(size) = size {
        control.resize("", size).await.map_err(start_error)?;
    }
    let pid = control.start().await.map_err(start_error)?;
    update::keep_from_oom_killer(container);
    let ports = ports::given(given.endpoints.values().map(|(_, endpoint)| endpoint));
    let shown: BTreeMap<_, _> =
        given.endpoints.into_iter().map(|(name, (shown, _))| (name, shown)).collect();
    {
        let mut cell = container.lock();
        cell.stopping = false;
        cell.running_since = Some(Instant::now());
    }
    container.record_state(|state| {
        state.status = Status::Running;
        state.pid = pid;
        state.started_at = stamp::now();
        state.error = String::new();
        state.oom_killed = false;
        state.exit_code = 0;
        state.boot_id = daemon.boot_id.clone();
        state.endpoints = shown.clone();
        state.ports = ports.clone();
        state.health = None;
        state.apparmor = given.apparmor.clone();
        if !again {
            state.manually_stopped = false;
            state.restart_count = 0;
            state.backoff = 0;
        }
    });
    container.phase.send_modify(|phase| phase.running = true);
    daemon.events.publish("container", "start", &container.id, container.attributes());
    exit::watch(daemon, container, waiting);
    Ok(())
}

fn start_error(error: ShimError) -> Error {
    match error {
        ShimError::Failed { failure, message } => Error::Start { failure, message },
        other => Error::system("starting the container")(other),
    }
}

/// Mounts the overlay of image and container.
pub(crate) async fn mount_rootfs(daemon: &Daemon, container: &Container) -> Result<()> {
    unmount::done(container).await;
    let image = container.lock().config.image_id.clone();
    let image = image.parse().map_err(Error::system("reading the image's id"))?;
    daemon.images.pin(&image, &container.id, Use::Running)?;
    let lower = daemon.images.lower_dirs(&image)?;
    rootfs::unmount_all(&container.rootfs())?;
    overlay(container, &lower, |overlay| overlay.mount_at_target())
}

/// Does something with the overlay of a container.
fn overlay<T>(container: &Container, lower: &[PathBuf], work: impl FnOnce(Overlay<'_>) -> T) -> T {
    // A container that removes itself is gone after a crash of the machine, whatever it wrote.
    let volatile = container.lock().config.host_config.auto_remove;
    let (upper, scratch, target) =
        (container.dir.join("upper"), container.dir.join("work"), container.rootfs());
    work(Overlay { lower, upper: &upper, work: &scratch, target: &target, volatile })
}

/// Shows the files of a container in a user namespace under its owners. Until then they were seen as
/// they are on the disk.
async fn map_rootfs(daemon: &Daemon, container: &Container) -> Result<()> {
    let host = container.lock().config.host_config.clone();
    let Some(range) = users::of(daemon, &host) else { return Ok(()) };
    let Some(user) = prepare::user_namespace(daemon, container)? else { return Ok(()) };
    let image = container.lock().config.image_id.clone();
    let image = image.parse().map_err(Error::system("reading the image's id"))?;
    let lower = daemon.images.lower_dirs(&image)?;
    unmount::begin(container);
    unmount::done(container).await;
    overlay(container, &lower, |overlay| {
        users::mount_mapped(&daemon.options.data, range, &user.path, overlay)
    })
}

/// Has a running container ask its shim for names from now on.
pub(super) async fn serve_names(daemon: &Daemon, container: &Container) -> Result<()> {
    let path = container.shim_dir().join("shim.conf");
    let text = std::fs::read(&path).map_err(Error::file("reading", &path))?;
    // A shim of an earlier version answers at port 53 itself, if it answers at all.
    let ready = ShimConfig::parse(&text)
        .is_ok_and(|config| config.dns.is_some_and(|dns| dns.port == NAME_SERVICE_PORT));
    if !ready {
        return Ok(());
    }
    daemon.networks.redirect_names(&container.id).await?;
    let host = container.lock().config.host_config.clone();
    let text = files::resolv_conf(&host, &host_resolver(), true);
    let path = container.dir.join("resolv.conf");
    // Written in place: the container sees this file, not whichever has its name.
    std::fs::write(&path, text).map_err(Error::file("writing", &path))
}

fn host_resolver() -> HostResolver {
    HostResolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn write_files(daemon: &Daemon, container: &Container, network: &Joined) -> Result<()> {
    let document = container.lock().config.clone();
    let host = &document.host_config;
    let mode = host.network();
    if matches!(mode, HostNetwork::Container(_)) {
        return Ok(());
    }
    let write =
        |name: &str, text: &str| durable::write_soon(&container.dir.join(name), text.as_bytes());
    let addresses = |endpoint: &Endpoint| {
        [Some(endpoint.address.to_string()), endpoint.address6.map(|address| address.to_string())]
    };
    let own: Vec<String> =
        network.endpoints.values().flat_map(|(_, e)| addresses(e)).flatten().collect();
    let mut hostname = document.config.hostname.clone();
    if mode == HostNetwork::Host {
        let system = rustix::system::uname();
        if document.config.hostname == container.id[..12] {
            hostname = system.nodename().to_string_lossy().into_owned();
        }
    }
    let config = minke_engine_client::wire::ContainerConfig {
        hostname: hostname.clone(),
        ..document.config.clone()
    };
    let links = links::hosts(daemon, &host.links);
    write("hosts", &files::hosts(&config, host, &own, network.gateway.as_deref(), &links))?;
    write("hostname", &format!("{hostname}\n"))?;
    if mode == HostNetwork::Host && host.dns.is_empty() {
        let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        return write("resolv.conf", &own);
    }
    write("resolv.conf", &files::resolv_conf(host, &host_resolver(), network.named))
}

/// Makes missing bind sources, and fills new volumes from the image at the first start.
async fn fill_volumes(daemon: &Daemon, container: &Arc<Container>) -> Result<()> {
    let (daemon, container) = (daemon.clone(), container.clone());
    // A server may be slow to answer, and what an image has for a volume may be large.
    let filled = tokio::task::spawn_blocking(move || fill_volumes_now(&daemon, &container));
    filled.await.map_err(Error::system("filling volumes"))?
}

fn fill_volumes_now(daemon: &Daemon, container: &Container) -> Result<()> {
    let (mounts, first): (Vec<MountDocument>, bool) = {
        let cell = container.lock();
        (cell.config.mounts.clone(), cell.state.started_at == 0)
    };
    for mount in mounts {
        match mount.kind {
            MountKind::Bind if mount.make_source => {
                let source = PathBuf::from(&mount.source);
                if !source.exists() {
                    std::fs::create_dir_all(&source).map_err(Error::file("making", &source))?;
                }
            }
            MountKind::Volume => {
                let fill = first && !mount.no_copy && mount.subpath.is_empty();
                daemon.volumes.hold(&mount.volume, &container.id, |data| match fill {
                    true => volumes::fill_from_image(&container.rootfs(), &mount.target, data),
                    false => Ok(()),
                })?;
            }
            MountKind::Bind | MountKind::Tmpfs => {}
        }
    }
    Ok(())
}

fn shim_config(container: &Container, network: &Joined) -> Result<ShimConfig> {
    let path = container.log_path();
    let cell = container.lock();
    let config = &cell.config.config;
    let options = log_options::read(&cell.config.host_config)?;
    let subject = Subject {
        id: &container.id,
        name: &cell.config.name,
        image_id: &cell.config.image_id,
        config,
    };
    let marks = options.as_ref().map(|options| options.marks_of(&subject)).transpose()?;
    let marks = marks.filter(|marks| !marks.is_empty());
    let log = options.map(|options| LogConfig {
        path,
        max_size: options.max_size,
        max_files: options.max_files,
        format: options.format,
        compress: options.compress,
        buffer: options.buffer(),
        // Strings as keys and values: this cannot fail.
        marks: marks.map(|m| serde_json::to_string(&m).unwrap_or_default()).unwrap_or_default(),
    });
    Ok(ShimConfig {
        id: container.id.clone(),
        runtime: PathBuf::new(),
        bundle: container.dir.join("bundle"),
        tty: config.tty,
        stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        log,
        dns: network.dns.clone(),
    })
}

/// Registers a client that attaches before the start.
pub(crate) fn attach_early(
    container: &Container,
    streams: Streams,
) -> tokio::sync::oneshot::Receiver<Connection> {
    let (bound, receiver) = tokio::sync::oneshot::channel();
    let mut cell = container.lock();
    cell.pending.retain(|attach| !attach.bound.is_closed());
    cell.pending.push(PendingAttach { streams, bound });
    receiver
}
