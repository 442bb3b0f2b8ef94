//! What devices say of themselves: `PATCH /device/v3/state`, and the older form of version 2.
//!
//! A report never fails for what it says of things that are gone here: a device that still runs a
//! deleted release must be able to say that it is alive. Long texts are cut, unknown words ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use minke_cloud_db::{Caller, Install, Report};
use minke_cloud_fleet::Role;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::target_state::Device;
use crate::{body, image_location, query, rows};

mod columns;

/// Devices in one report.
const MAX_DEVICES: usize = 16;
/// Apps of one device in one report.
const MAX_APPS: usize = 64;
/// Services of all apps of one device in one report.
const MAX_SERVICES: usize = 1024;
/// Metrics of a device are written this often at most.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);

/// What one device reports of one service.
#[derive(Debug, Clone, PartialEq)]
struct ReportedService {
    app: String,
    commit: String,
    /// Place of the image.
    location: String,
    status: String,
    progress: Option<i64>,
}

/// What one device reports of its apps.
#[derive(Debug, Default, PartialEq)]
struct ReportedApps {
    services: Vec<ReportedService>,
    /// App uuid → commit of the release that was applied in full.
    running: BTreeMap<String, String>,
    /// App uuid → where its update stands.
    update: BTreeMap<String, String>,
}

/// `PATCH /device/v3/state`.
pub(crate) async fn version_3(
    State(api): State<Api>,
    identity: Identity,
    body: Body,
) -> Result<(), ApiError> {
    let body: BTreeMap<String, Map<String, Value>> = body::json(body, body::REPORT).await?;
    if body.len() > MAX_DEVICES {
        return Err(ApiError::bad(format!("a report is of at most {MAX_DEVICES} devices")));
    }
    for (uuid, report) in body {
        let device = own_device(&api, &identity, &uuid).await?;
        let apps = report.get("apps").map(read_apps).transpose()?;
        api.record(&device, &report, apps).await?;
    }
    Ok(())
}

/// `PATCH /device/v2/:uuid/state`: the columns under `local`; apps are told by row numbers, which
/// devices of today do not do.
pub(crate) async fn version_2(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    identity: Identity,
    body: Body,
) -> Result<(), ApiError> {
    let body: Map<String, Value> = body::json(body, body::REPORT).await?;
    let device = own_device(&api, &identity, &uuid).await?;
    match body.get("local") {
        None => Ok(()),
        Some(Value::Object(local)) => api.record(&device, local, None).await,
        Some(_) => Err(ApiError::bad("local must be an object")),
    }
}

/// The device if the caller is that device.
pub(crate) async fn own_device(
    api: &Api,
    identity: &Identity,
    uuid: &str,
) -> Result<Device, ApiError> {
    if identity.role != Role::Device {
        return Err(ApiError::unauthorized());
    }
    let device = api.device(&identity.caller, uuid).await?;
    if device.actor == identity.actor { Ok(device) } else { Err(ApiError::unauthorized()) }
}

fn read_apps(apps: &Value) -> Result<ReportedApps, ApiError> {
    let bad = |what: &str| ApiError::bad(format!("the report's {what} must be an object"));
    let apps = apps.as_object().ok_or_else(|| bad("apps"))?;
    if apps.len() > MAX_APPS {
        return Err(ApiError::bad(format!("a report is of at most {MAX_APPS} apps")));
    }
    let mut reported = ReportedApps::default();
    for (uuid, app) in apps {
        if let Some(commit) = app["release_uuid"].as_str() {
            reported.running.insert(uuid.clone(), commit.to_owned());
        }
        let releases = match &app["releases"] {
            Value::Null => continue,
            releases => releases.as_object().ok_or_else(|| bad("releases"))?,
        };
        for (commit, release) in releases {
            if let Some(status) = release["update_status"].as_str() {
                let stands = reported.update.entry(uuid.clone()).or_default();
                *stands = columns::first_update_status(stands, status).to_owned();
            }
            let services = match &release["services"] {
                Value::Null => continue,
                services => services.as_object().ok_or_else(|| bad("services"))?,
            };
            for service in services.values() {
                let Some(location) = service["image"].as_str().and_then(image_location::path)
                else {
                    continue;
                };
                reported.services.push(ReportedService {
                    app: uuid.clone(),
                    commit: commit.clone(),
                    location: location.to_owned(),
                    status: columns::known_status(service["status"].as_str().unwrap_or("")),
                    progress: service["download_progress"].as_f64().map(|percent| percent as i64),
                });
            }
        }
    }
    if reported.services.len() > MAX_SERVICES {
        return Err(ApiError::bad(format!("a report is of at most {MAX_SERVICES} services")));
    }
    Ok(reported)
}

impl Api {
    /// Writes a report, all of it or nothing; on disk when this returns.
    async fn record(
        &self,
        device: &Device,
        report: &Map<String, Value>,
        apps: Option<ReportedApps>,
    ) -> Result<(), ApiError> {
        let status = columns::of_report(report, self.may_write_metrics(device.id, report));
        let mut report = Report { device: device.id, status, ..Report::default() };
        if let Some(apps) = apps {
            self.add_apps(device, &apps, &mut report).await?;
        }
        self.db.report(report).await?;
        Ok(())
    }

