//! What a supervisor needs of an engine.

use std::collections::BTreeMap;

use futures_util::stream::BoxStream;

use crate::wire::{
    ContainerDetails, ContainerSummary, CreateContainer, CreateNetwork, CreateVolume,
    EndpointSettings, Event, ImageDetails, ImageSummary, Info, Network, RegistryAuth,
    RestartPolicy, Volume,
};
use crate::{Error, LogChunk, PullProgress};

/// An image to pull.
#[derive(Debug, Clone, Default)]
pub struct PullImage {
    /// `host/path:tag` or `host/path@sha256:…`.
    pub reference: String,
    /// Who asks; nobody when missing.
    pub auth: Option<RegistryAuth>,
    /// `linux/arm64` and so on; empty is the engine's own.
    pub platform: String,
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveContainer {
    /// Kills it first when it runs.
    pub force: bool,
    /// Also removes the volumes that have no name of their own.
    pub volumes: bool,
}

/// Which lines of a log to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on with new lines until the container ends.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Seconds since 1970 with an optional fraction (`1700000000.5`); empty is from the beginning.
    pub since: String,
    /// Puts the time (RFC 3339, nanoseconds) and a space before each line.
    pub timestamps: bool,
    /// Only the newest lines; `None` is all.
    pub tail: Option<u64>,
}

/// Which events to hear of: values of one key are alternatives, keys are all required.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// `type`, `event`, `container`, `label`, ….
    pub filters: BTreeMap<String, Vec<String>>,
    /// Replays events since this time (seconds since 1970, optional fraction) first.
    pub since: Option<String>,
    /// Ends the stream at this time.
    pub until: Option<String>,
}

/// A container engine, as a supervisor uses it.
///
/// Whatever answers `Option` says `None` for a thing that does not exist; every other call on a
/// missing thing fails with an error that [`Error::is_not_found`].
pub trait Engine: Clone + Send + Sync + 'static {
    /// Facts about the engine and its host.
    fn info(&self) -> impl Future<Output = Result<Info, Error>> + Send;

    /// Every image.
    fn images(&self) -> impl Future<Output = Result<Vec<ImageSummary>, Error>> + Send;
    /// One image, by name or id.
    fn image(&self, name: &str)
    -> impl Future<Output = Result<Option<ImageDetails>, Error>> + Send;
    /// Pulls an image; `progress` hears of every change. Dropping the future stops the pull; what
    /// came so far is kept and a later pull goes on from there.
    fn pull_image(
        &self,
        pull: &PullImage,
        progress: impl FnMut(&PullProgress) + Send,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Gives an image a further name, `host/path:tag`.
    fn tag_image(
        &self,
        name: &str,
        new_name: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Removes a name, or with the last name the image. Refused (409) while a container uses it.
    fn remove_image(
        &self,
        name: &str,
        force: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Every container, running or not, that has all of `labels` (`name` or `name=value`).
    fn containers(
        &self,
        labels: &[String],
    ) -> impl Future<Output = Result<Vec<ContainerSummary>, Error>> + Send;
    /// One container, by name or id.
    fn container(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<ContainerDetails>, Error>> + Send;
    /// Makes a container and answers its id. Refused when the name is taken (409) or the image is
    /// missing (404).
    fn create_container(
        &self,
        name: &str,
        body: &CreateContainer,
    ) -> impl Future<Output = Result<String, Error>> + Send;
    /// Starts a container; one that runs already is left alone.
    fn start_container(&self, id: &str) -> impl Future<Output = Result<(), Error>> + Send;
    /// Stops a container: stop signal, then SIGKILL after `seconds` (`None`: the container's own).
    /// One that has stopped already is left alone.
    fn stop_container(
        &self,
        id: &str,
        seconds: Option<i64>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sends a signal (`SIGTERM`, `9`, …; empty is SIGKILL).
    fn kill_container(
        &self,
        id: &str,
        signal: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Gives a container another name.
    fn rename_container(
        &self,
        id: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Changes when the engine starts a container again.
    fn set_restart_policy(
        &self,
        id: &str,
        policy: &RestartPolicy,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Removes a container.
    fn remove_container(
        &self,
        id: &str,
        options: RemoveContainer,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Waits until the container is not running and answers its exit code.
    fn wait_container(&self, id: &str) -> impl Future<Output = Result<i64, Error>> + Send;
    /// Reads a container's log.
    fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<LogChunk, Error>>, Error>> + Send;

    /// Every network.
    fn networks(&self) -> impl Future<Output = Result<Vec<Network>, Error>> + Send;
    /// One network, by name or id.
    fn network(&self, name: &str) -> impl Future<Output = Result<Option<Network>, Error>> + Send;
    /// Makes a network and answers its id.
    fn create_network(
        &self,
        body: &CreateNetwork,
    ) -> impl Future<Output = Result<String, Error>> + Send;
    /// Removes a network. Refused (403) while containers are in it.
    fn remove_network(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send;
    /// Puts a container into a further network.
    fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: Option<EndpointSettings>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Takes a container out of a network.
    fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Every volume.
    fn volumes(&self) -> impl Future<Output = Result<Vec<Volume>, Error>> + Send;
    /// One volume.
    fn volume(&self, name: &str) -> impl Future<Output = Result<Option<Volume>, Error>> + Send;
    /// Makes a volume; one that exists is left as it is.
    fn create_volume(
        &self,
        body: &CreateVolume,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;
    /// Removes a volume with all it holds. Refused (409) while a container has it.
    fn remove_volume(
        &self,
        name: &str,
        force: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// What happens from now on (or since a given time). Ends when the engine goes away.
    fn events(
        &self,
        filter: &EventFilter,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Event, Error>>, Error>> + Send;
}
