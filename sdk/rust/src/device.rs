//! Devices: what is known of them, and what runs on them.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::odata::{Filter, Query};
use crate::{Client, Error, Fleet};

/// A device as the server knows it.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// The device's id.
    pub id: i64,
    /// 32 or 62 hex digits.
    pub uuid: String,
    /// Its name.
    pub device_name: String,
    /// The slug of its fleet.
    pub fleet: Option<String>,
    /// The slug of its type.
    pub device_type: Option<String>,
    /// Connected through the tunnel.
    pub is_online: bool,
    /// `operational`, `updating`, `disconnected`, …
    pub overall_status: Option<String>,
    /// 0 to 100 while it updates.
    pub overall_progress: Option<i64>,
    /// The commit that it runs whole.
    pub is_running: Option<String>,
    /// The commit that it should run.
    pub should_run: Option<String>,
    /// Separated by spaces.
    pub ip_address: Option<String>,
    /// As the device reports it.
    pub os_version: Option<String>,
    /// As the device reports it.
    pub supervisor_version: Option<String>,
    /// ISO time of the last contact.
    pub last_connectivity_event: Option<String>,
    /// MiB in use.
    pub memory_usage: Option<i64>,
    /// MiB in all.
    pub memory_total: Option<i64>,
    /// MiB in use where its data lies.
    pub storage_usage: Option<i64>,
    /// MiB in all where its data lies.
    pub storage_total: Option<i64>,
    /// Percent of all processors.
    pub cpu_usage: Option<i64>,
    /// What runs on it, by service.
    pub services: Vec<ServiceStatus>,
}

/// What a device says of one service.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceStatus {
    /// The service's name.
    pub service: String,
    /// `Running`, `Downloading`, …
    pub status: String,
    /// The commit that the image belongs to.
    pub commit: String,
    /// 0 to 100 while it is downloaded.
    pub download_progress: Option<i64>,
}

/// A device that was registered from here, with the key that it will call with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisteredDevice {
    /// The device's id.
    pub id: i64,
    /// Its uuid.
    pub uuid: String,
    /// Its key: shown once.
    pub api_key: String,
}

#[derive(Deserialize)]
struct Row {
    id: i64,
    uuid: String,
    device_name: String,
    is_online: bool,
    overall_status: Option<String>,
    overall_progress: Option<i64>,
    ip_address: Option<String>,
    os_version: Option<String>,
    supervisor_version: Option<String>,
    last_connectivity_event: Option<String>,
    memory_usage: Option<i64>,
    memory_total: Option<i64>,
    storage_usage: Option<i64>,
    storage_total: Option<i64>,
    cpu_usage: Option<i64>,
    #[serde(default)]
    belongs_to__application: Vec<Slug>,
    #[serde(default)]
    is_of__device_type: Vec<Slug>,
    #[serde(default)]
    is_running__release: Vec<Commit>,
    #[serde(default)]
    should_be_running__release: Vec<Commit>,
    #[serde(default)]
    image_install: Vec<Install>,
}

#[derive(Deserialize)]
struct Slug {
    slug: String,
}

#[derive(Deserialize)]
struct Commit {
    commit: String,
}

#[derive(Deserialize)]
struct Install {
    status: String,
    download_progress: Option<i64>,
    #[serde(default)]
    installs__image: Vec<InstalledImage>,
    #[serde(default)]
    is_provided_by__release: Vec<Commit>,
}

#[derive(Deserialize)]
struct InstalledImage {
    #[serde(default)]
    is_a_build_of__service: Vec<ServiceName>,
}

#[derive(Deserialize)]
struct ServiceName {
    service_name: String,
}

const FIELDS: [&str; 15] = [
    "id",
    "uuid",
    "device_name",
    "is_online",
    "overall_status",
    "overall_progress",
    "ip_address",
    "os_version",
    "supervisor_version",
    "last_connectivity_event",
    "memory_usage",
    "memory_total",
    "storage_usage",
    "storage_total",
    "cpu_usage",
];

fn query() -> Query {
    let image = Query::new("installs__image")
        .select(["id"])
        .expand(Query::new("is_a_build_of__service").select(["service_name"]));
    let installs = Query::new("image_install")
        .select(["status", "download_progress"])
        .expand(image)
        .expand(Query::new("is_provided_by__release").select(["commit"]));
    Query::new("device")
        .select(FIELDS)
        .expand(Query::new("belongs_to__application").select(["slug"]))
        .expand(Query::new("is_of__device_type").select(["slug"]))
        .expand(Query::new("is_running__release").select(["commit"]))
        .expand(Query::new("should_be_running__release").select(["commit"]))
        .expand(installs)
        .order_by("device_name asc")
}

