//! Tells devices to look when what they should be has changed.

use std::time::Duration;

use minke_cloud_db::{Caller, Moved};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::Api;
use crate::error::{ApiError, chain};
use crate::rows;

/// How long changes are gathered before devices are told: a push makes a dozen rows at once.
const GATHER: Duration = Duration::from_millis(50);
/// Row numbers in one query.
const CHUNK: usize = 200;

impl Api {
    /// Tells devices of every change from now on, for as long as this future is polled.
    pub fn tell_devices(&self) -> impl Future<Output = ()> + Send + use<> {
        // Subscribed before the first poll: nothing written after this call is missed.
        let (api, mut moved) = (self.clone(), self.db.moved());
        async move {
            while let Some(all) = gather(&mut moved).await {
                match api.devices_of(&all).await {
                    Ok(uuids) if uuids.is_empty() => {}
                    Ok(uuids) => api.ports.notify.target_changed(uuids),
                    Err(error) => tracing::error!("finding devices to tell: {}", chain(&error)),
                }
            }
        }
    }

    /// The devices whose target state may have moved.
    async fn devices_of(&self, moved: &All) -> Result<Vec<String>, ApiError> {
        let mut filters = Vec::new();
        match moved {
            All::Everything => filters.push("true".to_owned()),
            All::These(moved) => {
                let devices: Vec<String> = moved.devices.iter().map(i64::to_string).collect();
                filters
                    .extend(devices.chunks(CHUNK).map(|ids| format!("id in ({})", ids.join(","))));
                let apps: Vec<String> = moved.applications.iter().map(i64::to_string).collect();
                filters.extend(apps.chunks(CHUNK).map(|ids| of_applications(&ids.join(","))));
            }
        }
        let mut uuids = std::collections::BTreeSet::new();
        for filter in filters {
            let query = format!("device?$select=uuid&$filter={filter}");
            let rows = self.rows(&Caller::root(), &query).await?;
            uuids.extend(rows.iter().map(|row| rows::text(row, "uuid").to_owned()));
        }
        Ok(uuids.into_iter().collect())
    }
}

fn of_applications(ids: &str) -> String {
    let by_release = |link: &str| format!("{link}/any(r:r/belongs_to__application in ({ids}))");
    format!(
        "belongs_to__application in ({ids}) or {} or {}",
        by_release("should_be_managed_by__release"),
        by_release("should_be_operated_by__release")
    )
}

/// Changes put together.
enum All {
    These(Moved),
    /// So many at once that some were missed.
    Everything,
}

/// Waits for a change and gathers those that follow at once; `None` when the database is gone.
async fn gather(changes: &mut Receiver<Moved>) -> Option<All> {
    let mut all = match changes.recv().await {
        Ok(moved) => All::These(moved),
        Err(RecvError::Lagged(_)) => All::Everything,
        Err(RecvError::Closed) => return None,
    };
    tokio::time::sleep(GATHER).await;
    use tokio::sync::broadcast::error::TryRecvError;
    loop {
        match changes.try_recv() {
            Ok(more) => {
                if let All::These(moved) = &mut all {
                    moved.devices.extend(more.devices);
                    moved.applications.extend(more.applications);
                }
            }
            Err(TryRecvError::Lagged(_)) => all = All::Everything,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(all),
        }
    }
}
