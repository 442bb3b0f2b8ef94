//! What the builder records of a push: rows, written as the server itself once the caller has shown
//! that the fleet is theirs to push to.

use std::sync::Arc;

use minke_cloud_api::ports::{RegistryAccess, TokenSigner};
use minke_cloud_api::{Api, ApiError, literal, rows};
use minke_cloud_builder::{
    BoxFuture, Credential, Fleet, ImageRow, ImageUpdate, NewImage, NewRelease, Outcome,
    ReleaseError, ReleaseRow, Releases,
};
use minke_cloud_db::{Caller, Tx};
use minke_cloud_fleet::{Role, Verb};
use minke_common_odata::Request;
use serde_json::{Map, Value, json};

/// The rows of pushes.
pub struct Pushes {
    pub api: Api,
    pub signer: Arc<dyn TokenSigner>,
}

type Done<T> = Result<T, ReleaseError>;

fn refused(error: impl Into<ApiError>) -> ReleaseError {
    match error.into() {
        ApiError::Unauthorized(_) => ReleaseError::Unauthorized,
        error if error.status().is_client_error() => ReleaseError::Refused(error.to_string()),
        error => ReleaseError::Failed(Box::new(error)),
    }
}

fn parse(text: &str) -> Done<Request> {
    minke_common_odata::parse(text).map_err(|error| ReleaseError::Failed(Box::new(error)))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

impl Pushes {
    async fn find_fleet(&self, credential: &Credential, slug: &str) -> Done<Fleet> {
        let identity = self.api.identify(&credential.bearer).await.map_err(refused)?;
        if identity.role != Role::User {
            return Err(ReleaseError::Unauthorized);
        }
        let name = literal(&slug.to_lowercase());
        let query = format!("application?$select=id&$filter=slug eq {name} or uuid eq {name}");
        let row = self.api.row(&identity.who_may(Verb::Update), &query).await.map_err(refused)?;
        let id = row.and_then(|row| rows::number(&row, "id"));
        let id = id.ok_or_else(|| ReleaseError::NoFleet(slug.to_owned()))?;
        let query = format!(
            "application({id})?$select=id,slug,app_name&$expand=application_type($select=supports_multicontainer),is_for__device_type($select=slug;$expand=is_of__cpu_architecture($select=slug)),build_environment_variable($select=name,value)"
        );
        let root = Caller::root();
        let row = self.api.row(&root, &query).await.map_err(refused)?.unwrap_or_default();
        let user = format!("user?$select=id&$filter=actor eq {}", identity.actor);
        let user = self.api.row(&root, &user).await.map_err(refused)?;
        let device_type = &row["is_for__device_type"][0];
        Ok(Fleet {
            id,
            slug: rows::text(&row, "slug").to_owned(),
            name: rows::text(&row, "app_name").to_owned(),
            user: user.and_then(|user| rows::number(&user, "id")),
            device_type: rows::text(device_type, "slug").to_owned(),
            architecture: rows::text(&device_type["is_of__cpu_architecture"][0], "slug").to_owned(),
            multicontainer: row["application_type"][0]["supports_multicontainer"] == true,
            build_variables: row["build_environment_variable"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|variable| {
                    let text = |field| rows::text(variable, field).to_owned();
                    (text("name"), text("value"))
                })
                .collect(),
        })
    }

    async fn make_release(&self, fleet: &Fleet, release: NewRelease) -> Done<ReleaseRow> {
        let row = json!({
            "belongs_to__application": fleet.id,
            "is_created_by__user": fleet.user,
            "commit": release.commit,
            "composition": release.composition,
            "status": "running",
            "source": "cloud",
            "start_timestamp": release.start_timestamp,
            "is_final": release.is_final,
        });
        let mut row = object(row);
        for (name, value) in
            [("semver", release.semver.map(Value::String)), ("contract", release.contract)]
        {
            if let Some(value) = value {
                row.insert(name.to_owned(), value);
            }
        }
        let made = self.api.db().post(&Caller::root(), "release", &row).await.map_err(refused)?;
        Ok(ReleaseRow { id: made.id, commit: release.commit })
    }

    /// Service, image, its place in the release, labels and variables: all or none.
    async fn make_image(
        &self,
        fleet: &Fleet,
        release: &ReleaseRow,
        image: NewImage,
    ) -> Done<ImageRow> {
        let root = Caller::root();
        let mut tx = self.api.db().begin().await.map_err(refused)?;
        let service = service(&mut tx, fleet.id, &image.service).await?;
        let row = object(json!({
            "is_a_build_of__service": service,
            "status": "running",
            "start_timestamp": image.start_timestamp,
        }));
        let made = tx.post(&root, "image", &row).await.map_err(refused)?;
        let row = object(json!({"image": made.id, "is_part_of__release": release.id}));
        let place = tx.post(&root, "release_image", &row).await.map_err(refused)?;
        for (name, value) in image.labels {
            let row =
                object(json!({"release_image": place.id, "label_name": name, "value": value}));
            tx.post(&root, "image_label", &row).await.map_err(refused)?;
        }
        for (name, value) in image.environment {
            let row = object(json!({"release_image": place.id, "name": name, "value": value}));
            tx.post(&root, "image_environment_variable", &row).await.map_err(refused)?;
        }
        tx.commit().await.map_err(refused)?;
        let location = rows::text(&made.row, "is_stored_at__image_location").to_owned();
        Ok(ImageRow { id: made.id, location })
    }

    /// Says whether the release was still being built.
    async fn end_release(&self, release: &ReleaseRow, outcome: Outcome) -> Done<bool> {
        let root = Caller::root();
        let mut tx = self.api.db().begin().await.map_err(refused)?;
        // The first write locks the row, so the status that the second asks for stays what it is.
        let row = object(json!({
            "build_log": outcome.build_log,
            "end_timestamp": outcome.end_timestamp,
        }));
        let target = parse(&format!("release({})", release.id))?;
        tx.patch(&root, &target, &row).await.map_err(refused)?;
        let row = object(json!({"status": outcome.status.as_str()}));
        let target = parse(&format!("release({})?$filter=status eq 'running'", release.id))?;
        let ended = tx.patch(&root, &target, &row).await.map_err(refused)?;
        tx.commit().await.map_err(refused)?;
        Ok(ended > 0)
    }

    async fn patch(&self, target: &str, row: Value) -> Done<()> {
        let request = parse(target)?;
        self.api.db().patch(&Caller::root(), &request, &object(row)).await.map_err(refused)?;
        Ok(())
    }
}

/// Writes down that what an earlier server was building when it ended is built no more. To be called
/// before the first push of this one: its builds would look the same.
pub async fn end_interrupted(api: &Api) -> anyhow::Result<()> {
    let root = Caller::root();
    let now = jiff::Timestamp::now().to_string();
    // Images first: ended halfway, the next start finds the releases still and goes on.
    let images = "image?$filter=status eq 'running' and \
                  is_part_of__release/any(p:p/is_part_of__release/any(r:r/source eq 'cloud'))";
    let row = object(json!({
        "status": "interrupted",
        "end_timestamp": now,
        "error_message": "the server ended during the build",
    }));
    let images = api.db().patch(&root, &parse(images)?, &row).await?;
    let releases = "release?$filter=status eq 'running' and source eq 'cloud'";
    let row = object(json!({"status": "interrupted", "end_timestamp": now}));
    let releases = api.db().patch(&root, &parse(releases)?, &row).await?;
    if images + releases > 0 {
        tracing::info!(releases, images, "builds were interrupted by the end of an earlier server");
    }
    Ok(())
}

/// The fleet's service of this name, made if there is none.
async fn service(tx: &mut Tx, fleet: i64, name: &str) -> Done<i64> {
    let root = Caller::root();
    let key = format!("service(application={fleet},service_name={})?$select=id", literal(name));
    let found = tx.get(&root, &parse(&key)?).await.map_err(refused)?;
    if let Some(id) = rows::number(&found[0], "id") {
        return Ok(id);
    }
    let row = object(json!({"application": fleet, "service_name": name}));
    Ok(tx.post(&root, "service", &row).await.map_err(refused)?.id)
}

/// An image's columns at the end of its build; what is not said stays.
fn image_columns(update: ImageUpdate) -> Value {
    let mut row = json!({
        "status": update.status.as_str(),
        "build_log": update.build_log,
        "end_timestamp": update.end_timestamp,
    });
    for (name, value) in [
        ("content_hash", update.content_hash.map(Value::String)),
        ("image_size", update.image_size.map(|size| json!(size.to_string()))),
        ("dockerfile", update.dockerfile.map(Value::String)),
        ("project_type", update.project_type.map(Value::String)),
        ("error_message", update.error_message.map(Value::String)),
        ("push_timestamp", update.push_timestamp.map(|time| json!(time))),
    ] {
        if let Some(value) = value {
            row[name] = value;
        }
    }
    row
}

impl Releases for Pushes {
    fn fleet<'a>(
        &'a self,
        credential: &'a Credential,
        slug: &'a str,
    ) -> BoxFuture<'a, Done<Fleet>> {
        Box::pin(self.find_fleet(credential, slug))
    }

    fn create_release<'a>(
        &'a self,
        fleet: &'a Fleet,
        release: NewRelease,
    ) -> BoxFuture<'a, Done<ReleaseRow>> {
        Box::pin(self.make_release(fleet, release))
    }

    fn create_image<'a>(
        &'a self,
        fleet: &'a Fleet,
        release: &'a ReleaseRow,
        image: NewImage,
    ) -> BoxFuture<'a, Done<ImageRow>> {
        Box::pin(self.make_image(fleet, release, image))
    }

    fn update_image<'a>(
        &'a self,
        image: &'a ImageRow,
        update: ImageUpdate,
    ) -> BoxFuture<'a, Done<()>> {
        Box::pin(
            async move { self.patch(&format!("image({})", image.id), image_columns(update)).await },
        )
    }

    fn finish_release<'a>(
        &'a self,
        _fleet: &'a Fleet,
        release: &'a ReleaseRow,
        outcome: Outcome,
    ) -> BoxFuture<'a, Done<bool>> {
        Box::pin(self.end_release(release, outcome))
    }

    fn is_cancelled<'a>(&'a self, release: &'a ReleaseRow) -> BoxFuture<'a, Done<bool>> {
        Box::pin(async move {
            let query = format!("release({})?$select=status", release.id);
            let row = self.api.row(&Caller::root(), &query).await.map_err(refused)?;
            // A release that is gone is nobody's any more.
            Ok(row.is_none_or(|row| rows::text(&row, "status") == "cancelled"))
        })
    }

    fn registry_token<'a>(&'a self, repositories: &'a [String]) -> BoxFuture<'a, Done<String>> {
        Box::pin(async move {
            let access = repositories
                .iter()
                .map(|name| RegistryAccess {
                    name: name.clone(),
                    actions: vec!["pull".to_owned(), "push".to_owned()],
                    alias: None,
                })
                .collect();
            self.signer.sign("builder", access).map_err(ReleaseError::Failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use minke_cloud_api::Settings;
    use minke_cloud_api::ports::Ports;
    use minke_cloud_builder::Status;
    use minke_cloud_db::Db;
    use minke_cloud_logs::Logs;
    use minke_cloud_registry::token::Signer;

    use super::*;
    use crate::glue::{RegistryTokens, Tunnels};

    async fn pushes(dir: &std::path::Path) -> Pushes {
        let db = Db::open(&format!("sqlite://{}", dir.join("db").display())).await.unwrap();
        let settings = Settings::new("http://minke.example", vec![1; 32]).unwrap();
        let signer = Signer::ephemeral("http://minke.example").unwrap();
        let service = settings.registry_host();
        let signer: Arc<dyn TokenSigner> = Arc::new(RegistryTokens { signer, service });
        let ports = Ports { notify: Arc::new(Tunnels::default()), signer: Arc::clone(&signer) };
        let logs = Logs::open(&dir.join("logs"), Default::default()).unwrap();
        Pushes { api: Api::new(db, logs, settings, ports), signer }
    }

    /// A fleet with a release that is being built.
    async fn release(pushes: &Pushes) -> (Fleet, ReleaseRow) {
        pushes.api.create_user("ann", "ann@example.org", "correct horse battery").await.unwrap();
        let root = Caller::root();
        let first = async |query: &str| {
            let row = pushes.api.row(&root, query).await.unwrap().unwrap();
            rows::number(&row, "id").unwrap()
        };
        let row = json!({
            "app_name": "weather", "is_of__class": "fleet",
            "organization": first("organization?$select=id").await,
            "is_for__device_type": first("device_type?$select=id&$filter=slug eq 'qemux86-64'").await,
        });
        let id = pushes.api.db().post(&root, "application", &object(row)).await.unwrap().id;
        let fleet = Fleet {
            id,
            slug: "ann/weather".to_owned(),
            name: "weather".to_owned(),
            user: None,
            device_type: "qemux86-64".to_owned(),
            architecture: "amd64".to_owned(),
            multicontainer: true,
            build_variables: Vec::new(),
        };
        let new = NewRelease {
            commit: "c0ffee".to_owned(),
            composition: json!({"services": {}}),
            is_final: true,
            semver: None,
            contract: None,
            start_timestamp: 1,
        };
        let release = pushes.create_release(&fleet, new).await.unwrap();
        (fleet, release)
    }

    fn outcome(status: Status) -> Outcome {
        Outcome { status, build_log: format!("{status:?}"), end_timestamp: 2 }
    }

    /// Status and log of the release, and whether the fleet runs it.
    async fn stored(
        pushes: &Pushes,
        fleet: &Fleet,
        release: &ReleaseRow,
    ) -> (String, String, bool) {
        let root = Caller::root();
        let query = format!("release({})?$select=status,build_log", release.id);
        let row = pushes.api.row(&root, &query).await.unwrap().unwrap();
        let query = format!("application({})?$select=should_be_running__release", fleet.id);
        let target = pushes.api.row(&root, &query).await.unwrap().unwrap();
        let target = rows::target(&target, "should_be_running__release");
        let text = |field| rows::text(&row, field).to_owned();
        (text("status"), text("build_log"), target == Some(release.id))
    }

    #[tokio::test]
    async fn a_build_that_ends_is_the_fleets_target() {
        let dir = tempfile::tempdir().unwrap();
        let pushes = pushes(dir.path()).await;
        let (fleet, release) = release(&pushes).await;
        assert!(pushes.finish_release(&fleet, &release, outcome(Status::Success)).await.unwrap());
        let expected = ("success".to_owned(), "Success".to_owned(), true);
        assert_eq!(stored(&pushes, &fleet, &release).await, expected);
    }

    #[tokio::test]
    async fn a_cancelled_release_stays_cancelled_when_its_build_ends() {
        let dir = tempfile::tempdir().unwrap();
        let pushes = pushes(dir.path()).await;
        let (fleet, release) = release(&pushes).await;
        let target = format!("release({})", release.id);
        pushes.patch(&target, json!({"status": "cancelled"})).await.unwrap();
        assert!(!pushes.finish_release(&fleet, &release, outcome(Status::Success)).await.unwrap());
        let expected = ("cancelled".to_owned(), "Success".to_owned(), false);
        assert_eq!(stored(&pushes, &fleet, &release).await, expected);
    }

    #[tokio::test]
    async fn the_end_of_a_deleted_release_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let pushes = pushes(dir.path()).await;
        let (fleet, release) = release(&pushes).await;
        let target = parse(&format!("release({})", release.id)).unwrap();
        pushes.api.db().delete(&Caller::root(), &target).await.unwrap();
        assert!(!pushes.finish_release(&fleet, &release, outcome(Status::Success)).await.unwrap());
    }
}
