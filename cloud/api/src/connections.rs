//! What the tunnel asks: who a device is; and what it tells: which devices are connected.

use minke_cloud_db::Caller;
use minke_cloud_fleet::Role;
use serde_json::{Map, json};

use crate::api::{Api, now_ms};
use crate::error::ApiError;
use crate::query;

impl Api {
    /// The row of the device `uuid` if `key` is its own; 401 otherwise.
    pub async fn authenticate_device(&self, uuid: &str, key: &str) -> Result<i64, ApiError> {
        let identity = self.identify(key).await?;
        if identity.role != Role::Device {
            return Err(ApiError::unauthorized());
        }
        let device = self.device(&identity.caller, uuid).await?;
        if device.actor == identity.actor { Ok(device.id) } else { Err(ApiError::unauthorized()) }
    }

    /// The row of the device that has the tunnel of `uuid` open.
    pub fn device_of_tunnel(&self, uuid: &str) -> Option<i64> {
        self.ports.notify.device(uuid)
    }

    /// Keeps whether the device `uuid` is connected.
    pub async fn device_connected(&self, uuid: &str, connected: bool) -> Result<(), ApiError> {
        let now = json!(now_ms());
        let row = Map::from_iter([
            ("is_connected_to_vpn".to_owned(), json!(connected)),
            ("is_online".to_owned(), json!(connected)),
            ("last_vpn_event".to_owned(), now.clone()),
            ("last_connectivity_event".to_owned(), now),
        ]);
        let text = format!("device(uuid={})", query::literal(uuid));
        let request = minke_common_odata::parse(&text)
            .map_err(|error| ApiError::internal("reading its own query", error))?;
        self.db.patch(&Caller::root(), &request, &row).await?;
        Ok(())
    }
}
