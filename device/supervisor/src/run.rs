//! Puts the supervisor together and runs it.

mod reporting;
mod targeting;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use minke_common_model::reported_state::DeviceReport;
use minke_device_cloud_client::{
    CloudHttp, ConfigFile, LogStream, Reporter, SoftwareVersions, TargetFollower, TunnelLease,
    provision,
};
use minke_engine_client::{Client, Engine, EventFilter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::api::{Api, router};
use crate::api_keys::ApiKeys;
use crate::compose::{Facts, SUPERVISOR_GATEWAY};
use crate::device_view::DeviceView;
use crate::logs::LogCollector;
use crate::memory::Memory;
use crate::narrate::Narrator;
use crate::observe::Observer;
use crate::perform::{Performer, Progress};
use crate::reconcile::{Reconciler, Status};
use crate::{VERSION, host};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// `config.json`; rewritten when the device gets its identity.
    pub config: PathBuf,
    /// The device's data; the supervisor's own files are in `supervisor` below it.
    pub data: PathBuf,
    /// The engine's socket.
    pub engine: PathBuf,
    /// Where the device API listens; `None` is every address, on config.json's port.
    pub listen: Option<SocketAddr>,
    /// The directory of the services' update locks.
    pub lock_root: PathBuf,
    /// The keeper's socket.
    pub keeper: PathBuf,
}

impl SupervisorOptions {
    /// For a device whose files are in `data`, with the paths of a device.
    pub fn new(data: &Path) -> SupervisorOptions {
        SupervisorOptions {
            config: data.join("config.json"),
            data: data.to_owned(),
            engine: data.join("run/engine.sock"),
            listen: None,
            lock_root: PathBuf::from("/tmp/balena-supervisor"),
            keeper: data.join("run/keeper.sock"),
        }
    }
}

