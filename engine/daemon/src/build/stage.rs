//! A build and its stages: instruction after instruction, each looked up before it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use minke_common_dockerfile::plan::{self, Base, Origin, Plan};
use minke_common_dockerfile::{Dockerfile, Instruction, parse_instruction};
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::RegistryAuth;
use minke_engine_images::{
    Credentials, Image, ImageConfig, ImageId, Platform, ProgressEvent, PullOptions, Use,
};

use crate::build::cache::Key;
use crate::build::context::Context;
use crate::build::output::Output;
use crate::build::request::BuildRequest;
use crate::build::state::{PROXIES, State};
use crate::build::work::{Builder, Workspace};
use crate::stamp;

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

    fn at(mut self, line: usize) -> Failure {
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

/// One build.
pub(crate) struct Build {
    pub(crate) builder: Builder,
    pub(crate) request: BuildRequest,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) context: Context,
    pub(crate) file: Dockerfile,
    pub(crate) plan: Plan,
    pub(crate) output: Output,
    pub(crate) builtin: BTreeMap<String, String>,
    /// Holders of pins, to let go at the end.
    pub(crate) pins: Mutex<Vec<String>>,
    /// Build arguments that some `ARG` took.
    pub(crate) consumed: Mutex<BTreeSet<String>>,
}

/// A stage being built.
pub(crate) struct Stage<'b> {
    pub(crate) build: &'b Build,
    pub(crate) index: usize,
    pub(crate) state: State,
    /// Stages that are done.
    done: &'b BTreeMap<usize, State>,
}

impl Build {
    /// Builds every needed stage; the id of the target's image.
    pub(crate) async fn run(&self) -> Result<ImageId, Failure> {
        let total: usize =
            self.plan.order.iter().map(|i| 1 + self.file.stages[*i].nodes.len()).sum();
        let mut done: BTreeMap<usize, State> = BTreeMap::new();
        let mut step = 0;
        for index in &self.plan.order {
            let state = self.stage(*index, &done, &mut step, total).await?;
            done.insert(*index, state);
            self.builder.cache.save(&self.builder.store).await;
        }
        self.warn_unconsumed().await;
        let Some(state) = done.remove(&self.plan.target()) else {
            return Err(Failure::text("there is no stage to build"));
        };
        self.finish(state).await
    }

    async fn stage(
        &self,
        index: usize,
        done: &BTreeMap<usize, State>,
        step: &mut usize,
        total: usize,
    ) -> Result<State, Failure> {
        let stage = &self.file.stages[index];
        let line = stage.span.line;
        *step += 1;
        let name = stage.from.name.as_deref().map(|n| format!(" AS {n}")).unwrap_or_default();
        let shown = format!("FROM {}{name}", stage.from.image);
        self.output.text(&format!("Step {step}/{total} : {shown}\n")).await;
        let (mut state, triggers) = self.begin(index, done).await.map_err(|f| f.at(line))?;
        if let Some(failure) = self.pin_state(&state) {
            return Err(failure);
        }
        let short = state.image.map_or_else(|| "scratch".to_owned(), |i| i.hex()[..12].to_owned());
        self.output.text(&format!(" ---> {short}\n")).await;
        state.escape = self.file.escape;
        let mut running = Stage { build: self, index, state, done };
        if !triggers.is_empty() {
            let count = triggers.len();
            self.output.text(&format!("# Executing {count} build triggers\n")).await;
        }
        for trigger in &triggers {
            let instruction = parse_instruction(trigger, '\\')
                .map_err(|e| Failure::text(format!("ONBUILD {trigger}: {e}")).at(line))?;
            running.instruction(&instruction).await.map_err(|f| f.at(line))?;
        }
        for node in &stage.nodes {
            *step += 1;
            self.output.text(&format!("Step {step}/{total} : {}\n", node.text)).await;
            let result = running.instruction(&node.instruction).await;
            result.map_err(|f| f.at(node.span.line))?;
            self.output.text(&format!(" ---> {}\n", running.state.key.short())).await;
        }
        Ok(running.state)
    }

