//! An engine in memory, for tests of whoever drives one.
//!
//! It keeps images, containers, networks and volumes, and refuses what a real engine refuses (a
//! name that is taken, an image that is missing or in use, a network with members, …) with the same
//! status. Its world is driven from outside: [`FakeEngine::offer_image`] puts an image where it can
//! be pulled, [`FakeEngine::exit`] ends a container, [`FakeEngine::say`] writes to its log,
//! [`FakeEngine::inject`] makes coming calls fail.

mod rules;
mod world;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;

use crate::wire::{
    ContainerConfig, ContainerDetails, ContainerSummary, CreateContainer, CreateNetwork,
    CreateVolume, EndpointSettings, Event, ImageDetails, ImageSummary, Info, Network, ProgressLine,
    RestartPolicy, Volume,
};
use crate::{
    Engine, Error, EventFilter, LogChunk, LogOptions, LogSource, PullImage, PullProgress,
    RemoveContainer,
};
use world::World;

/// How an injected fault shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeFault {
    /// The engine is not there.
    Unreachable,
    /// The call is refused with this status and message.
    Refused(u16, String),
    /// The call takes effect, but its answer is lost.
    AnswerLost,
}

/// An engine in memory. Clones share one world.
#[derive(Debug, Clone)]
pub struct FakeEngine {
    world: Arc<Mutex<World>>,
    faults: Arc<Mutex<VecDeque<Option<FakeFault>>>>,
    events: broadcast::Sender<Event>,
    lines: broadcast::Sender<(String, LogChunk)>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeEngine {
    /// An empty engine with Docker's three built-in networks.
    pub fn new() -> FakeEngine {
        FakeEngine {
            world: Arc::default(),
            faults: Arc::default(),
            events: broadcast::channel(1024).0,
            lines: broadcast::channel(1024).0,
        }
    }

    /// Makes an image available to pulls under `reference` (with its layers' sizes in bytes).
    pub fn offer_image(&self, reference: &str, config: ContainerConfig, layers: &[u64]) {
        self.lock().offer(reference, config, layers);
    }

    /// Takes an image away from pulls, as a registry that lost it or is out of reach.
    pub fn withdraw_image(&self, reference: &str) {
        self.lock().offered.remove(reference);
    }

    /// The coming calls fail like this, one entry a call; `None` lets a call through.
    pub fn inject(&self, faults: impl IntoIterator<Item = Option<FakeFault>>) {
        self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(faults);
    }

    /// Takes back every fault that no call has met yet.
    pub fn calm(&self) {
        self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    /// Ends a running container with this code; the restart policy may start it again.
    pub fn exit(&self, id: &str, code: i64) {
        self.change(|world, events| world.exit(id, code, events));
    }

    /// Sets what a container's health check finds: `starting`, `healthy` or `unhealthy`.
    pub fn set_health(&self, id: &str, status: &str) {
        self.change(|world, events| world.set_health(id, status, events));
    }

    /// Writes a line to a container's log.
    pub fn say(&self, id: &str, source: LogSource, line: &str) {
        if let Some(said) = self.change(|world, _| world.say(id, source, line)) {
            // Nobody following is fine.
            let _ = self.lines.send(said);
        }
    }

    /// Every call that took effect so far, as `verb name`, oldest first.
    pub fn history(&self) -> Vec<String> {
        self.lock().history.clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the world, then tells what happened.
    fn change<T>(&self, act: impl FnOnce(&mut World, &mut Vec<Event>) -> T) -> T {
        let mut events = Vec::new();
        let result = act(&mut self.lock(), &mut events);
        for event in events {
            // Nobody listening is fine.
            let _ = self.events.send(event);
        }
        result
    }

    /// One call: an injected fault, or `act`.
    async fn call<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut World, &mut Vec<Event>) -> Result<T, (u16, String)>,
    ) -> Result<T, Error> {
        tokio::task::yield_now().await;
        let fault = self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
        let refused = |(status, message)| Error::Refused { call: name.to_owned(), status, message };
        match fault.flatten() {
            None => self.change(act).map_err(refused),
            Some(FakeFault::Refused(status, message)) => Err(refused((status, message))),
            Some(FakeFault::Unreachable) => Err(Error::Unreachable {
                socket: "/fake".into(),
                source: std::io::ErrorKind::ConnectionRefused.into(),
            }),
            Some(FakeFault::AnswerLost) => {
                self.change(act).map_err(refused)?;
                Err(Error::Broken { call: name.to_owned(), source: "the answer is lost".into() })
            }
        }
    }
}

/// `None` for a thing that does not exist.
fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Engine for FakeEngine {
    async fn info(&self) -> Result<Info, Error> {
        self.call("info", |world, _| Ok(world.info())).await
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        self.call("images", |world, _| Ok(world.image_list())).await
    }

    async fn image(&self, name: &str) -> Result<Option<ImageDetails>, Error> {
        optional(self.call("image", |world, _| world.find_image(name).cloned()).await)
    }

    async fn pull_image(
        &self,
        pull: &PullImage,
        mut progress: impl FnMut(&PullProgress) + Send,
    ) -> Result<(), Error> {
        let mut state = PullProgress::default();
        let lines: Vec<ProgressLine> =
            self.call("pull", |world, _| world.pull_lines(&pull.reference)).await?;
        for line in lines {
            tokio::task::yield_now().await;
            state.update(&line);
            progress(&state);
        }
        self.call("pull", |world, events| world.pull(&pull.reference, events)).await
    }

    async fn tag_image(&self, name: &str, new_name: &str) -> Result<(), Error> {
        self.call("tag", |world, events| world.tag(name, new_name, events)).await
    }

    async fn remove_image(&self, name: &str, force: bool) -> Result<(), Error> {
        self.call("remove image", |world, events| world.remove_image(name, force, events)).await
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, Error> {
        self.call("containers", |world, _| Ok(world.container_list(labels))).await
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerDetails>, Error> {
        let find = |world: &mut World, _: &mut Vec<Event>| {
            world.find_container(id).map(|container| container.details.clone())
        };
        optional(self.call("container", find).await)
    }

    async fn create_container(&self, name: &str, body: &CreateContainer) -> Result<String, Error> {
        self.call("create", |world, events| world.create(name, body, events)).await
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.call("start", |world, events| world.start(id, events)).await
    }

    async fn stop_container(&self, id: &str, _seconds: Option<i64>) -> Result<(), Error> {
        self.call("stop", |world, events| world.stop(id, events)).await
    }

    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), Error> {
        self.call("kill", |world, events| world.kill(id, signal, events)).await
    }

    async fn rename_container(&self, id: &str, name: &str) -> Result<(), Error> {
        self.call("rename", |world, events| world.rename(id, name, events)).await
    }

    async fn set_restart_policy(&self, id: &str, policy: &RestartPolicy) -> Result<(), Error> {
        self.call("update", |world, _| world.set_restart_policy(id, policy)).await
    }

    async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<(), Error> {
        self.call("remove", |world, events| world.remove(id, options, events)).await
    }

    async fn wait_container(&self, id: &str) -> Result<i64, Error> {
        let mut events = self.events.subscribe();
        loop {
            let state = self
                .call("wait", |world, _| {
                    world.find_container(id).map(|found| found.details.state.clone())
                })
                .await?;
            if !state.running {
                return Ok(state.exit_code);
            }
            // A missed event only means looking again.
            let _ = events.recv().await;
        }
    }

    async fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, Error>>, Error> {
        let (lines, events) = (self.lines.subscribe(), self.events.subscribe());
        let (id, running, chunks) = self
            .call("logs", |world, _| {
                let details = &world.find_container(id)?.details;
                Ok((details.id.clone(), details.state.running, world.log(id, options)?))
            })
            .await?;
        let follow = world::Follow {
            id,
            options: options.clone(),
            pending: chunks.into(),
            lines,
            events,
            running: running && options.follow,
        };
        Ok(futures_util::stream::unfold(follow, world::Follow::next).boxed())
    }

    async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.call("networks", |world, _| Ok(world.networks.clone())).await
    }

    async fn network(&self, name: &str) -> Result<Option<Network>, Error> {
        optional(self.call("network", |world, _| world.find_network(name).cloned()).await)
    }

    async fn create_network(&self, body: &CreateNetwork) -> Result<String, Error> {
        self.call("create network", |world, events| world.create_network(body, events)).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        self.call("remove network", |world, events| world.remove_network(name, events)).await
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: Option<EndpointSettings>,
    ) -> Result<(), Error> {
        self.call("connect", |world, _| world.connect(network, container, endpoint)).await
    }

    async fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), Error> {
        self.call("disconnect", |world, _| world.disconnect(network, container, force)).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.call("volumes", |world, _| Ok(world.volumes.values().cloned().collect())).await
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, Error> {
        optional(self.call("volume", |world, _| world.find_volume(name)).await)
    }

    async fn create_volume(&self, body: &CreateVolume) -> Result<Volume, Error> {
        self.call("create volume", |world, events| Ok(world.create_volume(body, events))).await
    }

    async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        self.call("remove volume", |world, events| world.remove_volume(name, force, events)).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
    ) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        let receiver = self.events.subscribe();
        self.call("events", |_, _| Ok(())).await?;
        let filter = filter.clone();
        Ok(futures_util::stream::unfold((receiver, filter), async |(mut receiver, filter)| {
            loop {
                match receiver.recv().await {
                    Ok(event) if world::passes(&filter, &event) => {
                        return Some((Ok(event), (receiver, filter)));
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed())
    }
}

#[cfg(test)]
mod tests;