/// Runs the supervisor until SIGTERM or SIGINT, on a runtime of its own with one thread.
pub fn run(options: SupervisorOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Names are resolved and the keeper is asked there.
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build()
        .context("cannot start the supervisor's runtime")?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        tokio::select! {
            result = serve(options) => result,
            // Whatever is under way is as safe to leave as in a crash.
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    runtime.shutdown_background();
    served
}

async fn serve(options: SupervisorOptions) -> anyhow::Result<()> {
    let own = options.data.join("supervisor");
    std::fs::create_dir_all(&own).context("cannot make the supervisor's directory")?;
    let config = ConfigFile::open(&options.config)?;
    let keys = ApiKeys::open(&own.join("api-key")).context("cannot keep the API key")?;
    let memory = Memory::open(&own);
    let versions = SoftwareVersions {
        supervisor: VERSION.to_owned(),
        os_version: host::os_version(),
        os_variant: "prod".to_owned(),
    };
    let http = CloudHttp::new(config.clone(), versions)?;

    let (status, _) = watch::channel(Status::default());
    let (report, _) = watch::channel(DeviceReport::default());
    let first_view = DeviceView {
        uuid: config.get().uuid,
        arch: host::arch(),
        device_type: config.get().device_type.unwrap_or_default(),
        ..DeviceView::default()
    };
    let (view, _) = watch::channel(Arc::new(first_view));
    let (health, _) = watch::channel(None);
    let (wake, look) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tunnel = TunnelLease::default();
    let api = Arc::new(Api {
        keys: keys.clone(),
        status: status.subscribe(),
        report: report.subscribe(),
        view: view.subscribe(),
        memory: memory.clone(),
        wake: wake.clone(),
        look: look.clone(),
        tunnel: tunnel.clone(),
        health: health.subscribe(),
        keeper: minke_device_keeper::Client::new(&options.keeper),
        lock_root: options.lock_root.clone(),
        is_managed: config.get().endpoint().is_some(),
    });
    let listen = options.listen.unwrap_or_else(|| ([0, 0, 0, 0], config.get().port()).into());
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let listen_port = listener.local_addr().map(|address| address.port()).unwrap_or(listen.port());
    info!(%listen, "the device API listens");
    let serving = tokio::spawn(async move { axum::serve(listener, router(api)).await });

    let Some(provisioned) = provision(&http).await else {
        info!("config.json names no server: only the device API runs");
        return Ok(serving.await??);
    };
    let uuid = provisioned.uuid;
    let (stream, sink) = LogStream::new(http.clone(), uuid.clone(), &own.join("log-spool"));
    let narrator = Narrator::new(sink.clone());
    let follower = TargetFollower::new(http.clone(), uuid.clone(), &own);
    health.send_replace(Some(follower.health()));

    let engine = Client::unix(&options.engine);
    let observer = Observer::new(&options.lock_root, memory.clone());
    let (progress, _) = watch::channel(Progress::new());
    let (followed, _) = watch::channel(BTreeSet::new());
    let performer = Performer {
        engine: engine.clone(),
        uuid: uuid.clone(),
        config: config.clone(),
        lock_root: options.lock_root.clone(),
        memory: memory.clone(),
        observer: observer.clone(),
        progress: progress.clone(),
        followed: followed.subscribe(),
    };
    let logs_wanted = Arc::new(AtomicBool::new(true));
    let collector = LogCollector::new(
        engine.clone(),
        sink,
        status.subscribe(),
        logs_wanted.clone(),
        own.join("log-cursors"),
        followed,
    );
    let (planned, wanted) = watch::channel(None);
    let facts = Facts {
        uuid: uuid.clone(),
        name: String::new(),
        device_type: config.get().device_type.unwrap_or_default(),
        arch: host::arch(),
        os_version: http.versions().os_version.clone(),
        api_endpoint: None,
        device_key: None,
        listen_port,
        supervisor_gateway: SUPERVISOR_GATEWAY,
        lock_root: options.lock_root.clone(),
        engine_socket: options.engine.clone(),
        host_paths: host::paths(),
        api_keys: keys.clone(),
    };
    let targeting = targeting::Targeting {
        facts,
        config: config.clone(),
        latest: follower.latest(),
        view: view.clone(),
        planned,
        memory,
        logs_wanted,
        narrator: narrator.clone(),
        wake: wake.clone(),
        // A target that was known before this process is nothing new.
        told: targeting::releases(follower.latest().borrow().as_deref()),
    };
    let reporting = reporting::Reporting {
        keys,
        config: config.clone(),
        versions: http.versions().clone(),
        data: options.data.clone(),
        listen_port,
        status: status.subscribe(),
        progress: progress.subscribe(),
        view: view.subscribe(),
        report: report.clone(),
    };
    let reconciler = Reconciler {
        engine: engine.clone(),
        observer,
        performer,
        narrator,
        target: wanted,
        wake: wake.clone(),
        status,
    };
    tokio::spawn(targeting.run());
    tokio::spawn(reporting.run());
    tokio::spawn(Reporter::new(http, uuid).run(report.subscribe(), tunnel.clone()));
    tokio::spawn(stream.run());
    tokio::spawn(collector.run());
    tokio::spawn(reconciler.run());
    tokio::spawn(listen_to_engine(engine, wake));
    tokio::spawn(watch_config(config, look.clone()));
    tokio::spawn(follower.run(look, tunnel));
    Ok(serving.await??)
}

/// Wakes the loop for everything that happens to a container.
async fn listen_to_engine<E: Engine>(engine: E, wake: Arc<Notify>) {
    use futures_util::StreamExt;
    let kinds = [("type".to_owned(), vec!["container".to_owned()])];
    let filter = EventFilter { filters: kinds.into(), ..EventFilter::default() };
    loop {
        match engine.events(&filter).await {
            Ok(mut events) => {
                // What happened before this line is seen by a look.
                wake.notify_one();
                while let Some(Ok(event)) = events.next().await {
                    if !event.action.starts_with("exec_") {
                        wake.notify_one();
                    }
                }
                warn!("the engine's events ended");
            }
            Err(error) => tracing::debug!(%error, "no events from the engine"),
        }
        wake.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Looks at once when config.json names another server.
async fn watch_config(config: ConfigFile, look: Arc<Notify>) {
    let mut endpoint = config.get().api_endpoint;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = config.get().api_endpoint;
        if now != endpoint {
            info!("config.json names another server");
            endpoint = now;
            look.notify_one();
        }
    }
}
