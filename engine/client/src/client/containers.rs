//! `/containers`.

use std::collections::BTreeMap;

use futures_util::stream::BoxStream;

use super::{Client, optional};
use crate::frames::FrameDecoder;
use crate::transport::{Answer, segment};
use crate::wire::{
    ContainerDetails, ContainerSummary, CreateContainer, CreatedContainer, RestartPolicy,
    UpdateContainer, WaitResult,
};
use crate::{Error, LogChunk, LogOptions, RemoveContainer};

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// Not running; at once if it does not run now.
    NotRunning,
    /// The next exit, even if it does not run now.
    NextExit,
    /// Gone.
    Removed,
}

impl Client {
    /// Containers that pass every filter; `all` lists those that do not run too.
    pub async fn list_containers(
        &self,
        all: bool,
        filters: &BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, Error> {
        let mut call = self.get("/containers/json".to_owned()).flag("all", all);
        if !filters.is_empty() {
            call = call.query("filters", filter_text(filters));
        }
        call.send().await?.json().await
    }

    /// One container, by name or id.
    pub async fn inspect_container(&self, id: &str) -> Result<Option<ContainerDetails>, Error> {
        let call = self.get(format!("/containers/{}/json", segment(id)));
        let answer = async { call.send().await?.json().await };
        optional(answer.await)
    }

    /// Makes a container; an empty name lets the engine choose.
    pub async fn create(
        &self,
        name: &str,
        body: &CreateContainer,
    ) -> Result<CreatedContainer, Error> {
        let mut call = self.post("/containers/create".to_owned()).json(body);
        if !name.is_empty() {
            call = call.query("name", name);
        }
        call.send().await?.json().await
    }

    /// Starts a container; one that runs is left alone.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.post(format!("/containers/{}/start", segment(id))).send().await?.done().await
    }

    /// Stops a container; one that does not run is left alone.
    pub async fn stop(&self, id: &str, seconds: Option<i64>) -> Result<(), Error> {
        let mut call = self.post(format!("/containers/{}/stop", segment(id)));
        if let Some(seconds) = seconds {
            call = call.query("t", seconds.to_string());
        }
        call.send().await?.done().await
    }

    /// Sends a signal; empty is SIGKILL.
    pub async fn kill(&self, id: &str, signal: &str) -> Result<(), Error> {
        let mut call = self.post(format!("/containers/{}/kill", segment(id)));
        if !signal.is_empty() {
            call = call.query("signal", signal);
        }
        call.send().await?.done().await
    }

    /// Gives a container another name.
    pub async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let call = self.post(format!("/containers/{}/rename", segment(id))).query("name", name);
        call.send().await?.done().await
    }

    /// Changes the restart policy alone.
    pub async fn update_restart_policy(
        &self,
        id: &str,
        policy: &RestartPolicy,
    ) -> Result<(), Error> {
        let body =
            UpdateContainer { restart_policy: Some(policy.clone()), ..UpdateContainer::default() };
        let call = self.post(format!("/containers/{}/update", segment(id))).json(&body);
        call.send().await?.done().await
    }

    /// Removes a container.
    pub async fn remove(&self, id: &str, options: RemoveContainer) -> Result<(), Error> {
        self.delete(format!("/containers/{}", segment(id)))
            .flag("force", options.force)
            .flag("v", options.volumes)
            .send()
            .await?
            .done()
            .await
    }

    /// Waits; the answer says the exit code. The wait counts from the moment this returns its
    /// first future: the engine has registered it before the answer's head is sent.
    pub async fn wait(&self, id: &str, condition: WaitFor) -> Result<i64, Error> {
        self.begin_wait(id, condition).await?.finish().await
    }

    /// Registers a wait and returns when the engine has it, so that a start afterwards is seen.
    pub async fn begin_wait(&self, id: &str, condition: WaitFor) -> Result<Waiting, Error> {
        let condition = match condition {
            WaitFor::NotRunning => "not-running",
            WaitFor::NextExit => "next-exit",
            WaitFor::Removed => "removed",
        };
        let call =
            self.post(format!("/containers/{}/wait", segment(id))).query("condition", condition);
        Ok(Waiting(call.send().await?))
    }

    /// A container's log. A container with a terminal has one stream without line frames.
    pub async fn read_logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, Error>>, Error> {
        let mut call = self
            .get(format!("/containers/{}/logs", segment(id)))
            .flag("follow", options.follow)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("timestamps", options.timestamps);
        if !options.since.is_empty() {
            call = call.query("since", &options.since);
        }
        if let Some(tail) = options.tail {
            call = call.query("tail", tail.to_string());
        }
        Ok(chunks(call.send().await?))
    }
}

/// A wait that the engine has registered.
pub struct Waiting(Answer);

impl Waiting {
    /// Waits for the end and answers the exit code.
    pub async fn finish(self) -> Result<i64, Error> {
        Ok(self.0.json::<WaitResult>().await?.status_code)
    }
}

/// The output in an answer's body.
pub(super) fn chunks(answer: Answer) -> BoxStream<'static, Result<LogChunk, Error>> {
    let raw = answer.header("content-type") == Some("application/vnd.docker.raw-stream");
    let decoder = if raw { FrameDecoder::raw() } else { FrameDecoder::default() };
    Box::pin(futures_util::stream::try_unfold(
        (answer, decoder),
        async |(mut answer, mut decoder)| {
            loop {
                if let Some(chunk) = decoder.next().map_err(|reason| answer.broken(reason))? {
                    return Ok(Some((chunk, (answer, decoder))));
                }
                match answer.chunk().await? {
                    Some(bytes) => decoder.feed(&bytes),
                    None => return Ok(None),
                }
            }
        },
    ))
}

/// Filters as the API wants them: a JSON object of lists.
pub(super) fn filter_text(filters: &BTreeMap<String, Vec<String>>) -> String {
    serde_json::to_string(filters).unwrap_or_default()
}
