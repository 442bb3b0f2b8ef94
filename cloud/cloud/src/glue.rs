//! Brings the parts together: each asks by a trait of its own, and here another part answers.

use std::sync::{Arc, OnceLock};

use minke_cloud_api::ports::{BoxError, BoxFuture, Notify, RegistryAccess, Stream, TokenSigner};
use minke_cloud_api::{Api, ApiError};
use minke_cloud_fleet::{Role, Verb};
use minke_cloud_registry::token::{Access, LIFETIME, Signer};
use minke_cloud_tunnel::{ConnectAuth, Credentials, DeviceAuth, DeviceId, Hub, Verdict};

/// The tunnel as the API knows it. The hub asks the API who a device is, and the API asks the hub for
/// connections: so the hub comes in when both are there.
#[derive(Default)]
pub struct Tunnels {
    hub: OnceLock<Hub>,
}

impl Tunnels {
    /// Hands in the hub, once.
    pub fn set(&self, hub: Hub) {
        if self.hub.set(hub).is_err() {
            tracing::error!("the hub was handed in twice");
        }
    }
}

impl Notify for Tunnels {
    fn target_changed(&self, device_uuids: Vec<String>) {
        if let Some(hub) = self.hub.get() {
            hub.look_soon(device_uuids);
        }
    }

    fn connected(&self, uuid: &str) -> bool {
        self.hub.get().is_some_and(|hub| hub.is_connected(uuid))
    }

    fn open_tcp<'a>(
        &'a self,
        uuid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, BoxError>> {
        Box::pin(async move {
            let hub = self.hub.get().ok_or("the server is starting")?;
            let stream = hub.open_tcp(uuid, port).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Signs what the API grants.
pub struct RegistryTokens {
    pub signer: Signer,
    /// The registry's name in the tokens.
    pub service: String,
}

impl TokenSigner for RegistryTokens {
    fn sign(&self, subject: &str, access: Vec<RegistryAccess>) -> Result<String, BoxError> {
        let access = access
            .into_iter()
            .map(|granted| Access {
                kind: "repository".to_owned(),
                name: granted.name,
                actions: granted.actions,
                alias: granted.alias,
            })
            .collect();
        Ok(self.signer.sign(subject, &self.service, access, LIFETIME)?)
    }
}

/// Devices and people as the tunnel asks for them.
#[derive(Clone)]
pub struct Doorkeeper {
    pub api: Api,
}

impl DeviceAuth for Doorkeeper {
    fn authenticate<'a>(&'a self, uuid: &'a str, key: &'a str) -> BoxFuture<'a, Option<DeviceId>> {
        Box::pin(async move {
            match self.api.authenticate_device(uuid, key).await {
                Ok(id) => Some(DeviceId(id)),
                Err(ApiError::Unauthorized(_)) => None,
                Err(error) => {
                    tracing::error!("asking who a device is: {:#}", anyhow::Error::new(error));
                    None
                }
            }
        })
    }

    fn connected<'a>(&'a self, uuid: &'a str, connected: bool) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.api.device_connected(uuid, connected).await {
                tracing::error!("keeping who is connected: {:#}", anyhow::Error::new(error));
            }
        })
    }
}

impl ConnectAuth for Doorkeeper {
    fn may_connect<'a>(
        &'a self,
        credentials: &'a Credentials,
        uuid: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Ok(identity) = self.api.identify(&credentials.token).await else {
                return Verdict::Unauthorized;
            };
            if identity.role != Role::User {
                return Verdict::Forbidden;
            }
            let query = format!("device(uuid={})?$select=id", minke_cloud_api::literal(uuid));
            match self.api.row(&identity.who_may(Verb::Update), &query).await {
                Ok(Some(_)) => Verdict::Allowed,
                _ => Verdict::Forbidden,
            }
        })
    }
}

/// The tunnel's doorkeeper for an API.
pub fn doorkeeper(api: &Api) -> Arc<Doorkeeper> {
    Arc::new(Doorkeeper { api: api.clone() })
}
