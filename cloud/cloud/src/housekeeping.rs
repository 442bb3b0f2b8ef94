//! Removes what nobody needs any more: logs that are over, repositories of deleted images, and blobs
//! that nothing names. At the start and once a day.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use minke_cloud_api::{Api, literal};
use minke_cloud_db::Caller;
use minke_cloud_logs::Logs;
use minke_cloud_registry::Registry;

const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is looked after.
pub struct Housekeeping {
    pub api: Api,
    pub logs: Logs,
    pub registry: Registry,
}

impl Housekeeping {
    /// Runs until the server ends.
    pub async fn run(self) {
        let mut day = tokio::time::interval(EVERY);
        loop {
            day.tick().await;
            said("removing logs that are over", self.logs().await);
            said("removing repositories of deleted images", self.repositories().await);
            said("removing images that nothing names", self.blobs().await);
        }
    }

    async fn logs(&self) -> Result<()> {
        let logs = self.logs.clone();
        let swept = tokio::task::spawn_blocking(move || logs.sweep(SystemTime::now()));
        match swept.await.context("the sweep was given up")?? {
            0 => {}
            count => tracing::info!(count, "removed logs that were over"),
        }
        Ok(())
    }

    /// An image's row is there before anything is stored for it, and the repositories are listed
    /// before the rows are asked for: so one without a row has lost it.
    async fn repositories(&self) -> Result<()> {
        for repository in self.registry.repositories().await? {
            let location = literal(repository.as_str());
            let query =
                format!("image?$select=id&$filter=is_stored_at__image_location eq {location}");
            if self.api.row(&Caller::root(), &query).await?.is_none() {
                self.registry.delete_repository(&repository).await?;
                tracing::info!(%repository, "removed the repository of a deleted image");
            }
        }
        Ok(())
    }

    async fn blobs(&self) -> Result<()> {
        let collected = self.registry.collect_garbage(&Default::default()).await?;
        if collected.blobs > 0 {
            let (blobs, bytes) = (collected.blobs, collected.bytes);
            tracing::info!(blobs, bytes, "removed images that nothing names");
        }
        Ok(())
    }
}

fn said(doing: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!("{doing}: {error:#}");
    }
}
