//! Rows that still say "connected" of devices that were connected to a server that is gone.

use std::time::Duration;

use minke_cloud_api::{Api, rows};
use minke_cloud_db::Caller;
use minke_cloud_tunnel::Hub;

use crate::glue::{AGAIN, until_kept};

/// How long devices have to dial in again after a start before they count as away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits a little and then says of each such device that it is away, unless it came back.
pub async fn correct_later(api: Api, hub: Hub) {
    tokio::time::sleep(PATIENCE).await;
    let query = "device?$select=id,uuid&$filter=is_connected_to_vpn eq true";
    let devices = match api.rows(&Caller::root(), query).await {
        Ok(devices) => devices,
        Err(error) => {
            tracing::error!("reading who was connected: {:#}", anyhow::Error::new(error));
            return;
        }
    };
    for device in devices {
        let uuid = rows::text(&device, "uuid");
        let is_away = async || match hub.is_connected(uuid) {
            true => Ok(()),
            false => api.device_connected(uuid, false).await,
        };
        until_kept(AGAIN, is_away).await;
    }
}
