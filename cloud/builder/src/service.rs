//! One service: built or pulled on the worker, then stored in the registry.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use minke_engine_client::wire::{ProgressLine, RegistryAuth};
use minke_engine_client::{BuildImage, Client, PullImage};
use tokio::sync::mpsc;

use crate::builder::Builder;
use crate::context;
use crate::message::{Log, Output};
use crate::ports::{ImageUpdate, Status};
use crate::project::{Planned, Recipe, Source};
use crate::push::{Failure, Usable, now};

/// Lines that may wait for a slow reader; more are left out of what is shown, not of the log.
const WAITING_LINES: usize = 4096;

/// What one service's build needs.
pub(crate) struct Job<'a> {
    pub builder: &'a Builder,
    pub output: &'a Output,
    pub service: &'a Planned,
    /// `v2/<hex>`
    pub repository: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub usable: &'a Usable,
    pub platform: &'a str,
    pub registries: &'a BTreeMap<String, RegistryAuth>,
    pub token: &'a str,
    pub no_cache: bool,
    /// Characters of the longest service name.
    pub width: usize,
}

/// A service whose image is in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub digest: String,
    pub size: u64,
    pub log: String,
    pub dockerfile: Option<String>,
    pub project_type: &'static str,
    pub build_time: Duration,
    pub push_timestamp: i64,
    /// Steps that came from the cache, and all steps.
    pub cached: (usize, usize),
}

impl Built {
    /// What goes on the image's row.
    pub fn update(&self) -> ImageUpdate {
        ImageUpdate {
            status: Status::Success,
            content_hash: Some(self.digest.clone()),
            image_size: Some(self.size),
            dockerfile: self.dockerfile.clone(),
            project_type: Some(self.project_type.to_owned()),
            error_message: None,
            build_log: self.log.clone(),
            push_timestamp: Some(self.push_timestamp),
            end_timestamp: now(),
        }
    }
}

/// Pulls an image for a platform.
pub(crate) async fn pull(
    client: &Client,
    reference: &str,
    platform: &str,
    registries: &BTreeMap<String, RegistryAuth>,
) -> Result<(), minke_engine_client::Error> {
    let host = reference.split('/').next().filter(|h| h.contains(['.', ':']) || *h == "localhost");
    let key = match host {
        Some(host) if reference.contains('/') => host,
        _ => "https://index.docker.io/v1/",
    };
    let pull = PullImage {
        reference: reference.to_owned(),
        auth: registries.get(key).cloned(),
        platform: platform.to_owned(),
    };
    client.pull(&pull, |_| {}).await
}

