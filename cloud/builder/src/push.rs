//! One push, from unpacked project to release.
//!
//! ```text
//!   project ─> check files ─> check base images ─> release row ─> build each ─> store each ─> final
//!      └─ refused: nothing was recorded ──┘             └─ failed/cancelled: written on the rows
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use minke_engine_client::wire::RegistryAuth;
use serde_json::json;

use crate::bases::{self, BaseImage, Processor};
use crate::builder::Builder;
use crate::message::Output;
use crate::ports::{
    Fleet, ImageRow, ImageUpdate, NewImage, NewRelease, Outcome, ReleaseError, ReleaseRow, Status,
};
use crate::project::{self, Project, ProjectError, Source, Variables, Wishes};
use crate::report;
use crate::secrets;
use crate::service::{self, Built, Job};

/// What the caller asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub dockerfile: String,
    pub no_cache: bool,
    pub draft: bool,
}

/// Why a push ended without a release; the text is for the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error("{0}")]
    Base(String),
    #[error("{service}: {message}")]
    Build { service: String, message: String },
    #[error("recording the release")]
    Release(#[from] ReleaseError),
    #[error("the build engine cannot be used")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the build took longer than {0:?}; that is the limit")]
    TooLong(Duration),
    #[error("the push was cancelled")]
    Cancelled,
}

impl Failure {
    fn status(&self) -> Status {
        match self {
            Failure::Cancelled => Status::Cancelled,
            Failure::Release(_) | Failure::Engine(_) => Status::Error,
            _ => Status::Failed,
        }
    }

    /// The error with its causes.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Ids of images that this push may use, by reference and platform.
pub(crate) type Usable = BTreeMap<(String, Option<String>), String>;

/// Rows that exist, so that an end at any point can be written on them.
#[derive(Default)]
pub(crate) struct Record {
    release: Option<ReleaseRow>,
    /// Image rows whose build has not ended.
    open: BTreeMap<String, ImageRow>,
}

/// One push.
pub(crate) struct Push {
    pub builder: Builder,
    pub fleet: Fleet,
    pub asked: Asked,
    pub output: Output,
    pub record: Arc<Mutex<Record>>,
    /// Told the release's id once there is one.
    pub started: Mutex<Option<tokio::sync::oneshot::Sender<i64>>>,
    /// How long receiving took.
    pub received: Duration,
}

impl Push {
    /// Runs to the end and writes the end down. Returns whether there is a new release.
    pub async fn run(self, root: &Path) -> Result<(), String> {
        let limit = self.builder.limits().build;
        let work = tokio::time::timeout(limit, self.work(root));
        let result = tokio::select! {
            // All three only wait; dropping `work` cancels builds and their requests.
            result = work => result.unwrap_or(Err(Failure::TooLong(limit))),
            () = self.output.closed() => Err(Failure::Cancelled),
            () = self.cancelled_elsewhere() => Err(Failure::Cancelled),
        };
        let Err(failure) = result else { return Ok(()) };
        let text = failure.text();
        if !matches!(failure, Failure::Cancelled) {
            tracing::info!(fleet = %self.fleet.slug, %text, "a push failed");
        }
        self.output.error(&text).await;
        self.write_failure(&failure, &text).await;
        Err(text)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when somebody cancels the release through the API.
    async fn cancelled_elsewhere(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let release = self.record().release.clone();
            if let Some(release) = release
                && matches!(self.builder.releases().is_cancelled(&release).await, Ok(true))
            {
                return;
            }
        }
    }

    async fn write_failure(&self, failure: &Failure, text: &str) {
        let record = std::mem::take(&mut *self.record());
        let Some(release) = record.release else { return };
        let failed = match failure {
            Failure::Build { service, .. } => Some(service.as_str()),
            _ => None,
        };
        for (service, image) in &record.open {
            // One failing service ends the others, which did not fail themselves.
            let own = failed.is_none_or(|f| f == service);
            let update = ImageUpdate {
                status: if own { failure.status() } else { Status::Cancelled },
                content_hash: None,
                image_size: None,
                dockerfile: None,
                project_type: None,
                error_message: own.then(|| text.chars().take(100_000).collect()),
                build_log: self.output.log(),
                push_timestamp: None,
                end_timestamp: now(),
            };
            if let Err(error) = self.builder.releases().update_image(image, update).await {
                tracing::error!(%error, image = image.id, "an image's failure was not recorded");
            }
        }
        let outcome = Outcome {
            status: failure.status(),
            build_log: self.output.log(),
            end_timestamp: now(),
        };
        let releases = self.builder.releases();
        if let Err(error) = releases.finish_release(&self.fleet, &release, outcome).await {
            tracing::error!(%error, release = release.id, "a release's failure was not recorded");
        }
    }

