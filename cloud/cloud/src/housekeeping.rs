//! Removes what nobody needs any more: logs that are over, keys that hold no more, what devices deleted
//! long ago, repositories of deleted images, and blobs that nothing names. At the start and once a day.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use minke_cloud_api::{Api, literal};
use minke_cloud_db::Caller;
use minke_cloud_logs::Logs;
use minke_cloud_registry::Registry;

const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it can be seen which images a device deleted.
const DELETED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
            said("removing keys that hold no more", self.keys().await);
            said("removing what devices deleted long ago", self.installs().await);
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

    async fn keys(&self) -> Result<()> {
        let now = jiff::Timestamp::now();
        match self.delete(&format!("api_key?$filter=expiry_date lt datetime'{now}'")).await? {
            0 => {}
            count => tracing::info!(count, "removed keys that hold no more"),
        }
        Ok(())
    }

    /// A device says of an image that it is deleted once, and nothing changes in the row after that.
    async fn installs(&self) -> Result<()> {
        let before = jiff::Timestamp::now() - DELETED;
        let query = format!(
            "image_install?$filter=status eq 'deleted' and modified_at lt datetime'{before}'"
        );
        match self.delete(&query).await? {
            0 => {}
            count => tracing::info!(count, "removed what devices deleted long ago"),
        }
        Ok(())
    }

    async fn delete(&self, query: &str) -> Result<u64> {
        let request = minke_common_odata::parse(query).context("reading its own query")?;
        Ok(self.api.db().delete(&Caller::root(), &request).await?)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minke_cloud_api::Settings;
    use minke_cloud_api::ports::Ports;
    use minke_cloud_api::rows;
    use minke_cloud_blobs::{DirBlobs, DirOptions};
    use minke_cloud_db::Db;
    use minke_cloud_registry::Auth;
    use minke_cloud_registry::token::Signer;
    use serde_json::{Value, json};

    use super::*;
    use crate::glue::{RegistryTokens, Tunnels};

    async fn housekeeping(dir: &std::path::Path) -> Housekeeping {
        let db = Db::open(&format!("sqlite://{}", dir.join("db").display())).await.unwrap();
        let settings = Settings::new("http://minke.example", vec![1; 32]).unwrap();
        let signer = Signer::ephemeral("http://minke.example").unwrap();
        let signer = Arc::new(RegistryTokens { signer, service: settings.registry_host() });
        let ports = Ports { notify: Arc::new(Tunnels::default()), signer };
        let logs = Logs::open(&dir.join("logs"), Default::default()).unwrap();
        let blobs = DirBlobs::open(dir.join("blobs"), &DirOptions::default()).unwrap();
        let registry = Registry::new(blobs.into(), Auth::Open);
        Housekeeping { api: Api::new(db, logs.clone(), settings, ports), logs, registry }
    }

    async fn make(db: &Db, resource: &str, row: Value) -> i64 {
        let Value::Object(row) = row else { panic!("a row") };
        db.post(&Caller::root(), resource, &row).await.unwrap().id
    }

    /// A device, a release, and an image that is not installed yet for each of `services`.
    async fn device(house: &Housekeeping, services: &[&str]) -> (i64, i64, Vec<i64>) {
        let db = house.api.db();
        let now = jiff::Timestamp::now().to_string();
        let first = async |query: &str| {
            rows::number(&house.api.row(&Caller::root(), query).await.unwrap().unwrap(), "id")
        };
        house.api.create_user("ann", "ann@example.org", "correct horse battery").await.unwrap();
        let kind = first("device_type?$select=id&$filter=slug eq 'qemux86-64'").await;
        let organization = first("organization?$select=id").await;
        let fleet = json!({"app_name": "weather", "is_of__class": "fleet",
            "organization": organization, "is_for__device_type": kind});
        let fleet = make(db, "application", fleet).await;
        let release = json!({"belongs_to__application": fleet, "commit": "c0ffee",
            "status": "success", "source": "local", "composition": {}, "start_timestamp": now});
        let release = make(db, "release", release).await;
        let device = json!({"belongs_to__application": fleet, "is_of__device_type": kind,
            "uuid": minke_cloud_api::random_hex()});
        let device = make(db, "device", device).await;
        let mut images = Vec::new();
        for name in services {
            let service = json!({"application": fleet, "service_name": name});
            let service = make(db, "service", service).await;
            let image = json!({"is_a_build_of__service": service, "status": "success",
                "start_timestamp": now});
            let image = make(db, "image", image).await;
            make(
                db,
                "image__is_part_of__release",
                json!({"image": image, "is_part_of__release": release}),
            )
            .await;
            images.push(image);
        }
        (device, release, images)
    }

    #[tokio::test]
    async fn images_that_a_device_deleted_long_ago_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let house = housekeeping(dir.path()).await;
        let (device, release, images) = device(&house, &["old", "young", "running"]).await;
        let day = 24 * 60 * 60 * 1000;
        let now = jiff::Timestamp::now().as_millisecond();
        let installs = [(31, "deleted"), (29, "deleted"), (31, "Running")];
        for ((days, status), image) in installs.into_iter().zip(&images) {
            let install = json!({"device": device, "installs__image": image,
                "is_provided_by__release": release, "status": status});
            make(&house.api.db().at(now - days * day), "image_install", install).await;
        }
        house.installs().await.unwrap();
        let left = "image_install?$select=id,installs__image&$orderby=installs__image asc";
        let left = house.api.rows(&Caller::root(), left).await.unwrap();
        let left: Vec<_> = left.iter().map(|row| rows::target(row, "installs__image")).collect();
        assert_eq!(left, [Some(images[1]), Some(images[2])]);
    }

    #[tokio::test]
    async fn keys_that_hold_no_more_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let house = housekeeping(dir.path()).await;
        house.api.create_user("ann", "ann@example.org", "correct horse battery").await.unwrap();
        let user = house.api.row(&Caller::root(), "user?$select=id,actor").await.unwrap().unwrap();
        let actor = rows::target(&user, "actor");
        let dates = [("over", "2001-01-01T00:00:00Z"), ("holds", "2999-01-01T00:00:00Z")];
        for (name, date) in dates {
            let key =
                json!({"name": name, "key": name, "is_of__actor": actor, "expiry_date": date});
            make(house.api.db(), "api_key", key).await;
        }
        let key = json!({"name": "for ever", "key": "for ever", "is_of__actor": actor});
        make(house.api.db(), "api_key", key).await;
        house.keys().await.unwrap();
        let left = "api_key?$select=name&$orderby=id asc&$filter=is_of__actor eq ";
        let left = format!("{left}{}", actor.unwrap());
        let left = house.api.rows(&Caller::root(), &left).await.unwrap();
        let names: Vec<&str> = left.iter().map(|row| rows::text(row, "name")).collect();
        assert_eq!(names, ["holds", "for ever"]);
    }
}
