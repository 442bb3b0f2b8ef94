//! The builder of a server, and the engine that works for it.

mod gate;
mod prune;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use minke_cloud_api::Api;
use minke_cloud_api::ports::TokenSigner;
use minke_cloud_builder::{Builder, BuilderOptions, Worker, WorkerOptions};

use crate::arguments::Serve;
use crate::data_directory::DataDirectory;
use crate::releases::Pushes;
use gate::Gate;
use prune::{Keep, Pruner};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The routes of the builder, and its engine where there is one.
pub struct BuildWorker {
    pub router: Router,
    pruner: Option<Pruner>,
}

impl BuildWorker {
    /// Starts the engine, unless there is no program for one: then pushes are refused.
    pub async fn start(
        options: &Serve,
        data: &DataDirectory,
        api: &Api,
        signer: Arc<dyn TokenSigner>,
    ) -> Result<BuildWorker> {
        let Some(device_binary) = device_binary(options.device_binary.as_deref())? else {
            tracing::warn!(
                "no minke-device beside this program and no --device-binary: pushes are refused"
            );
            let router = Router::new()
                .route("/v3/build", post(refuse))
                .route("/v3/buildFromUrl", post(refuse));
            return Ok(BuildWorker { router, pruner: None });
        };
        let settings = api.settings();
        let registry = settings.registry_host();
        let mut insecure_registries = options.insecure_registry.clone();
        if settings.is_plain_http() {
            insecure_registries.push(registry.clone());
        }
        let (engine, projects) = (data.join("builder/engine"), data.join("builder/projects"));
        let worker = Worker::spawn(WorkerOptions {
            device_binary,
            data: engine.clone(),
            socket: data.join("builder/engine.sock"),
            registry_mirror: options.registry_mirror.clone(),
            insecure_registries,
        });
        let worker = Arc::new(worker.await?);
        let builder = Builder::new(
            BuilderOptions::new(projects.clone(), registry),
            Arc::new(Pushes { api: api.clone(), signer }),
            Arc::clone(&worker),
        )
        .context("making the directory for pushed projects")?;
        let gate = Gate::new(projects);
        let router = gate.before(minke_cloud_builder::router(builder));
        let keep = Keep {
            unused: DAY * u32::from(options.build_cache_days),
            cache: options.build_cache_size,
        };
        Ok(BuildWorker { router, pruner: Some(Pruner { worker, gate, data: engine, keep }) })
    }

    /// Removes what builds left and none needs any more, until the server ends.
    pub fn pruning(&self) -> impl Future<Output = ()> + Send + use<> {
        let pruner = self.pruner.clone();
        async move {
            if let Some(pruner) = pruner {
                pruner.run().await;
            }
        }
    }

    /// Ends the engine.
    pub async fn stop(self) {
        if let Some(pruner) = self.pruner {
            pruner.worker.stop().await;
        }
    }
}

async fn refuse() -> (StatusCode, &'static str) {
    let text = "this server cannot build: it was started without minke-device; give it with --device-binary";
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

/// The program whose engine builds: the one given, which must be there, or the one beside us.
fn device_binary(given: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(path) = given {
        let path =
            std::path::absolute(path).with_context(|| format!("looking for {}", path.display()))?;
        anyhow::ensure!(path.is_file(), "--device-binary: there is no file {}", path.display());
        return Ok(Some(path));
    }
    let own = std::env::current_exe().context("looking for this program's own file")?;
    let beside = own.with_file_name("minke-device");
    Ok(beside.is_file().then_some(beside))
}