    /// Keeps a stage's image while the build lasts.
    fn pin_state(&self, state: &State) -> Option<Failure> {
        let image = state.image?;
        let holder = format!("build:{}", crate::ids::random());
        let pinned = self.builder.store.pin(&image, &holder, Use::Running);
        if let Ok(mut pins) = self.pins.lock() {
            pins.push(holder);
        }
        pinned.err().map(Failure::from)
    }

    /// What a stage begins with, and the triggers of its base image.
    async fn begin(
        &self,
        index: usize,
        done: &BTreeMap<usize, State>,
    ) -> Result<(State, Vec<String>), Failure> {
        let (base, platform) = &self.plan.bases[index];
        let wanted = match platform {
            Some(text) => Platform::parse(text).ok_or_else(|| {
                Failure::text(format!("`{text}` is no platform; expected os/architecture"))
            })?,
            None => self.request.platform.clone().unwrap_or_else(Platform::host),
        };
        let escape = self.file.escape;
        match base {
            Base::Stage(earlier) => {
                let state = done.get(earlier).ok_or_else(|| Failure::text("a stage is missing"))?;
                let mut state = state.follow();
                let triggers = std::mem::take(&mut state.config.config.on_build);
                Ok((state, triggers))
            }
            Base::Scratch => {
                let config = ImageConfig {
                    architecture: wanted.architecture.clone(),
                    os: wanted.os.clone(),
                    variant: wanted.variant.clone().filter(|_| wanted.architecture == "arm"),
                    ..ImageConfig::default()
                };
                let key = Key::base(None, &wanted.to_string());
                Ok((State::new(config, key, None, escape), Vec::new()))
            }
            Base::Image(name) => {
                let image = self.image(name, &wanted).await?;
                let mut config = ImageConfig::clone(&image.config);
                let triggers = std::mem::take(&mut config.config.on_build);
                let key = Key::base(Some(&image.id), "");
                Ok((State::new(config, key, Some(image.id), escape), triggers))
            }
        }
    }

    /// An image for a platform: the one that is here, or pulled.
    pub(crate) async fn image(&self, name: &str, wanted: &Platform) -> Result<Image, Failure> {
        let asked = self.request.platform.is_some();
        let fits = |image: &Image| {
            let architecture = image.config.architecture.as_str();
            architecture.is_empty() || architecture == wanted.architecture
        };
        if !self.request.pull
            && let Ok(image) = self.builder.store.image(name)
            && (fits(&image) || !asked)
        {
            return Ok(image);
        }
        let reference: ImageReference =
            name.parse().map_err(|e| Failure::text(format!("invalid image name `{name}`: {e}")))?;
        let options = PullOptions {
            auth: self.credentials(&reference),
            platform: Some(wanted.clone()),
            ..PullOptions::clone(&self.builder.pull)
        };
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<ProgressEvent>(64);
        // A slow client misses lines of progress rather than slowing the pull down.
        let progress = move |event| drop(sender.try_send(event));
        let pull = self.builder.store.pull(&reference, &options, progress);
        let show = async {
            while let Some(event) = receiver.recv().await {
                self.output.progress(&event.to_json()).await;
            }
        };
        let (pulled, ()) = tokio::join!(pull, show);
        Ok(self.builder.store.image_by_id(&pulled?)?)
    }

    fn credentials(&self, reference: &ImageReference) -> Option<Credentials> {
        let host = reference.registry();
        let hub = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
        let names: Vec<&str> = if hub[1..].contains(&host) { hub.to_vec() } else { vec![host] };
        let found: &RegistryAuth = names.iter().find_map(|n| self.request.registries.get(*n))?;
        Some(match found {
            auth if !auth.registrytoken.is_empty() => {
                Credentials::RegistryToken(auth.registrytoken.clone())
            }
            auth if !auth.identitytoken.is_empty() => {
                Credentials::IdentityToken(auth.identitytoken.clone())
            }
            auth => Credentials::Basic {
                username: auth.username.clone(),
                password: auth.password.clone(),
            },
        })
    }

