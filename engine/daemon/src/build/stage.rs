//! A stage of a build: instruction after instruction, each looked up before it is carried out.

use std::path::{Path, PathBuf};

use minke_common_dockerfile::Instruction;
use minke_common_dockerfile::plan::{self, Origin};
use minke_engine_images::DiffId;

use crate::build::cache::Key;
use crate::build::config::{self, Said};
use crate::build::output::Output;
use crate::build::stages::Build;
use crate::build::state::State;
use crate::build::work::Workspace;
use crate::stamp;

/// Most layers of an image: what Docker's own engines take.
const MAX_LAYERS: usize = 125;

/// Why a build failed; the text is for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Exit code of a `RUN`.
    pub(crate) code: Option<i32>,
}

impl Failure {
    pub(crate) fn text(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: None }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
        move |error| Failure::text(format!("{doing}: {error}"))
    }

    /// With the line that it happened at.
    pub(crate) fn at(mut self, line: usize) -> Failure {
        self.message = format!("{} (Dockerfile line {line})", self.message);
        self
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::text(message)
    }
}

impl From<minke_engine_images::Error> for Failure {
    fn from(error: minke_engine_images::Error) -> Failure {
        Failure::text(minke_engine_images::chain(&error))
    }
}

/// A stage being built.
pub(crate) struct Stage<'b> {
    pub(crate) build: &'b Build,
    pub(crate) index: usize,
    pub(crate) state: State,
    /// Where it speaks.
    pub(crate) output: Output,
}