impl From<Row> for Device {
    fn from(row: Row) -> Device {
        let first_commit = |rows: Vec<Commit>| rows.into_iter().next().map(|it| it.commit);
        let first_slug = |rows: Vec<Slug>| rows.into_iter().next().map(|it| it.slug);
        let mut services: Vec<_> =
            row.image_install.into_iter().filter_map(service_status).collect();
        services.sort_by(|a, b| a.service.cmp(&b.service));
        Device {
            id: row.id,
            uuid: row.uuid,
            device_name: row.device_name,
            fleet: first_slug(row.belongs_to__application),
            device_type: first_slug(row.is_of__device_type),
            is_online: row.is_online,
            overall_status: row.overall_status,
            overall_progress: row.overall_progress,
            is_running: first_commit(row.is_running__release),
            should_run: first_commit(row.should_be_running__release),
            ip_address: row.ip_address,
            os_version: row.os_version,
            supervisor_version: row.supervisor_version,
            last_connectivity_event: row.last_connectivity_event,
            memory_usage: row.memory_usage,
            memory_total: row.memory_total,
            storage_usage: row.storage_usage,
            storage_total: row.storage_total,
            cpu_usage: row.cpu_usage,
            services,
        }
    }
}

/// What is installed of one service; `None` for rows of images that are gone.
fn service_status(install: Install) -> Option<ServiceStatus> {
    let image = install.installs__image.into_iter().next()?;
    let service = image.is_a_build_of__service.into_iter().next()?.service_name;
    let commit = install.is_provided_by__release.into_iter().next()?.commit;
    if install.status == "deleted" {
        return None;
    }
    Some(ServiceStatus {
        service,
        status: install.status,
        commit,
        download_progress: install.download_progress,
    })
}

impl Client {
    /// All devices of the caller, or those of one fleet.
    pub async fn devices(&self, fleet: Option<&Fleet>) -> Result<Vec<Device>, Error> {
        let query = match fleet {
            Some(fleet) => query().filter(Filter::eq("belongs_to__application", fleet.id)),
            None => query(),
        };
        let rows: Vec<Row> = self.rows("list devices", &query).await?;
        Ok(rows.into_iter().map(Device::from).collect())
    }

    /// The device whose uuid begins with `uuid`.
    pub async fn device(&self, uuid: &str) -> Result<Device, Error> {
        let not_found = || Error::NotFound { kind: "device", name: uuid.to_owned() };
        if uuid.is_empty() {
            return Err(not_found());
        }
        let query = query().filter(Filter::starts_with("uuid", uuid)).top(5);
        let rows: Vec<Row> = self.rows("find the device", &query).await?;
        let mut devices: Vec<Device> = rows.into_iter().map(Device::from).collect();
        match devices.len() {
            0 => Err(not_found()),
            1 => Ok(devices.remove(0)),
            _ => Err(Error::Ambiguous {
                kind: "device",
                name: uuid.to_owned(),
                candidates: devices
                    .iter()
                    .map(|it| it.uuid.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Registers a device before it exists, so that its config.json can name it.
    pub async fn register_device(
        &self,
        fleet: &Fleet,
        uuid: &str,
        device_type: Option<&str>,
    ) -> Result<RegisteredDevice, Error> {
        let what = "register the device";
        let body = json!({
            "application": fleet.id,
            "uuid": uuid,
            "device_type": device_type.unwrap_or(&fleet.device_type),
        });
        let response = self.request(what, Method::POST, "device/register", Some(&body)).await?;
        self.json(what, response).await
    }

    /// Makes one more key for a registered device: shown once.
    pub async fn create_device_key(&self, device: &Device) -> Result<String, Error> {
        let what = "make a device key";
        let path = format!("api-key/device/{}/device-key", device.id);
        let response = self.request(what, Method::POST, &path, Some(&json!({}))).await?;
        self.json(what, response).await
    }

    /// Asks the device to look for its target now.
    pub async fn update_device(&self, device: &Device) -> Result<(), Error> {
        let body = json!({ "uuid": device.uuid, "method": "POST", "data": { "force": false } });
        self.request("ask the device to update", Method::POST, "supervisor/v1/update", Some(&body))
            .await
            .map(drop)
    }

    /// Removes the device and all that is known of it.
    pub async fn remove_device(&self, device: &Device) -> Result<(), Error> {
        self.delete("remove the device", &Query::by_id("device", device.id)).await
    }

    /// Gives the device another name.
    pub async fn rename_device(&self, device: &Device, name: &str) -> Result<(), Error> {
        let body: Value = json!({ "device_name": name });
        self.update("rename the device", &Query::by_id("device", device.id), &body).await
    }
}