    async fn work(&self, root: &Path) -> Result<(), Failure> {
        let begun = Instant::now();
        let output = &self.output;
        let commit = commit();
        let wishes = Wishes { dockerfile: self.asked.dockerfile.clone(), commit: commit.clone() };
        let registries = secrets::take(root)?;
        let project = project::read(root, &self.fleet, &wishes)?;
        let variables = project::build_variables(root)?;
        output
            .info(format!(
                "Project: {}, {}",
                project.kind,
                plural(project.services.len(), "service")
            ))
            .await;
        for warning in &project.warnings {
            output.warning(warning).await;
        }
        let processor = Processor::of_slug(&self.fleet.architecture).ok_or_else(|| {
            Failure::Base(format!(
                "no images exist for the architecture {}",
                self.fleet.architecture
            ))
        })?;
        let engine = |e: crate::worker::WorkerError| Failure::Engine(e.into());
        self.builder.worker().ready(Duration::from_secs(30)).await.map_err(engine)?;
        let args = self.arguments(&project, &variables);
        let usable = self.check_bases(&project, &args, &processor, &registries).await?;
        let checked = begun.elapsed();

        let (release, images) = self.begin(&commit, &project).await?;
        let building = Instant::now();
        let built = self.build(&project, &images, &args, &usable, &processor, &registries);
        let built = built.await?;
        let outcome =
            Outcome { status: Status::Success, build_log: output.log(), end_timestamp: now() };
        // Between two looks of `cancelled_elsewhere` somebody may have had the answer that it is.
        if !self.builder.releases().finish_release(&self.fleet, &release, outcome).await? {
            return Err(Failure::Cancelled);
        }
        self.record().release = None;
        self.report(&release, &built, checked, building).await;
        Ok(())
    }

    /// Build arguments of each service; what is nearer to the service wins.
    fn arguments(
        &self,
        project: &Project,
        variables: &Variables,
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut out = BTreeMap::new();
        for service in &project.services {
            let mut own: BTreeMap<String, String> =
                self.fleet.build_variables.iter().cloned().collect();
            for key in [None, Some(service.name.clone())] {
                own.extend(variables.get(&key).into_iter().flatten().cloned());
            }
            if let Source::Build(recipe) = &service.source {
                own.extend(recipe.build.args.iter().cloned());
            }
            out.insert(service.name.clone(), own);
        }
        out
    }

    async fn check_bases(
        &self,
        project: &Project,
        args: &BTreeMap<String, BTreeMap<String, String>>,
        processor: &Processor,
        registries: &BTreeMap<String, RegistryAuth>,
    ) -> Result<Usable, Failure> {
        let mut usable = Usable::new();
        for service in &project.services {
            let own = args.get(&service.name).cloned().unwrap_or_default();
            let found = match &service.source {
                Source::Build(recipe) => bases::of_recipe(recipe, &own, processor)?,
                Source::Image(reference) => vec![BaseImage {
                    reference: reference.clone(),
                    platform: None,
                    place: format!("service {}", service.name),
                }],
            };
            for base in found {
                let key = (base.reference.clone(), base.platform.clone());
                if let Entry::Vacant(place) = usable.entry(key) {
                    place.insert(self.check_base(&base, processor, registries).await?);
                }
            }
        }
        Ok(usable)
    }

    /// Makes sure that an image is on the worker, is for the right processor, and that the caller may have
    /// it: of one that somebody else brought there with credentials the registry decides.
    async fn check_base(
        &self,
        base: &BaseImage,
        processor: &Processor,
        registries: &BTreeMap<String, RegistryAuth>,
    ) -> Result<String, Failure> {
        let client = self.builder.worker().client();
        let look = || client.inspect_image(&base.reference);
        let engine = |e: minke_engine_client::Error| Failure::Engine(e.into());
        let fits = |i: &minke_engine_client::wire::ImageDetails| {
            base.platform.is_some() || processor.runs(&i.architecture, &i.variant)
        };
        let here = if self.asked.no_cache { None } else { look().await.map_err(engine)? };
        if let Some(image) = here.filter(|image| fits(image) && !image.private) {
            return Ok(image.id);
        }
        self.output.info(format!("Pulling base image {}", base.reference)).await;
        let platform = base.platform.clone().unwrap_or_else(|| processor.platform.to_owned());
        let pulled = service::pull(client, &base.reference, &platform, registries).await;
        pulled.map_err(|error| {
            let reason = match error {
                minke_engine_client::Error::Refused { message, .. } => message,
                other => other.to_string(),
            };
            Failure::Base(bases::unavailable(base, &platform, &reason, &self.fleet, processor))
        })?;
        match look().await.map_err(engine)? {
            Some(image) if fits(&image) => Ok(image.id),
            Some(image) => {
                let variant = if image.variant.is_empty() { "" } else { "/" };
                let has = format!("{}/{}{variant}{}", image.os, image.architecture, image.variant);
                Err(Failure::Base(bases::mismatch(base, &has, &self.fleet, processor)))
            }
            None => Err(Failure::Base(format!(
                "{}: the image `{}` was pulled but is gone",
                base.place, base.reference
            ))),
        }
    }