    /// Adds what the report says of apps: the running release, where its update stands, the images.
    async fn add_apps(
        &self,
        device: &Device,
        apps: &ReportedApps,
        report: &mut Report,
    ) -> Result<(), ApiError> {
        let releases = self.find_releases(apps).await?;
        let images = self.find_images(apps).await?;
        if let Some(own) = self.own_app(device).await? {
            if let Some(commit) = apps.running.get(&own)
                && let Some(release) = releases.get(&(own.clone(), commit.clone()))
            {
                report.status.insert("is_running__release".to_owned(), json!(release));
            }
            if let Some(status) = apps.update.get(&own) {
                report.status.insert("update_status".to_owned(), json!(status));
            }
        }
        // Two releases may share an image: it is on the device once, and the last word on it counts.
        let installs: BTreeMap<i64, Install> = apps
            .services
            .iter()
            .filter_map(|service| {
                let image = *images.get(&service.location)?;
                let release = *releases.get(&(service.app.clone(), service.commit.clone()))?;
                let status = service.status.clone();
                Some((
                    image,
                    Install { image, release, status, download_progress: service.progress },
                ))
            })
            .collect();
        report.installs = Some(installs.into_values().collect());
        Ok(())
    }

    async fn own_app(&self, device: &Device) -> Result<Option<String>, ApiError> {
        let text = format!(
            "device({})?$select=id&$expand=belongs_to__application($select=uuid)",
            device.id
        );
        let row = self.row(&Caller::root(), &text).await?.unwrap_or_default();
        Ok(row["belongs_to__application"][0]["uuid"].as_str().map(str::to_owned))
    }

    /// (app uuid, commit) → release.
    async fn find_releases(
        &self,
        apps: &ReportedApps,
    ) -> Result<BTreeMap<(String, String), i64>, ApiError> {
        let services = apps.services.iter().map(|service| service.commit.as_str());
        let running = apps.running.values().map(String::as_str);
        let commits: BTreeSet<&str> = services.chain(running).collect();
        let mut found = BTreeMap::new();
        for list in lists(&commits) {
            // Of releases with one commit in one fleet the successful one is meant.
            let text = format!(
                "release?$select=id,commit,status&$expand=belongs_to__application($select=uuid)&$filter=commit in ({list})&$orderby=id asc"
            );
            for row in self.rows(&Caller::root(), &text).await? {
                let app = rows::text(&row["belongs_to__application"][0], "uuid").to_owned();
                let key = (app, rows::text(&row, "commit").to_owned());
                if let Some(id) = rows::number(&row, "id")
                    && (rows::text(&row, "status") == "success" || !found.contains_key(&key))
                {
                    found.insert(key, id);
                }
            }
        }
        Ok(found)
    }

    /// Place → image.
    async fn find_images(&self, apps: &ReportedApps) -> Result<BTreeMap<String, i64>, ApiError> {
        let places: BTreeSet<&str> =
            apps.services.iter().map(|service| service.location.as_str()).collect();
        let mut found = BTreeMap::new();
        for list in lists(&places) {
            let text = format!(
                "image?$select=id,is_stored_at__image_location&$filter=is_stored_at__image_location in ({list})"
            );
            for row in self.rows(&Caller::root(), &text).await? {
                if let Some(id) = rows::number(&row, "id") {
                    found.insert(rows::text(&row, "is_stored_at__image_location").to_owned(), id);
                }
            }
        }
        Ok(found)
    }

    fn may_write_metrics(&self, device: i64, report: &Map<String, Value>) -> bool {
        if !columns::has_metrics(report) {
            return false;
        }
        let mut written = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if written.len() > 100_000 {
            written.retain(|_, time| now.duration_since(*time) < METRICS_INTERVAL);
        }
        match written.get(&device) {
            Some(time) if now.duration_since(*time) < METRICS_INTERVAL => false,
            _ => {
                written.insert(device, now);
                true
            }
        }
    }
}

/// The texts as lists for `in (…)`, a hundred at a time.
fn lists(texts: &BTreeSet<&str>) -> Vec<String> {
    let literals: Vec<String> = texts.iter().map(|text| query::literal(text)).collect();
    literals.chunks(100).map(|some| some.join(",")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_read_and_strange_images_skipped() {
        let hex = "0123456789abcdef0123456789abcdef";
        let apps = json!({"app1": {"release_uuid": "c0", "releases": {
            "c0": {"update_status": "done", "services": {"a": {"image": "busybox", "status": "Running"}}},
            "c1": {"update_status": "downloading", "services": {
                "web": {"image": format!("h:1/v2/{hex}@sha256:00"), "status": "Downloading", "download_progress": 41.6},
            }},
        }}});
        let reported = read_apps(&apps).unwrap();
        assert_eq!(reported.running["app1"], "c0");
        assert_eq!(reported.update["app1"], "downloading");
        assert_eq!(
            reported.services,
            [ReportedService {
                app: "app1".to_owned(),
                commit: "c1".to_owned(),
                location: format!("v2/{hex}"),
                status: "Downloading".to_owned(),
                progress: Some(41),
            }]
        );
        assert!(read_apps(&json!([])).is_err());
        assert!(read_apps(&json!({"a": {"releases": 5}})).is_err());
    }
}
