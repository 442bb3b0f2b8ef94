//! A build: its stages side by side, each waiting only for those it takes something from, and what comes
//! of the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::stream::{FuturesUnordered, StreamExt};
use minke_common_dockerfile::plan::{Base, Plan};
use minke_common_dockerfile::{Dockerfile, parse_instruction};
use minke_common_model::image_reference::ImageReference;
use minke_engine_images::{Error, ImageConfig, ImageId, Platform, Use};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::build::bases::Bases;
use crate::build::cache::{Imports, Key};
use crate::build::context::Context;
use crate::build::output::{LaneEnd, Output};
use crate::build::request::BuildRequest;
use crate::build::squash;
use crate::build::stage::{Failure, Stage};
use crate::build::state::{PROXIES, State};
use crate::build::work::{Builder, Workspace};

/// Most steps of one build that work at the same time.
const MAX_WORKING: usize = 4;
/// Most triggers that a base image may have.
const MAX_TRIGGERS: usize = 256;

/// One build: what it is made of, and what comes up while it runs.
pub(crate) struct Build {
    parts: Parts,
    pub(crate) bases: Bases,
    pub(crate) imports: OnceLock<Imports>,
    /// Build arguments that some `ARG` took.
    pub(crate) consumed: Mutex<BTreeSet<String>>,
    /// Holders of pins, to let go at the end.
    pins: Mutex<Vec<String>>,
    /// What each stage came to, for those that wait for it.
    done: Vec<watch::Sender<Option<Arc<State>>>>,
    slots: Semaphore,
}

/// What a build is made of, before it runs.
pub(crate) struct Parts {
    pub(crate) builder: Builder,
    pub(crate) request: BuildRequest,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) context: Context,
    pub(crate) file: Dockerfile,
    pub(crate) plan: Plan,
    pub(crate) output: Output,
    pub(crate) builtin: BTreeMap<String, String>,
}

impl Deref for Build {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Build {
    pub(crate) fn new(parts: Parts) -> Build {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Build {
            done: parts.file.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            slots: Semaphore::new(cores.clamp(2, MAX_WORKING)),
            bases: Bases::default(),
            imports: OnceLock::new(),
            consumed: Mutex::default(),
            pins: Mutex::default(),
            parts,
        }
    }

    /// Builds every needed stage; the id of the target's image.
    pub(crate) async fn run(&self) -> Result<ImageId, Failure> {
        let imports = self.imports().await;
        // Set here only, so it was not set before.
        let _ = self.imports.set(imports);
        let order = &self.plan.order;
        let mut total: usize = order.iter().map(|i| 1 + self.file.stages[*i].nodes.len()).sum();
        total += usize::from(!self.request.labels.is_empty());
        let (mut stages, mut lanes) = (FuturesUnordered::new(), Vec::new());
        let mut first = 0;
        for (nth, index) in order.iter().enumerate() {
            let (output, lane) = self.output.lane(self.workspace.file());
            let stage = self.stage(*index, first, total, output);
            stages.push(async move { stage.await.map_err(|failure| (nth, failure)) });
            lanes.push(lane);
            first += 1 + self.file.stages[*index].nodes.len();
        }
        let last = AtomicUsize::new(usize::MAX);
        let last_shown = &last;
        let work = async move {
            while let Some(result) = stages.next().await {
                if let Err((nth, failure)) = result {
                    last_shown.store(nth, Ordering::Relaxed);
                    // The other stages are dropped here, with their containers.
                    return Err(failure);
                }
                self.builder.cache.save(&self.builder.store).await;
            }
            Ok(())
        };
        let (worked, ()) = tokio::join!(work, self.show(lanes, &last));
        worked?;
        self.warn_unconsumed().await;
        let state = self.result_of(self.plan.target()).await?;
        self.finish(State::clone(&state)).await
    }

    /// Shows what the stages say, in the file's order, up to one that failed.
    async fn show(&self, lanes: Vec<LaneEnd>, last: &AtomicUsize) {
        for (nth, lane) in lanes.into_iter().enumerate() {
            if nth > last.load(Ordering::Relaxed) {
                break;
            }
            self.output.follow(lane).await;
        }
    }

    /// What a stage came to, when it has.
    pub(crate) async fn result_of(&self, index: usize) -> Result<Arc<State>, Failure> {
        if !self.plan.order.contains(&index) {
            let text = format!("stage {index} is not built: no instruction of the file names it");
            return Err(Failure::text(text));
        }
        let mut receiver = self.done[index].subscribe();
        let state = receiver.wait_for(Option::is_some).await;
        let state = state.ok().and_then(|state| state.clone());
        state.ok_or_else(|| Failure::text("a stage ended without a result"))
    }