    async fn begin(
        &self,
        commit: &str,
        project: &Project,
    ) -> Result<(ReleaseRow, BTreeMap<String, ImageRow>), Failure> {
        let releases = self.builder.releases();
        let new = NewRelease {
            commit: commit.to_owned(),
            composition: project.composition.to_json(),
            is_final: !self.asked.draft,
            semver: project.semver.clone(),
            contract: project.contract.clone(),
            start_timestamp: now(),
        };
        let release = releases.create_release(&self.fleet, new).await?;
        self.record().release = Some(release.clone());
        self.output.metadata("buildLogId", json!(release.id)).await;
        if let Some(started) = self.started.lock().ok().and_then(|mut s| s.take()) {
            let _ = started.send(release.id);
        }
        self.output.info(format!("Release {} (id {})", release.commit, release.id)).await;
        let mut images = BTreeMap::new();
        for service in &project.services {
            let new = NewImage {
                service: service.name.clone(),
                labels: service.labels.clone(),
                environment: service.environment.clone(),
                start_timestamp: now(),
            };
            let image = releases.create_image(&self.fleet, &release, new).await?;
            self.record().open.insert(service.name.clone(), image.clone());
            images.insert(service.name.clone(), image);
        }
        Ok((release, images))
    }

    async fn build(
        &self,
        project: &Project,
        images: &BTreeMap<String, ImageRow>,
        args: &BTreeMap<String, BTreeMap<String, String>>,
        usable: &Usable,
        processor: &Processor,
        registries: &BTreeMap<String, RegistryAuth>,
    ) -> Result<Vec<(String, Built)>, Failure> {
        let repositories: Vec<String> = images.values().map(|i| i.location.clone()).collect();
        let token = self.builder.releases().registry_token(&repositories).await?;
        let width = project.services.iter().map(|s| s.name.len()).max().unwrap_or(4);
        let jobs = project.services.iter().filter_map(|service| {
            let row = images.get(&service.name)?;
            let job = Job {
                builder: &self.builder,
                output: &self.output,
                service,
                repository: &row.location,
                args: args.get(&service.name)?,
                usable,
                platform: processor.platform,
                registries,
                token: &token,
                no_cache: self.asked.no_cache,
                width,
            };
            Some(async move {
                let built = job.run().await?;
                let update = built.update();
                self.builder.releases().update_image(row, update).await?;
                self.record().open.remove(&service.name);
                Ok::<_, Failure>((service.name.clone(), built))
            })
        });
        futures_util::future::try_join_all(jobs).await
    }

    async fn report(
        &self,
        release: &ReleaseRow,
        built: &[(String, Built)],
        checked: Duration,
        building: Instant,
    ) {
        let total = building.elapsed();
        let longest_build = built.iter().map(|(_, b)| b.build_time).max().unwrap_or_default();
        let store = total.saturating_sub(longest_build);
        let output = &self.output;
        for line in report::table(built) {
            output.info(line).await;
        }
        let seconds = |d: Duration| format!("{:.1} s", d.as_secs_f64());
        output
            .info(format!(
                "Stages: receive {}, check {}, build {}, store {}",
                seconds(self.received),
                seconds(checked),
                seconds(longest_build),
                seconds(store)
            ))
            .await;
        let milliseconds = |d: Duration| d.as_millis() as u64;
        let timings = json!({
            "receive_ms": milliseconds(self.received),
            "check_ms": milliseconds(checked),
            "build_ms": milliseconds(longest_build),
            "store_ms": milliseconds(store),
        });
        output.metadata("timings", timings).await;
        output.success(format!("Release {} of {} is ready", release.commit, self.fleet.slug)).await;
        for line in report::WHALE.lines() {
            output.plain(line).await;
        }
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// 32 random hexadecimal digits.
fn commit() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