    async fn warn_unconsumed(&self) {
        let consumed = self.consumed.lock().map(|c| c.clone()).unwrap_or_default();
        let known = |name: &String| {
            consumed.contains(name)
                || PROXIES.contains(&name.as_str())
                || self.file.global_args.iter().any(|a| a.name == *name)
        };
        let left: Vec<&str> =
            self.request.args.keys().filter(|n| !known(n)).map(String::as_str).collect();
        if !left.is_empty() {
            let list = left.join(" ");
            let text = format!("[Warning] One or more build-args [{list}] were not consumed\n");
            self.output.text(&text).await;
        }
    }

    /// Adds the labels that were asked for, makes the image and names it.
    async fn finish(&self, mut state: State) -> Result<ImageId, Failure> {
        if state.config.history.is_empty() && state.config.rootfs.diff_ids.is_empty() {
            return Err(Failure::text("No image was generated. Is your Dockerfile empty?"));
        }
        if !self.request.labels.is_empty() {
            let labels = self.request.labels.clone();
            state.config.config.labels.extend(labels);
        }
        let store = &self.builder.store;
        let id = store.create_image(&state.config, state.image).await?;
        for tag in &self.request.tags {
            let reference: ImageReference =
                tag.parse().map_err(|e| Failure::text(format!("invalid tag `{tag}`: {e}")))?;
            store.tag(&id, &reference).await?;
        }
        Ok(id)
    }

    /// Runs blocking work; it is told when the build is dropped.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        // The directory stays until the work has let go of it.
        let held = self.workspace.clone();
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(held);
            result
        });
        task.await.map_err(|e| e.to_string())?
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        for holder in self.pins.get_mut().map(std::mem::take).unwrap_or_default() {
            self.builder.store.unpin(&holder);
        }
    }
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
                let state = self
                    .done
                    .get(&stage)
                    .ok_or_else(|| format!("the stage {name} is not built"))?;
                state.config.rootfs.diff_ids.clone()
            }
            Origin::Image(name) => {
                let wanted = self.build.request.platform.clone().unwrap_or_else(Platform::host);
                let image = self.build.image(&name, &wanted).await.map_err(|f| f.message)?;
                image.layers().to_vec()
            }
        };
        let dirs = store.layer_dirs(&layers).map_err(|e| minke_engine_images::chain(&e))?;
        Ok(or_empty(dirs, &self.build.workspace))
    }

    /// Takes a step's result from the cache, if it is there.
    pub(crate) async fn reuse(&mut self, key: &Key, text: &str) -> bool {
        let builder = &self.build.builder;
        let usable = !self.build.request.no_cache && !self.state.missed;
        let entry = if usable { builder.cache.find(key, &builder.store) } else { None };
        let Some(entry) = entry else {
            self.state.missed = true;
            return false;
        };
        let before = self.state.config.rootfs.diff_ids.len();
        if let Some(image) = entry.image {
            let Ok(found) = builder.store.image_by_id(&image) else {
                self.state.missed = true;
                return false;
            };
            self.state.config.rootfs.diff_ids = found.layers().to_vec();
            self.state.image = Some(image);
        }
        let layer = self.state.config.rootfs.diff_ids.len() > before;
        self.state.record(text, &entry.created, layer);
        self.state.key = key.clone();
        self.build.output.text(" ---> Using cache\n").await;
        true
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
        self.state.record(text, &created, layer.is_some());
        if let Some(layer) = &layer {
            self.state.config.rootfs.diff_ids.push(layer.diff_id);
            let image = builder.store.create_image(&self.state.config, self.state.image).await?;
            self.state.image = Some(image);
        }
        builder.cache.put(key.clone(), self.state.image, created);
        self.state.key = key;
        match self.build.pin_state(&self.state) {
            Some(failure) => Err(failure),
            None => Ok(()),
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
                let text = crate::build::config::apply(&mut self.state, other)?;
                let text = text.unwrap_or_default();
                let key = self.state.key.then(&text, &[], b"");
                match self.reuse(&key, &text).await {
                    true => Ok(()),
                    false => self.commit(key, None, &text).await,
                }
            }
        }
    }
}

/// An overlay needs something below.
fn or_empty(dirs: Vec<PathBuf>, workspace: &Workspace) -> Vec<PathBuf> {
    if dirs.is_empty() { vec![workspace.empty()] } else { dirs }
}
