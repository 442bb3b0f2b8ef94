//! What a device is told to be: rows → the target state document, version 3.
//!
//! The rows come from one query, [`device_query`] (or [`fleet_query`] for what any device of a fleet
//! would be told), and are named here as the query's answer names them.
//!
//! Merge orders, the later wins: variables of a service: image, fleet, service, device, device's
//! service. Labels: image, service, and the update strategy of older configuration variables only
//! where no label says one. Configuration: fleet, device.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

mod query;
mod rows;

pub use query::{POLLING, device_query, fleet_query};
pub use rows::{AppRow, DeviceRow, FleetRow, PollingRow, ReleaseRow};
use rows::{ImageRow, NamedValue, ReleaseImageRow};

/// What of the server goes into a document.
#[derive(Debug, Clone)]
pub struct Options {
    /// Host, and port if there is one, under which devices reach the registry.
    pub registry_host: String,
    /// The shortest poll interval that devices are told, in milliseconds.
    pub min_poll_interval: u64,
}

/// The poll interval that devices are told where no variable says one, in milliseconds.
const DEFAULT_POLL_INTERVAL: u64 = 900_000;

/// The longest interval that a device is believed to wait, four weeks: variables may say any number.
const LONGEST_POLL_INTERVAL: u64 = 4 * 7 * 24 * 3_600_000;

/// Why rows make no document.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The answer of the query is not as expected.
    #[error("reading the rows of a device's target state")]
    Rows(#[source] serde_json::Error),
}

/// Reads one row of the answer to a query of this module.
pub fn read_row<'a, T: Deserialize<'a>>(row: &'a Value) -> Result<T, StateError> {
    T::deserialize(row).map_err(StateError::Rows)
}

/// The document for one device: `{<uuid>: {name, config, apps}}`.
pub fn of_device(device: &DeviceRow, options: &Options) -> Value {
    let fleet = device.belongs_to__application.first();
    let fleet_config = fleet.map_or(&[][..], |app| &app.application_config_variable);
    let config = merged([fleet_config, &device.device_config_variable]);
    let mut apps = Map::new();
    if let Some(app) = fleet {
        let own = Own {
            environment: &device.device_environment_variable,
            by_service: device
                .service_install
                .iter()
                .map(|install| {
                    (install.installs__service.id, &install.device_service_environment_variable[..])
                })
                .collect(),
            labels: strategy_labels(&config),
        };
        let release = device.should_be_running__release.first();
        apps.insert(app.uuid.clone(), app_document(app, release, &own, options));
    }
    // What the system itself runs knows no variables of the device.
    for release in
        device.should_be_managed_by__release.iter().chain(&device.should_be_operated_by__release)
    {
        if let Some(app) = release.belongs_to__application.first() {
            let document = app_document(app, Some(release), &Own::default(), options);
            apps.insert(app.uuid.clone(), document);
        }
    }
    json!({ &device.uuid: {
        "name": device.device_name,
        "config": config_document(config, options),
        "apps": apps,
    }})
}

/// How long a device waits between two polls by what it is told, in milliseconds.
pub fn poll_interval(device: &PollingRow, options: &Options) -> u64 {
    let fleet = device.belongs_to__application.first();
    let fleet = fleet.map_or(&[][..], |fleet| &fleet.application_config_variable);
    let config = merged([fleet, &device.device_config_variable]);
    interval(&config, options).1.min(LONGEST_POLL_INTERVAL)
}

/// The document for a fleet: what a device of it that has nothing of its own would be told.
pub fn of_fleet(fleet: &FleetRow, release: Option<&ReleaseRow>, options: &Options) -> Value {
    let app = &fleet.app;
    let config = merged([&app.application_config_variable[..]]);
    let own = Own { labels: strategy_labels(&config), ..Own::default() };
    json!({ &app.uuid: {
        "name": app.app_name,
        "config": config_document(config, options),
        "apps": { &app.uuid: app_document(app, release, &own, options) },
    }})
}

/// The older form of a document of version 3: apps and services by number, one fleet app only.
pub fn version_2(document: &Value) -> Value {
    let device = document.as_object().and_then(|devices| devices.values().next());
    let device = device.unwrap_or(&Value::Null);
    let mut apps = Map::new();
    for app in device["apps"].as_object().into_iter().flat_map(Map::values) {
        let release = app["releases"].as_object().and_then(|releases| releases.iter().next());
        let mut older = Map::from_iter([("name".to_owned(), app["name"].clone())]);
        if let Some((commit, release)) = release {
            older.insert("commit".to_owned(), json!(commit));
            older.insert("releaseId".to_owned(), release["id"].clone());
            older.insert("services".to_owned(), services_by_number(&release["services"]));
            older.insert("volumes".to_owned(), release["volumes"].clone());
            older.insert("networks".to_owned(), release["networks"].clone());
        }
        apps.insert(app["id"].to_string(), Value::Object(older));
    }
    json!({
        "local": { "name": device["name"], "config": device["config"], "apps": apps },
        "dependent": { "apps": {}, "devices": {} },
    })
}