impl Job<'_> {
    pub async fn run(&self) -> Result<Built, Failure> {
        let _slot = self.builder.slot().await;
        let begun = Instant::now();
        let name = format!("{}/{}:latest", self.builder.registry(), self.repository);
        let (log, cached) = match &self.service.source {
            Source::Build(recipe) => self.build(recipe, &name).await?,
            Source::Image(reference) => self.fetch(reference, &name).await?,
        };
        let build_time = begun.elapsed();
        let digest = self.store(&name).await?;
        let push_timestamp = now();
        let client = self.builder.worker().client();
        let details = client.inspect_image(&name).await.map_err(|e| self.failed(&e))?;
        let size = details.map_or(0, |d| u64::try_from(d.size).unwrap_or(0));
        // The steps' images stay for the next build; the name has done its work.
        if let Err(error) = client.delete_built_image(&name).await {
            tracing::debug!(%error, name, "a pushed name stays on the build engine");
        }
        let (dockerfile, project_type) = match &self.service.source {
            Source::Build(recipe) => (Some(recipe.text.clone()), recipe.project_type),
            Source::Image(_) => (None, "external service"),
        };
        Ok(Built {
            digest,
            size,
            log,
            dockerfile,
            project_type,
            build_time,
            push_timestamp,
            cached,
        })
    }

    fn failed(&self, error: &minke_engine_client::Error) -> Failure {
        match error {
            minke_engine_client::Error::Refused { message, .. } => {
                Failure::Build { service: self.service.name.clone(), message: message.clone() }
            }
            other => {
                let mut text = other.to_string();
                let mut source = std::error::Error::source(other);
                while let Some(cause) = source {
                    text.push_str(&format!(": {cause}"));
                    source = cause.source();
                }
                Failure::Engine(text.into())
            }
        }
    }

    async fn say(&self, text: &str) {
        self.output.service(&self.service.name, self.width, text).await;
    }

    async fn build(
        &self,
        recipe: &Recipe,
        name: &str,
    ) -> Result<(String, (usize, usize)), Failure> {
        let hosts = recipe.build.extra_hosts.iter();
        let request = BuildImage {
            tags: vec![name.to_owned()],
            dockerfile: context::dockerfile_name(recipe),
            build_args: self.args.clone(),
            labels: recipe.build.labels.iter().cloned().collect(),
            target: recipe.build.target.clone().unwrap_or_default(),
            no_cache: self.no_cache,
            platform: self.platform.to_owned(),
            network_mode: recipe.build.network.clone().unwrap_or_default(),
            registries: self.registries.clone(),
            extra_hosts: hosts.map(|(host, address)| format!("{host}:{address}")).collect(),
            shm_size: recipe.build.shm_size.unwrap_or(0),
            memory: i64::try_from(self.builder.limits().step_memory).unwrap_or(0),
            ..BuildImage::default()
        };
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(8);
        let writing = recipe.clone();
        tokio::task::spawn_blocking(move || context::write(&writing, sender));
        let pieces = futures_util::stream::unfold(receiver, async |mut r| {
            r.recv().await.map(|piece| (piece, r))
        });
        let (shown, mut lines) = mpsc::channel::<String>(WAITING_LINES);
        let mut reader = Lines::new(self.builder.limits().log, shown);
        let build = async {
            let client = self.builder.worker().client();
            let result = client.build(&request, pieces.boxed(), |line| reader.take(line)).await;
            reader.end();
            let Lines { log, steps, cached, left_out, shown, .. } = reader;
            drop(shown);
            (result, log, (cached, steps), left_out)
        };
        let show = async {
            while let Some(line) = lines.recv().await {
                self.say(&line).await;
            }
        };
        let ((result, mut log, counts, left_out), ()) = tokio::join!(build, show);
        if left_out > 0 {
            self.say(&format!("[{left_out} lines were not shown; they are in the log]")).await;
        }
        result.map_err(|e| self.failed(&e))?;
        Ok((log.text(), counts))
    }

    async fn fetch(
        &self,
        reference: &str,
        name: &str,
    ) -> Result<(String, (usize, usize)), Failure> {
        // Checking the bases brought it here. Others pull too, and the reference may mean theirs by now.
        let checked = self.usable.get(&(reference.to_owned(), None)).map_or(reference, |id| id);
        let client = self.builder.worker().client();
        client.tag(checked, name).await.map_err(|e| self.failed(&e))?;
        let line = format!("Using image {reference}");
        self.say(&line).await;
        Ok((format!("{line}\n"), (0, 0)))
    }

    async fn store(&self, name: &str) -> Result<String, Failure> {
        self.say("Storing the image").await;
        let auth = RegistryAuth { registrytoken: self.token.to_owned(), ..RegistryAuth::default() };
        let mut digest = None;
        let take = |line: &ProgressLine| {
            if let Some(found) = line.aux.as_ref().and_then(|aux| aux["Digest"].as_str()) {
                digest = Some(found.to_owned());
            }
        };
        let client = self.builder.worker().client();
        client.push(name, &auth, take).await.map_err(|e| self.failed(&e))?;
        digest.ok_or_else(|| {
            Failure::Engine("the engine stored the image but did not say its digest".into())
        })
    }
}

/// Puts the pieces of a build's output together to lines.
struct Lines {
    log: Log,
    partial: String,
    shown: mpsc::Sender<String>,
    left_out: usize,
    steps: usize,
    cached: usize,
}

impl Lines {
    fn new(limit: usize, shown: mpsc::Sender<String>) -> Lines {
        let log = Log::new(limit);
        Lines { log, partial: String::new(), shown, left_out: 0, steps: 0, cached: 0 }
    }

    fn take(&mut self, line: &ProgressLine) {
        if let Some(stream) = &line.stream {
            for part in stream.split_inclusive('\n') {
                self.partial.push_str(part);
                if part.ends_with('\n') || self.partial.len() > 16 << 10 {
                    self.end();
                }
            }
        }
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        self.steps += usize::from(line.starts_with("Step "));
        self.cached += usize::from(line == "---> Using cache" || line == " ---> Using cache");
        self.log.push(line);
        if self.shown.try_send(line.to_owned()).is_err() {
            self.left_out += 1;
        }
    }
}