    /// Leave to work; few steps have it at a time.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.slots.acquire().await.ok()
    }

    async fn stage(
        &self,
        index: usize,
        mut step: usize,
        total: usize,
        output: Output,
    ) -> Result<(), Failure> {
        let stage = &self.file.stages[index];
        let line = stage.span.line;
        step += 1;
        let name = stage.from.name.as_deref().map(|n| format!(" AS {n}")).unwrap_or_default();
        let platform = stage.from.platform.as_deref();
        let platform = platform.map(|p| format!("--platform={p} ")).unwrap_or_default();
        let shown = format!("FROM {platform}{}{name}", stage.from.image);
        output.text(&format!("Step {step}/{total} : {shown}\n")).await;
        let (mut state, triggers) = self.begin(index, &output).await.map_err(|f| f.at(line))?;
        let short = state.image.map_or_else(|| "scratch".to_owned(), |i| i.hex()[..12].to_owned());
        output.text(&format!(" ---> {short}\n")).await;
        state.escape = self.file.escape;
        let mut running = Stage { build: self, index, state, output };
        running.triggers(&triggers).await.map_err(|f| f.at(line))?;
        for node in &stage.nodes {
            step += 1;
            running.output.text(&format!("Step {step}/{total} : {}\n", node.text)).await;
            let result = running.instruction(&node.instruction).await;
            result.map_err(|f| f.at(node.span.line))?;
            running.output.text(&format!(" ---> {}\n", running.state.short_id())).await;
        }
        if index == self.plan.target() && !self.request.labels.is_empty() {
            running.label(total).await?;
        }
        self.done[index].send_replace(Some(Arc::new(running.state)));
        Ok(())
    }

    /// Keeps an image while the build lasts.
    pub(crate) fn pin(&self, image: &ImageId) -> Result<(), Error> {
        let holder = format!("build:{}", crate::ids::random());
        self.builder.store.pin(image, &holder, Use::Running)?;
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).push(holder);
        Ok(())
    }

    /// What a stage begins with, and the triggers of its base image.
    async fn begin(&self, index: usize, output: &Output) -> Result<(State, Vec<String>), Failure> {
        let (base, platform) = &self.plan.bases[index];
        let asked = match platform {
            Some(text) => Some(Platform::parse(text).ok_or_else(|| {
                Failure::text(format!("`{text}` is no platform; expected os/architecture"))
            })?),
            None => self.request.platform.clone(),
        };
        let escape = self.file.escape;
        match base {
            Base::Stage(earlier) => {
                let mut state = self.result_of(*earlier).await?.follow();
                let triggers = std::mem::take(&mut state.config.config.on_build);
                Ok((state, triggers))
            }
            Base::Scratch => {
                let wanted = asked.unwrap_or_else(Platform::host);
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
                let image = self.image(name, asked.as_ref(), output).await?;
                let mut config = ImageConfig::clone(&image.config);
                let triggers = std::mem::take(&mut config.config.on_build);
                let key = Key::base(Some(&image.id), "");
                Ok((State::new(config, key, Some(image.id), escape), triggers))
            }
        }
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

    /// Makes the image and names it.
    async fn finish(&self, mut state: State) -> Result<ImageId, Failure> {
        let steps = state.config.history.len();
        if steps == 0 && state.config.rootfs.diff_ids.is_empty() {
            return Err(Failure::text("No image was generated. Is your Dockerfile empty?"));
        }
        let store = &self.builder.store;
        if self.request.squash {
            squash::squash(self, &mut state).await?;
        }
        let id = match state.base.image.filter(|_| steps == state.base.steps) {
            // Nothing was added, so it is the base itself.
            Some(base) => base,
            None => store.create_image(&state.config, state.image).await?,
        };
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
        let pins = self.pins.get_mut().unwrap_or_else(PoisonError::into_inner);
        for holder in std::mem::take(pins) {
            self.builder.store.unpin(&holder);
        }
    }
}

impl Stage<'_> {
    /// Carries out what a base image left for those who build on it.
    async fn triggers(&mut self, triggers: &[String]) -> Result<(), Failure> {
        if triggers.is_empty() {
            return Ok(());
        }
        let count = triggers.len();
        if count > MAX_TRIGGERS {
            let text = format!("the base image has {count} triggers; the limit is {MAX_TRIGGERS}");
            return Err(Failure::text(text));
        }
        let word = if count == 1 { "trigger" } else { "triggers" };
        self.output.text(&format!("# Executing {count} build {word}\n")).await;
        for trigger in triggers {
            let instruction = parse_instruction(trigger, '\\')
                .map_err(|e| Failure::text(format!("ONBUILD {trigger}: {e}")))?;
            self.instruction(&instruction).await?;
        }
        Ok(())
    }
}