fn services_by_number(services: &Value) -> Value {
    let mut older = Map::new();
    for (name, service) in services.as_object().into_iter().flatten() {
        let mut fields = service["composition"].as_object().cloned().unwrap_or_default();
        fields.insert("imageId".to_owned(), service["image_id"].clone());
        fields.insert("serviceName".to_owned(), json!(name));
        for field in ["image", "environment", "labels", "running"] {
            let value = service.get(field).cloned().unwrap_or(Value::Bool(true));
            fields.insert(field.to_owned(), value);
        }
        older.insert(service["id"].to_string(), Value::Object(fields));
    }
    Value::Object(older)
}

/// What one device adds to the services of its fleet.
#[derive(Default)]
struct Own<'a> {
    environment: &'a [NamedValue],
    by_service: BTreeMap<i64, &'a [NamedValue]>,
    labels: BTreeMap<String, String>,
}

fn merged<const N: usize>(layers: [&[NamedValue]; N]) -> BTreeMap<String, String> {
    layers.into_iter().flatten().map(|v| (v.name.clone(), v.value.clone())).collect()
}

/// Older configuration variables that are labels to a supervisor.
fn strategy_labels(config: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    [
        ("RESIN_SUPERVISOR_UPDATE_STRATEGY", "io.resin.update.strategy"),
        ("RESIN_SUPERVISOR_HANDOVER_TIMEOUT", "io.resin.update.handover-timeout"),
    ]
    .into_iter()
    .filter_map(|(name, label)| Some((label.to_owned(), config.get(name)?.clone())))
    .collect()
}

fn config_document(mut config: BTreeMap<String, String>, options: &Options) -> Value {
    config.retain(|name, _| !name.starts_with("BALENA_UI") && !name.starts_with("RESIN_UI"));
    let (name, interval) = interval(&config, options);
    config.insert(name.to_owned(), interval.to_string());
    json!(config)
}

/// The variable that tells a device how often to poll, and the interval in milliseconds.
fn interval(config: &BTreeMap<String, String>, options: &Options) -> (&'static str, u64) {
    let name = ["BALENA_SUPERVISOR_POLL_INTERVAL", "RESIN_SUPERVISOR_POLL_INTERVAL"]
        .into_iter()
        .find(|name| config.contains_key(*name))
        .unwrap_or("RESIN_SUPERVISOR_POLL_INTERVAL");
    let interval = config
        .get(name)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT_POLL_INTERVAL)
        .max(options.min_poll_interval);
    (name, interval)
}

fn app_document(
    app: &AppRow,
    release: Option<&ReleaseRow>,
    own: &Own<'_>,
    options: &Options,
) -> Value {
    let mut releases = Map::new();
    if let Some(release) = release {
        releases.insert(release.commit.clone(), release_document(app, release, own, options));
    }
    json!({
        "id": app.id,
        "name": app.app_name,
        "is_host": app.is_host,
        "class": app.is_of__class,
        "releases": releases,
    })
}

fn release_document(app: &AppRow, release: &ReleaseRow, own: &Own<'_>, options: &Options) -> Value {
    let composition = release.composition.as_object();
    let part = |name: &str| {
        composition
            .and_then(|composition| composition.get(name))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let compositions = part("services");
    let mut services = Map::new();
    for in_release in &release.release_image {
        let Some(image) = in_release.image.first() else { continue };
        let Some(service) = image.is_a_build_of__service.first() else { continue };
        let composition = compositions.get(&service.service_name).and_then(Value::as_object);
        let document = service_document(app, in_release, image, composition, own, options);
        services.insert(service.service_name.clone(), document);
    }
    json!({
        "id": release.id,
        "services": services,
        "networks": part("networks"),
        "volumes": part("volumes"),
    })
}

fn service_document(
    app: &AppRow,
    in_release: &ReleaseImageRow,
    image: &ImageRow,
    composition: Option<&Map<String, Value>>,
    own: &Own<'_>,
    options: &Options,
) -> Value {
    let service = &image.is_a_build_of__service[0];
    let environment = merged([
        &in_release.image_environment_variable,
        &app.application_environment_variable,
        &service.service_environment_variable,
        own.environment,
        own.by_service.get(&service.id).copied().unwrap_or_default(),
    ]);
    let mut labels: BTreeMap<String, String> = in_release
        .image_label
        .iter()
        .chain(&service.service_label)
        .map(|label| (label.label_name.clone(), label.value.clone()))
        .collect();
    for (name, value) in &own.labels {
        let newer = name.replacen("io.resin.", "io.balena.", 1);
        if !labels.contains_key(&newer) {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let mut document = Map::from_iter([
        ("id".to_owned(), json!(service.id)),
        ("image_id".to_owned(), json!(image.id)),
        ("image".to_owned(), json!(image.reference(&options.registry_host))),
        ("environment".to_owned(), json!(environment)),
        ("labels".to_owned(), json!(labels)),
    ]);
    if let Some(contract) = image.contract.as_ref().filter(|contract| contract.is_object()) {
        document.insert("contract".to_owned(), contract.clone());
    }
    if let Some(composition) = composition {
        let mut composition = composition.clone();
        composition.remove("build");
        document.insert("composition".to_owned(), Value::Object(composition));
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests;
