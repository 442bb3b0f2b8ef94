//! Looking for damage in what an engine keeps (images, and the documents of containers and volumes), and
//! repairing it: over the socket of a running engine, or in the data directory of one that does not run.

use std::path::PathBuf;

use anyhow::Context;
use minke_engine_client::Client;
use minke_engine_client::wire::{DamagedPart, VerifyLine, VerifyProgress, VerifyReport};
use minke_engine_images::{Damage, PullOptions, Repair, Store};

use crate::daemon::{Daemon, lock_data};
use crate::documents::Kept;
use crate::options::EngineOptions;

/// Where the engine is whose images are to be verified.
#[derive(Debug, Clone)]
pub enum VerifyTarget {
    /// It runs and listens on this socket.
    Running(PathBuf),
    /// It does not run; its options say where its data is and which registries it asks.
    Stopped(Box<EngineOptions>),
}

/// Reads every byte of an engine's images and compares it with what it should be; what is damaged is
/// fetched again if `repair`. `say` hears how far it is.
pub fn verify(
    target: VerifyTarget,
    repair: bool,
    mut say: impl FnMut(&VerifyLine) + Send,
) -> anyhow::Result<VerifyReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the runtime")?;
    runtime.block_on(async {
        match target {
            VerifyTarget::Running(socket) => Client::unix(&socket)
                .verify(repair, say)
                .await
                .with_context(|| format!("asking the engine at {}", socket.display())),
            VerifyTarget::Stopped(options) => {
                let _lock = lock_data(&options.data)
                    .map_err(|error| anyhow::anyhow!("{}", error.message()))
                    .context("if that engine runs, ask it by --socket")?;
                let (store, registries) = Daemon::open_images(&options)
                    .await
                    .map_err(|error| anyhow::anyhow!("{}", error.message()))?;
                let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
                let kept = Kept { data: &options.data, daemon: None };
                let work = run(&store, kept, repair.then_some(registries), move |line| {
                    // Whoever reads the lines is below, until the work is done.
                    let _ = lines.send(line);
                });
                let read = async {
                    while let Some(line) = told.recv().await {
                        say(&line);
                    }
                };
                let (report, ()) = tokio::join!(work, read);
                report.map_err(|error| anyhow::anyhow!("{}", minke_engine_images::chain(&error)))
            }
        }
    })
}

/// Verifies a store, repairs it from registries if there are options for that, and reports.
pub(crate) async fn run(
    store: &Store,
    kept: Kept<'_>,
    repair: Option<PullOptions>,
    say: impl Fn(VerifyLine) + Send + Sync + Clone + 'static,
) -> Result<VerifyReport, minke_engine_images::Error> {
    let tell = say.clone();
    let found = store
        .verify_with(move |at| {
            let (layer, done, total) = (at.layer.to_string(), at.done, at.total);
            let verifying = Some(VerifyProgress { layer, done, total });
            tell(VerifyLine { verifying, ..VerifyLine::default() });
        })
        .await?;
    let documents = kept.damaged(repair.is_some()).await;
    let repairs = match repair {
        Some(options) => {
            let progress = move |event: minke_engine_images::ProgressEvent| {
                let id = event.id.map(|id| format!("{id}: ")).unwrap_or_default();
                let repairing = Some(format!("{id}{}", event.status));
                say(VerifyLine { repairing, ..VerifyLine::default() });
            };
            store.repair(&found.damaged, &options, progress).await?
        }
        None => Vec::new(),
    };
    Ok(VerifyReport {
        images: found.images,
        layers: found.layers,
        bytes: found.bytes,
        damaged: found
            .damaged
            .iter()
            .map(|damage| part(damage, &repairs))
            .chain(documents)
            .collect(),
    })
}

fn part(damage: &Damage, repairs: &[Repair]) -> DamagedPart {
    let repair = repairs.iter().find(|repair| repair.part == damage.part);
    DamagedPart {
        part: damage.part.to_string(),
        why: damage.why.clone(),
        images: damage.images.iter().map(ToString::to_string).collect(),
        repaired: repair.is_some_and(|repair| repair.failure.is_none()),
        failure: repair.and_then(|repair| repair.failure.clone()),
    }
}
