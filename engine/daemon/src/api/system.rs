//! `/_ping`, `/version`, `/info`, `/auth`, `/system/df`.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use axum::http::{HeaderValue, Method, Response};
use minke_engine_client::wire::{
    Component, IndexConfig, Info, PlatformName, Plugins, RegistryConfig, RuntimePath, Version,
    Volume, VolumeUsage,
};
use serde_json::{Value, json};

use super::params::Params;
use super::reply::json as reply;
use crate::build::Builder;
use crate::containers::document::Status;
use crate::containers::view;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::{apparmor, filters, stamp, volumes};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers that the engine is there, and which builder it has.
pub(super) fn ping(method: &Method) -> Response<Body> {
    let body = if method == Method::HEAD { Body::empty() } else { Body::from("OK") };
    let mut response = Response::new(body);
    for (name, value) in [
        (CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (PRAGMA.as_str(), "no-cache"),
        ("builder-version", "1"),
        ("swarm", "inactive"),
    ] {
        // Every name is one of HTTP's or plain ASCII.
        if let Ok(name) = name.parse::<axum::http::HeaderName>() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

/// Go's word for this processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

pub(super) async fn version() -> Response<Body> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let details = BTreeMap::from([
        ("ApiVersion".to_owned(), crate::API_VERSION.to_owned()),
        ("MinAPIVersion".to_owned(), crate::OLDEST_API_VERSION.to_owned()),
        ("Arch".to_owned(), architecture().to_owned()),
        ("Os".to_owned(), "linux".to_owned()),
        ("KernelVersion".to_owned(), kernel.clone()),
    ]);
    reply(&Version {
        platform: PlatformName { name: "Minke Engine".to_owned() },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: crate::API_VERSION.to_owned(),
        min_api_version: crate::OLDEST_API_VERSION.to_owned(),
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version: kernel,
        ..Version::default()
    })
}

pub(super) async fn info(State(daemon): State<Daemon>) -> Response<Body> {
    let containers = daemon.containers.all();
    let count = |wanted: &[Status]| {
        containers.iter().filter(|container| wanted.contains(&container.status())).count() as i64
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|text| text.split_whitespace().next())
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or_default();
    let system = rustix::system::uname();
    let release = read("/etc/os-release");
    let os_release = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let controller = |name: &str| v2 || std::path::Path::new("/sys/fs/cgroup").join(name).exists();
    reply(&Info {
        id: daemon.id.clone(),
        containers: containers.len() as i64,
        containers_running: count(&[Status::Running, Status::Restarting]),
        containers_paused: count(&[Status::Paused]),
        containers_stopped: count(&[Status::Created, Status::Exited, Status::Removing]),
        images: daemon.images.images().len() as i64,
        driver: "overlay2".to_owned(),
        driver_status: driver_status(&daemon),
        docker_root_dir: daemon.options.data.to_string_lossy().into_owned(),
        plugins: Plugins {
            volume: vec!["local".to_owned()],
            network: ["bridge", "host", "ipvlan", "macvlan", "null"].map(str::to_owned).to_vec(),
            authorization: None,
            log: ["json-file", "local", "none"].map(str::to_owned).to_vec(),
        },
        memory_limit: controller("memory"),
        swap_limit: v2
            || std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        cpu_cfs_period: controller("cpu"),
        cpu_cfs_quota: controller("cpu"),
        cpu_shares: controller("cpu"),
        cpu_set: controller("cpuset"),
        pids_limit: controller("pids"),
        ipv4_forwarding: true,
        n_events_listener: daemon.events.listeners() as i64,
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64),
        system_time: stamp::rfc3339(stamp::now()),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
        kernel_version: system.release().to_string_lossy().into_owned(),
        operating_system: os_release("PRETTY_NAME"),
        os_version: os_release("VERSION_ID"),
        os_type: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        ncpu: std::thread::available_parallelism().map_or(1, usize::from) as i64,
        mem_total: memory * 1024,
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: registry_config(&daemon),
        name: system.nodename().to_string_lossy().into_owned(),
        server_version: VERSION.to_owned(),
        // Clients look for Docker's names; there is one runtime whatever it is called.
        runtimes: ["io.containerd.runc.v2", "runc"]
            .map(|name| {
                let path = daemon.programs.runtime.to_string_lossy().into_owned();
                (name.to_owned(), RuntimePath { path })
            })
            .into(),
        default_runtime: "runc".to_owned(),
        live_restore_enabled: true,
        security_options: security_options(v2, daemon.options.user_range.is_some()),
        ..Info::default()
    })
}

/// What there is to say of the image store.
fn driver_status(daemon: &Daemon) -> Vec<(String, String)> {
    let standing = daemon.images.standing();
    let read = match standing.read_since {
        None => "nothing to read".to_owned(),
        Some(0) => "never".to_owned(),
        Some(at) => stamp::rfc3339(i64::try_from(at).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
    };
    [
        ("Native Overlay Diff", "true".to_owned()),
        ("Damaged Layers", standing.damaged.to_string()),
        ("All Layers Read Since", read),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn security_options(v2: bool, users: bool) -> Vec<String> {
    let all = [
        (apparmor::enabled(), "name=apparmor"),
        (filters::available(), "name=seccomp,profile=builtin"),
        (users, "name=userns"),
        (v2, "name=cgroupns"),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()).collect()
}

fn registry_config(daemon: &Daemon) -> RegistryConfig {
    let mirrors = daemon.options.registry_mirrors.clone();
    let mut index_configs = BTreeMap::from([(
        "docker.io".to_owned(),
        IndexConfig {
            name: "docker.io".to_owned(),
            mirrors: mirrors.clone(),
            secure: true,
            official: true,
        },
    )]);
    for name in &daemon.options.insecure_registries {
        let config = IndexConfig { name: name.clone(), ..IndexConfig::default() };
        index_configs.insert(name.clone(), config);
    }
    RegistryConfig {
        insecure_registry_cidrs: vec!["127.0.0.0/8".to_owned()],
        index_configs,
        mirrors,
    }
}

/// What everything takes on the disk.
pub(super) async fn disk_usage(
    State(daemon): State<Daemon>,
    Extension(builder): Extension<Builder>,
    params: Params,
) -> Result<Response<Body>> {
    let kinds: Vec<String> = params.all("type").map(str::to_owned).collect();
    const KNOWN: [&str; 4] = ["container", "image", "volume", "build-cache"];
    if let Some(kind) = kinds.iter().find(|kind| !KNOWN.contains(&kind.as_str())) {
        return Err(Error::Invalid(format!("unknown object type: {kind}")));
    }
    let wanted = move |kind: &str| kinds.is_empty() || kinds.iter().any(|known| known == kind);
    let measured = tokio::task::spawn_blocking(move || -> Result<Value> {
        let mut answer = json!({});
        if wanted("image") {
            let images = super::images::list::summaries(&daemon);
            answer["LayersSize"] = super::images::list::layers_size(&daemon).into();
            answer["Images"] = json!(images);
        }
        if wanted("container") {
            let containers = daemon.containers.all();
            let rows = containers.iter().zip(view::sizes(&containers));
            let rows = rows.map(|(one, size)| view::summary(&daemon, one, Some(size)));
            answer["Containers"] = json!(rows.collect::<Vec<_>>());
        }
        if wanted("volume") {
            answer["Volumes"] = json!(volume_rows(&daemon)?);
        }
        if wanted("build-cache") {
            answer["BuildCache"] = json!(builder.usage());
        }
        Ok(answer)
    });
    let value = measured.await.map_err(Error::system("measuring the disk"))??;
    Ok(reply(&value))
}

/// Every volume with what it takes and who uses it.
fn volume_rows(daemon: &Daemon) -> Result<Vec<Volume>> {
    let mut rows = Vec::new();
    for document in daemon.volumes.list()? {
        let mut volume = daemon.volumes.show(&document);
        volume.usage_data = Some(VolumeUsage {
            size: volumes::disk_usage(&daemon.volumes.data(&document.name)) as i64,
            ref_count: daemon.volume_users(&document.name).len() as i64,
        });
        rows.push(volume);
    }
    Ok(rows)
}
