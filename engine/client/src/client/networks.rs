//! `/networks`.

use super::{Client, optional};
use crate::Error;
use crate::transport::segment;
use crate::wire::{
    ConnectNetwork, CreateNetwork, CreatedNetwork, DisconnectNetwork, EndpointSettings, Network,
};

impl Client {
    /// Every network.
    pub async fn list_networks(&self) -> Result<Vec<Network>, Error> {
        self.get("/networks".to_owned()).send().await?.json().await
    }

    /// One network, by name or id.
    pub async fn inspect_network(&self, name: &str) -> Result<Option<Network>, Error> {
        let call = self.get(format!("/networks/{}", segment(name)));
        let answer = async { call.send().await?.json().await };
        optional(answer.await)
    }

    /// Makes a network.
    pub async fn make_network(&self, body: &CreateNetwork) -> Result<CreatedNetwork, Error> {
        self.post("/networks/create".to_owned()).json(body).send().await?.json().await
    }

    /// Removes a network.
    pub async fn delete_network(&self, name: &str) -> Result<(), Error> {
        self.delete(format!("/networks/{}", segment(name))).send().await?.done().await
    }

    /// Puts a container into a network.
    pub async fn connect(
        &self,
        network: &str,
        container: &str,
        endpoint: Option<EndpointSettings>,
    ) -> Result<(), Error> {
        let body = ConnectNetwork { container: container.to_owned(), endpoint_config: endpoint };
        let call = self.post(format!("/networks/{}/connect", segment(network))).json(&body);
        call.send().await?.done().await
    }

    /// Takes a container out of a network.
    pub async fn disconnect(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), Error> {
        let body = DisconnectNetwork { container: container.to_owned(), force };
        let call = self.post(format!("/networks/{}/disconnect", segment(network))).json(&body);
        call.send().await?.done().await
    }
}
