//! [`Engine`] over the API.

use std::collections::BTreeMap;

use futures_util::stream::BoxStream;

use super::{Client, WaitFor};
use crate::wire::{
    ContainerDetails, ContainerSummary, CreateContainer, CreateNetwork, CreateVolume,
    EndpointSettings, Event, ImageDetails, ImageSummary, Info, Network, RestartPolicy, Volume,
};
use crate::{
    Engine, Error, EventFilter, LogChunk, LogOptions, PullImage, PullProgress, RemoveContainer,
};

impl Engine for Client {
    async fn info(&self) -> Result<Info, Error> {
        self.system_info().await
    }

    async fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        self.list_images().await
    }

    async fn image(&self, name: &str) -> Result<Option<ImageDetails>, Error> {
        self.inspect_image(name).await
    }

    async fn pull_image(
        &self,
        pull: &PullImage,
        progress: impl FnMut(&PullProgress) + Send,
    ) -> Result<(), Error> {
        self.pull(pull, progress).await
    }

    async fn tag_image(&self, name: &str, new_name: &str) -> Result<(), Error> {
        self.tag(name, new_name).await
    }

    async fn remove_image(&self, name: &str, force: bool) -> Result<(), Error> {
        self.delete_image(name, force).await.map(drop)
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, Error> {
        let mut filters = BTreeMap::new();
        if !labels.is_empty() {
            filters.insert("label".to_owned(), labels.to_vec());
        }
        self.list_containers(true, &filters).await
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerDetails>, Error> {
        self.inspect_container(id).await
    }

    async fn create_container(&self, name: &str, body: &CreateContainer) -> Result<String, Error> {
        Ok(self.create(name, body).await?.id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, seconds: Option<i64>) -> Result<(), Error> {
        self.stop(id, seconds).await
    }

    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), Error> {
        self.kill(id, signal).await
    }

    async fn rename_container(&self, id: &str, name: &str) -> Result<(), Error> {
        self.rename(id, name).await
    }

    async fn set_restart_policy(&self, id: &str, policy: &RestartPolicy) -> Result<(), Error> {
        self.update_restart_policy(id, policy).await
    }

    async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<(), Error> {
        self.remove(id, options).await
    }

    async fn wait_container(&self, id: &str) -> Result<i64, Error> {
        self.wait(id, WaitFor::NotRunning).await
    }

    async fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, Error>>, Error> {
        self.read_logs(id, options).await
    }

    async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.list_networks().await
    }

    async fn network(&self, name: &str) -> Result<Option<Network>, Error> {
        self.inspect_network(name).await
    }

    async fn create_network(&self, body: &CreateNetwork) -> Result<String, Error> {
        Ok(self.make_network(body).await?.id)
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        self.delete_network(name).await
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: Option<EndpointSettings>,
    ) -> Result<(), Error> {
        self.connect(network, container, endpoint).await
    }

    async fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), Error> {
        self.disconnect(network, container, force).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.list_volumes().await
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, Error> {
        self.inspect_volume(name).await
    }

    async fn create_volume(&self, body: &CreateVolume) -> Result<Volume, Error> {
        self.make_volume(body).await
    }

    async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        self.delete_volume(name, force).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
    ) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        self.watch_events(filter).await
    }
}
