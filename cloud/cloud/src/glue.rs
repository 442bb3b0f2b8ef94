//! Brings the parts together: each asks by a trait of its own, and here another part answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use minke_cloud_api::ports::{BoxError, BoxFuture, Notify, RegistryAccess, Stream, TokenSigner};
use minke_cloud_api::{Api, ApiError, rows};
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

    fn device(&self, uuid: &str) -> Option<i64> {
        self.hub.get()?.device(uuid).map(|device| device.0)
    }

    fn open_tcp<'a>(
        &'a self,
        device: i64,
        uuid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, BoxError>> {
        Box::pin(async move {
            let hub = self.hub.get().ok_or("the server is starting")?;
            if hub.device(uuid) != Some(DeviceId(device)) {
                return Err("the device is not connected".into());
            }
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
        Box::pin(until_kept(AGAIN, move || self.api.device_connected(uuid, connected)))
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
                Ok(Some(row)) if self.may_be_reached(uuid, &row) => Verdict::Allowed,
                _ => Verdict::Forbidden,
            }
        })
    }
}

impl Doorkeeper {
    /// Whether the tunnel of `uuid`, if there is one, is that of the device with this row. A device
    /// whose row was deleted may still be connected when somebody else registers its uuid.
    fn may_be_reached(&self, uuid: &str, row: &serde_json::Value) -> bool {
        let tunnel = self.api.device_of_tunnel(uuid);
        tunnel.is_none() || tunnel == rows::number(row, "id")
    }
}

/// Between two tries to keep who is connected, when the database fails.
pub(crate) const AGAIN: Duration = Duration::from_secs(10);

/// Tries until it is kept: nobody would say it again, and the device would stay what it was.
pub(crate) async fn until_kept<F>(again: Duration, keep: impl Fn() -> F)
where
    F: Future<Output = Result<(), ApiError>>,
{
    while let Err(error) = keep().await {
        tracing::error!("keeping who is connected: {:#}", anyhow::Error::new(error));
        tokio::time::sleep(again).await;
    }
}

/// The tunnel's doorkeeper for an API.
pub fn doorkeeper(api: &Api) -> Arc<Doorkeeper> {
    Arc::new(Doorkeeper { api: api.clone() })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn who_is_connected_is_said_until_it_is_kept() {
        let tries = Cell::new(0);
        let keep = async || {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 | 2 => Err(ApiError::Unavailable("the server's disk is full".to_owned())),
                _ => Ok(()),
            }
        };
        until_kept(Duration::from_millis(1), keep).await;
        assert_eq!(tries.get(), 3);
    }
}
