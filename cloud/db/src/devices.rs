//! Devices: what the API needs beside OData.

use serde_json::Value;

use crate::cell::Cell;
use crate::database::Db;
use crate::error::Result;

/// A device as the plain endpoints know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRef {
    /// Row id.
    pub id: i64,
    /// Its actor.
    pub actor: i64,
    /// Unique name for ever.
    pub uuid: String,
    /// Its fleet, if it has one.
    pub application: Option<i64>,
}

impl Db {
    async fn device(&self, rest: &str, value: Cell) -> Result<Option<DeviceRef>> {
        let mut session = self.store.read().await?;
        let columns = "\"id\", \"actor\", \"uuid\", \"belongs_to__application\"";
        let rest = format!("FROM \"device\" WHERE {rest}");
        let rows = session.rows("finding a device", columns, &rest, [value]).await?;
        Ok(rows.first().and_then(|row| {
            Some(DeviceRef {
                id: row.first()?.as_i64()?,
                actor: row.get(1)?.as_i64()?,
                uuid: row.get(2)?.as_str()?.to_owned(),
                application: row.get(3).and_then(Value::as_i64),
            })
        }))
    }

    /// The device with this uuid, whoever may see it.
    pub async fn device_by_uuid(&self, uuid: &str) -> Result<Option<DeviceRef>> {
        if uuid.contains('\0') {
            return Ok(None);
        }
        self.device("\"uuid\" = $1", uuid.into()).await
    }

    /// The device that this actor is.
    pub async fn device_by_actor(&self, actor: i64) -> Result<Option<DeviceRef>> {
        self.device("\"actor\" = $1", actor.into()).await
    }

    /// Uuids of the devices of an application, in order of their ids.
    pub async fn device_uuids_of_application(&self, application: i64) -> Result<Vec<String>> {
        let mut session = self.store.read().await?;
        let rest = "FROM \"device\" WHERE \"belongs_to__application\" = $1 ORDER BY \"id\"";
        let values = [application.into()];
        let rows = session.rows("finding the devices of a fleet", "\"uuid\"", rest, values).await?;
        Ok(rows.iter().filter_map(|row| Some(row.first()?.as_str()?.to_owned())).collect())
    }
}