impl Stage<'_> {
    /// Overlay lower directories of the stage so far, top first.
    pub(crate) fn lower(&self) -> Result<Vec<PathBuf>, Failure> {
        let dirs = self.build.builder.store.layer_dirs(&self.state.config.rootfs.diff_ids)?;
        Ok(or_empty(dirs, &self.build.workspace))
    }

    /// The same of a stage or image that `--from` names.
    pub(crate) async fn layers_of(&self, name: &str) -> Result<Vec<PathBuf>, String> {
        let store = &self.build.builder.store;
        let layers = match plan::origin(&self.build.file, self.index, name) {
            Origin::Stage(stage) => {
                let state = self.build.result_of(stage).await.map_err(|f| f.message)?;
                state.config.rootfs.diff_ids.clone()
            }
            Origin::Image(name) => {
                let platform = self.build.request.platform.as_ref();
                let image = self.build.image(&name, platform, &self.output).await;
                image.map_err(|f| f.message)?.layers().to_vec()
            }
        };
        let dirs = store.layer_dirs(&layers).map_err(|e| minke_engine_images::chain(&e))?;
        Ok(or_empty(dirs, &self.build.workspace))
    }

    /// Takes a step's result from the cache, if it is there.
    pub(crate) async fn reuse(&mut self, key: &Key, text: &str) -> Result<bool, Failure> {
        let usable = !self.build.request.no_cache && !self.state.missed;
        let found = if usable { self.known(key) } else { None };
        let Some((created, layers)) = found else {
            self.state.missed = true;
            return Ok(false);
        };
        self.take(key, text, &created, layers).await?;
        Ok(true)
    }

    /// When a step was made and the layers after it, by this engine or by whoever made an image that
    /// `--cache-from` names.
    fn known(&self, key: &Key) -> Option<(String, Vec<DiffId>)> {
        let builder = &self.build.builder;
        let before = &self.state.config.rootfs.diff_ids;
        let imports = self.build.imports.get()?;
        // As in Docker: who names images wants the steps of these and no others.
        let own = self.build.request.cache_from.is_empty() || imports.knows(key);
        if own && let Some(entry) = builder.cache.find(key, &builder.store) {
            let layers = match &entry.image {
                Some(image) => builder.store.image_by_id(image).ok()?.layers().to_vec(),
                None => before.clone(),
            };
            return Some((entry.created, layers));
        }
        let import = imports.find(key, before)?;
        Some((import.created.clone(), import.layers.clone()))
    }

    /// Takes over a step that was made before.
    async fn take(
        &mut self,
        key: &Key,
        text: &str,
        created: &str,
        layers: Vec<DiffId>,
    ) -> Result<(), Failure> {
        let more = layers.len() > self.state.config.rootfs.diff_ids.len();
        self.state.config.rootfs.diff_ids = layers;
        self.state.record(text, created, more, key);
        self.state.key = key.clone();
        if more {
            self.image().await?;
        }
        self.output.text(" ---> Using cache\n").await;
        Ok(())
    }

    /// Makes the image of the stage so far, which keeps its layers.
    async fn image(&mut self) -> Result<(), Failure> {
        let store = &self.build.builder.store;
        let image = store.create_image(&self.state.config, self.state.image).await?;
        self.state.image = Some(image);
        Ok(self.build.pin(&image)?)
    }

    /// Ends a step: its layer (if it made one), its place in the history, the cache.
    pub(crate) async fn commit(
        &mut self,
        key: Key,
        upper: Option<&Path>,
        text: &str,
    ) -> Result<(), Failure> {
        let builder = &self.build.builder;
        let created = stamp::rfc3339(stamp::now());
        let layer = match upper {
            Some(upper) => Some(builder.store.commit_layer(upper).await?).filter(|l| !l.is_empty),
            None => None,
        };
        if layer.is_some() && self.state.config.rootfs.diff_ids.len() >= MAX_LAYERS {
            let text = format!("more than {MAX_LAYERS} layers; that is the limit");
            return Err(Failure::text(text));
        }
        self.state.record(text, &created, layer.is_some(), &key);
        if let Some(layer) = &layer {
            self.state.config.rootfs.diff_ids.push(layer.diff_id);
            self.image().await?;
        }
        builder.cache.put(key.clone(), text, self.state.image, created);
        self.state.key = key;
        Ok(())
    }

    /// A layer that depends on nothing below it (`COPY --link`), made before on whatever base.
    pub(crate) async fn reuse_linked(
        &mut self,
        link: &Key,
        key: &Key,
        text: &str,
    ) -> Result<bool, Failure> {
        let builder = &self.build.builder;
        let usable = !self.build.request.no_cache;
        let entry = if usable { builder.cache.find(link, &builder.store) } else { None };
        let Some(entry) = entry else { return Ok(false) };
        let image = entry.image.and_then(|image| builder.store.image_by_id(&image).ok());
        let Some(image) = image else { return Ok(false) };
        let mut layers = self.state.config.rootfs.diff_ids.clone();
        layers.extend_from_slice(image.layers());
        self.take(key, text, &entry.created, layers).await?;
        builder.cache.put(key.clone(), text, self.state.image, entry.created);
        Ok(true)
    }

    /// Remembers the newest layer as one that depends on nothing below it.
    pub(crate) async fn remember_linked(&self, link: Key) -> Result<(), Failure> {
        let builder = &self.build.builder;
        let state = &self.state;
        let Some(layer) = state.config.rootfs.diff_ids.last() else { return Ok(()) };
        let mut alone = minke_engine_images::ImageConfig {
            architecture: state.config.architecture.clone(),
            os: state.config.os.clone(),
            created: state.config.created.clone(),
            ..Default::default()
        };
        alone.rootfs.diff_ids.push(*layer);
        let image = builder.store.create_image(&alone, None).await?;
        let created = state.config.created.clone().unwrap_or_default();
        builder.cache.put(link, "the layer of COPY --link alone", Some(image), created);
        Ok(())
    }

    /// The labels that a client asks for are one more step.
    pub(crate) async fn label(&mut self, nth: usize) -> Result<(), Failure> {
        let labels = &self.build.request.labels;
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k:?}={v:?}")).collect();
        let text = format!("LABEL {}", pairs.join(" "));
        self.output.text(&format!("Step {nth}/{nth} : {text}\n")).await;
        self.state.config.config.labels.extend(labels.clone());
        self.configured(Said::plain(text)).await?;
        self.output.text(&format!(" ---> {}\n", self.state.short_id())).await;
        Ok(())
    }

    /// Ends a step that changed only the configuration.
    async fn configured(&mut self, said: Said) -> Result<(), Failure> {
        let Said { text, values } = said;
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let key = self.state.key.then(&text, &values, b"");
        match self.reuse(&key, &text).await? {
            true => Ok(()),
            false => self.commit(key, None, &text).await,
        }
    }

    /// Carries out one instruction.
    pub(crate) async fn instruction(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        match instruction {
            Instruction::Run(run) => self.run(run).await,
            Instruction::Copy(add) => self.copy(add, false).await,
            Instruction::Add(add) => self.copy(add, true).await,
            Instruction::Workdir(path) => self.workdir(path).await,
            Instruction::Arg(args) => self.arguments(args),
            other => {
                let said = config::apply(&mut self.state, other)?.unwrap_or_default();
                self.configured(said).await
            }
        }
    }
}

/// An overlay needs something below.
fn or_empty(dirs: Vec<PathBuf>, workspace: &Workspace) -> Vec<PathBuf> {
    if dirs.is_empty() { vec![workspace.empty()] } else { dirs }
}
