//! The parts of a running daemon, put together.

use std::fs::Permissions;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minke_engine_images as images;
use minke_engine_network::Networks;
use rustix::fs::FlockOperation;

use crate::containers::registry::Registry;
use crate::containers::remove::Removals;
use crate::durable;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filters::Filters;
use crate::launch::Programs;
use crate::options::EngineOptions;
use crate::volumes::Volumes;

/// A layer that was not read for so many rounds is read before it is used.
const ROUNDS_MISSED: u32 = 4;

/// The cgroup that those of all engines are in, below the root of each hierarchy.
pub(crate) const CGROUP: &str = "/minke";

/// A daemon. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Daemon(Arc<Parts>);

/// What a daemon is made of.
pub(crate) struct Parts {
    pub(crate) options: EngineOptions,
    /// Tells engines on one host apart: 12 hex digits, made at the first start.
    pub(crate) id: String,
    pub(crate) boot_id: String,
    pub(crate) programs: Programs,
    pub(crate) images: images::Store,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) containers: Registry,
    pub(crate) events: Events,
    pub(crate) filters: Filters,
    pub(crate) removals: Removals,
}

impl Deref for Daemon {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Holds the data directory for one daemon.
pub(crate) struct DataLock {
    _file: std::fs::File,
}

/// Takes the data directory; fails if another daemon has it.
pub(crate) fn lock_data(data: &Path) -> Result<DataLock> {
    std::fs::create_dir_all(data).map_err(Error::file("making", data))?;
    let path = data.join("engine.lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file("opening", &path))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::Conflict(format!("another engine uses the data directory {}", data.display()))
    })?;
    Ok(DataLock { _file: file })
}

impl Daemon {
    /// Opens what is in the data directory; nothing is changed in the kernel yet.
    pub(crate) async fn open(options: EngineOptions) -> Result<Daemon> {
        let data = options.data.clone();
        for name in ["containers", "volumes", "run"] {
            let path = data.join(name);
            // Programs that are set-user-id in a container must not be so for the host's users.
            std::fs::create_dir_all(&path)
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)))
                .map_err(Error::file("making", &path))?;
        }
        let id = engine_id(&data)?;
        let (images, _) = Daemon::open_images(&options).await?;
        let networks = Networks::open(&data, &data.join("run"), &id)?;
        Ok(Daemon(Arc::new(Parts {
            id,
            boot_id: boot_id(),
            programs: Programs::find()?,
            images,
            networks,
            volumes: Volumes::open(&data)?,
            containers: Registry::default(),
            events: Events::new(),
            filters: Filters::default(),
            removals: Removals::default(),
            options,
        })))
    }

    /// The program that is process 1 of containers that ask for an init. Made when it is asked for: a
    /// newer engine may have another.
    pub(crate) fn init_program(&self) -> Result<PathBuf> {
        let path = self.options.data.join("run/docker-init");
        if std::fs::read(&path).ok().as_deref() != Some(minke_engine_init::PROGRAM) {
            durable::write_soon(&path, minke_engine_init::PROGRAM)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).map_err(Error::file("making", &path))?;
        }
        Ok(path)
    }

    /// The image store of an engine with these options, and how it reaches registries.
    pub(crate) async fn open_images(
        options: &EngineOptions,
    ) -> Result<(images::Store, images::PullOptions)> {
        let mut store = images::Options { keep_blobs: options.build_worker, ..Default::default() };
        if !options.scrub_interval.is_zero() {
            store.scrub = options.scrub_interval;
            store.overdue = options.scrub_interval.saturating_mul(ROUNDS_MISSED);
        }
        let store = images::Store::open(options.data.join("images"), store).await?;
        Ok((store, pull_options(options)))
    }

    /// Where containers are kept.
    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.options.data.join("containers")
    }

    /// The parent of every container's cgroup, below the root of each hierarchy.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("{CGROUP}/{}", self.id)
    }

    /// How to reach registries.
    pub(crate) fn pull_options(&self) -> images::PullOptions {
        pull_options(&self.options)
    }
}

fn pull_options(options: &EngineOptions) -> images::PullOptions {
    images::PullOptions {
        mirrors: options.registry_mirrors.clone(),
        insecure: options.insecure_registries.clone(),
        ..Default::default()
    }
}

fn engine_id(data: &Path) -> Result<String> {
    let path = data.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() == 12 => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::file("reading", path)(error)),
    }
    let id = crate::ids::random()[..12].to_owned();
    durable::write(&path, id.as_bytes())?;
    Ok(id)
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
