//! Version 2: apps with many services.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use minke_common_model::ids::{AppId, AppUuid, Commit, ServiceName};
use minke_common_model::reported_state::{AppReport, DeviceReport, ServiceReport};
use serde_json::{Map, Value, json};

use super::Api;
use super::body::Fields;
use super::error::ApiError;
use crate::api_keys::Scope;
use crate::memory::Memory;
use crate::report::commit_of;
use crate::state::{ContainerId, ContainerStatus, ObservedContainer, TargetApp};

type Answer = Result<Response, ApiError>;

fn ok() -> Response {
    "OK".into_response()
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "status": "success", "version": crate::VERSION }))
}

pub(super) async fn device_name(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({ "status": "success", "deviceName": api.view.borrow().name }))
}

pub(super) async fn device_info(State(api): State<Arc<Api>>) -> Json<Value> {
    let view = api.view.borrow();
    let info = json!({ "arch": view.arch, "deviceType": view.device_type });
    Json(json!({ "status": "success", "info": info }))
}

/// Percent of all that is downloading, if anything is.
pub(super) fn overall_progress(report: &DeviceReport) -> Option<u64> {
    let percents: Vec<f64> = report
        .apps
        .iter()
        .flat_map(BTreeMap::values)
        .flat_map(|app| app.releases.values())
        .flat_map(|release| release.services.values())
        .filter_map(|service| service.download_progress)
        .collect();
    let count = percents.len() as f64;
    (count > 0.0).then(|| (percents.iter().sum::<f64>() / count) as u64)
}

pub(super) async fn status(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
) -> Json<Value> {
    let (report, status) = (api.report.borrow().clone(), api.status.borrow().clone());
    let target = status.target.clone().unwrap_or_default();
    let visible = |uuid: &AppUuid| target.apps.get(uuid).is_some_and(|app| scope.sees(app.id));
    let (mut containers, mut images) = (Vec::new(), Vec::new());
    for (uuid, app) in target.apps.iter().filter(|(uuid, _)| visible(uuid)) {
        for (id, container) in status.observed.containers_of(uuid) {
            let state = container_status(&report, uuid, container);
            containers.push(json!({
                "status": state,
                "serviceName": container.service,
                "appId": app.id,
                "serviceId": container.service_id,
                "containerId": id.0,
                "createdAt": jiff::Timestamp::from_second(container.created).ok().map(|t| t.to_string()),
            }));
        }
        for (name, service) in &app.services {
            let is_here = status.observed.image(&service.image).is_some();
            images.push(json!({
                "name": service.reference,
                "appId": app.id,
                "serviceName": name,
                "status": if is_here { "Downloaded" } else { "Downloading" },
                "downloadProgress": if is_here { Value::Null } else { json!(overall_progress(&report)) },
            }));
        }
    }
    let release = target.apps.iter().find(|(uuid, _)| visible(uuid));
    let release =
        release.and_then(|(uuid, _)| report.apps.as_ref()?.get(uuid)?.release_uuid.clone());
    Json(json!({
        "status": "success",
        "appState": if status.is_settled() { "applied" } else { "applying" },
        "overallDownloadProgress": overall_progress(&report),
        "containers": containers,
        "images": images,
        "release": release,
    }))
}

fn container_status(
    report: &DeviceReport,
    app: &AppUuid,
    container: &ObservedContainer,
) -> Option<String> {
    let app = report.apps.as_ref()?.get(app)?;
    let service = service_report(app, commit_of(&container.name).as_ref(), &container.service)?;
    Some(service.status.clone())
}

/// What is reported of a service: of the release `first` if the service is in it. During an update the
/// release before is reported too.
fn service_report<'a>(
    reported: &'a AppReport,
    first: Option<&Commit>,
    service: &ServiceName,
) -> Option<&'a ServiceReport> {
    let first = first.and_then(|commit| reported.releases.get(commit));
    let mut releases = first.into_iter().chain(reported.releases.values());
    releases.find_map(|release| release.services.get(service))
}

pub(super) async fn apps_state(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
) -> Json<Value> {
    let report = api.report.borrow().clone();
    let target = api.status.borrow().target.clone().unwrap_or_default();
    let mut answer = Map::new();
    for (uuid, app) in target.apps.iter().filter(|(_, app)| scope.sees(app.id)) {
        let reported = report.apps.as_ref().and_then(|apps| apps.get(uuid));
        let Some(reported) = reported else { continue };
        let mut services = Map::new();
        let mut update_status = None;
        for (commit, release) in &reported.releases {
            let is_target = app.release.as_ref().is_some_and(|target| target.commit == *commit);
            if !is_target {
                continue;
            }
            update_status = release.update_status;
            for (name, service) in &release.services {
                services.insert(
                    name.to_string(),
                    json!({
                        "status": service.status,
                        "image": service.image,
                        "releaseId": app.release.as_ref().map(|release| release.id),
                        "downloadProgress": service.download_progress,
                    }),
                );
            }
        }
        answer.insert(
            app.name.clone(),
            json!({
                "appId": app.id,
                "appUuid": uuid,
                "commit": reported.release_uuid,
                "updateStatus": update_status,
                "services": services,
            }),
        );
    }
    Json(Value::Object(answer))
}

pub(super) async fn app_state(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(id): Path<AppId>,
) -> Answer {
    scope.allow(id)?;
    let uuid = api.app(id).map_err(|_| ApiError::NoStateOf(id))?;
    let report = api.report.borrow().clone();
    let target = api.status.borrow().target.clone().unwrap_or_default();
    let reported =
        report.apps.as_ref().and_then(|apps| apps.get(&uuid)).cloned().unwrap_or_default();
    let services = by_image_id(&target.apps[&uuid], &reported);
    let mut local = Map::new();
    local.insert(id.to_string(), json!({ "services": services }));
    let body = json!({ "commit": reported.release_uuid, "local": local });
    Ok(Json(body).into_response())
}

fn by_image_id(app: &TargetApp, reported: &AppReport) -> Map<String, Value> {
    let mut services = Map::new();
    let commit = app.release.as_ref().map(|release| &release.commit);
    for (name, service) in &app.services {
        let Some(state) = service_report(reported, commit, name) else { continue };
        let image_id = service.container_name.rsplit('_').nth(2).unwrap_or_default();
        services.insert(
            image_id.to_owned(),
            json!({
                "status": state.status,
                "releaseId": app.release.as_ref().map(|release| release.id),
                "download_progress": state.download_progress,
            }),
        );
    }
    services
}

pub(super) async fn container_id(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let observed = api.status.borrow().observed.clone();
    let wanted = query.get("serviceName").or_else(|| query.get("service"));
    let visible = observed.containers.iter().filter(|(_, container)| scope.sees(container.app_id));
    let services: BTreeMap<&str, &str> =
        visible.map(|(id, container)| (container.service.as_str(), id.0.as_str())).collect();
    match wanted {
        None => Ok(Json(json!({ "status": "success", "services": services })).into_response()),
        Some(name) => {
            let missing = || ApiError::NotDone("Could not find service with that name".to_owned());
            let id = services.get(name.as_str()).ok_or_else(missing)?;
            Ok(Json(json!({ "status": "success", "containerId": id })).into_response())
        }
    }
}

pub(super) async fn restart(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    restart_app(&api, scope, app, fields.truth("force")).await?;
    Ok(ok())
}

pub(super) async fn restart_app(
    api: &Api,
    scope: Scope,
    app: AppId,
    force: bool,
) -> Result<(), ApiError> {
    scope.allow(app)?;
    let uuid = api.app(app)?;
    let ids = api.containers(&uuid).into_iter().map(|(id, _)| id).collect();
    api.recreate(app, ids, force).await
}

pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    purge_app(&api, scope, app, fields.truth("force")).await?;
    Ok(ok())
}

pub(super) async fn purge_app(
    api: &Api,
    scope: Scope,
    app: AppId,
    force: bool,
) -> Result<(), ApiError> {
    scope.allow(app)?;
    let uuid = api.app(app)?;
    api.check_lock(app, force)?;
    let of = uuid.clone();
    let memory = api.memory.clone();
    api.fulfil(
        (app, &uuid),
        move |wishes| {
            wishes.purge.insert(of.clone());
            if force {
                wishes.force.insert(of);
            }
        },
        // The loop takes the wish back when all is empty, and then brings the app back.
        |status| !memory.wishes().purge.contains(&uuid) && !status.plan.unsettled.contains(&uuid),
    )
    .await
}

pub(super) async fn restart_service(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    scope.allow(app)?;
    let service = named_service(&api, app, &fields)?;
    let uuid = api.app(app)?;
    let containers = api.containers(&uuid).into_iter();
    let ids: Vec<_> =
        containers.filter(|(_, it)| it.service == service).map(|(id, _)| id).collect();
    if ids.is_empty() {
        return Err(ApiError::NoService);
    }
    api.recreate(app, ids, fields.truth("force")).await?;
    Ok(ok())
}

pub(super) async fn stop_service(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    scope.allow(app)?;
    let service = named_service(&api, app, &fields)?;
    stop_one(&api, app, service, fields.truth("force")).await?;
    Ok(ok())
}

pub(super) async fn start_service(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    scope.allow(app)?;
    let service = named_service(&api, app, &fields)?;
    start_one(&api, app, service).await?;
    Ok(ok())
}

pub(super) async fn stop_one(
    api: &Api,
    app: AppId,
    service: ServiceName,
    force: bool,
) -> Result<(), ApiError> {
    let uuid = api.app(app)?;
    api.check_lock(app, force)?;
    let (key, of) = ((app, service.clone()), uuid.clone());
    api.fulfil(
        (app, &uuid),
        move |wishes| {
            wishes.stopped.insert(key);
            if force {
                wishes.force.insert(of);
            }
        },
        |status| {
            let mut containers = status.observed.containers_of(&uuid);
            containers.all(|(_, it)| it.service != service || !it.status.is_running())
        },
    )
    .await
}

pub(super) async fn start_one(api: &Api, app: AppId, service: ServiceName) -> Result<(), ApiError> {
    let uuid = api.app(app)?;
    // One that has ended just now is not yet in what the loop saw last.
    api.fulfil((app, &uuid), |_| {}, |_| true).await?;
    let ended = |(_, it): &(ContainerId, ObservedContainer)| {
        it.service == service
            && !it.was_stopped
            && matches!(it.status, ContainerStatus::Exited { .. })
    };
    let ended: Vec<ContainerId> =
        api.containers(&uuid).into_iter().filter(ended).map(|(id, _)| id).collect();
    // The loop starts again only what was stopped.
    let marked = ended.clone();
    remember(api, move |memory| marked.iter().for_each(|id| memory.stopping(id))).await?;
    let key = (app, service.clone());
    let started = api.fulfil(
        (app, &uuid),
        move |wishes| {
            wishes.stopped.remove(&key);
        },
        |status| {
            let mut containers = status.observed.containers_of(&uuid);
            containers.any(|(_, it)| it.service == service && was_started(it))
        },
    );
    let started = started.await;
    if started.is_err() {
        remember(api, move |memory| ended.iter().for_each(|id| memory.forget(id))).await?;
    }
    started
}

/// Whether a container that was asked to start has done so: a short job may have ended since.
fn was_started(container: &ObservedContainer) -> bool {
    match container.status {
        ContainerStatus::Running { .. } => true,
        // Its start takes the mark away.
        ContainerStatus::Exited { .. } => !container.was_stopped,
        ContainerStatus::Created | ContainerStatus::Dead => false,
    }
}

/// Changes what is remembered of containers, which writes to the disk.
async fn remember(
    api: &Api,
    change: impl FnOnce(&Memory) + Send + 'static,
) -> Result<(), ApiError> {
    let memory = api.memory.clone();
    let changed = tokio::task::spawn_blocking(move || change(&memory)).await;
    changed.map_err(|error| ApiError::NotDone(error.to_string()))
}

/// The service that `serviceName` or `imageId` names.
fn named_service(api: &Api, app: AppId, fields: &Fields) -> Result<ServiceName, ApiError> {
    let uuid = api.app(app)?;
    let status = api.status.borrow();
    let target = status.target.as_ref().and_then(|target| target.apps.get(&uuid));
    let services = target.map(|app| &app.services).ok_or(ApiError::NoApp(app))?;
    let image_id = fields.get("imageId").map(|id| id.to_string().trim_matches('"').to_owned());
    let found = match (fields.text("serviceName"), image_id) {
        (Some(name), _) => services.keys().find(|it| it.as_str() == name),
        (None, Some(image)) => services
            .iter()
            .find(|(_, it)| it.container_name.rsplit('_').nth(2) == Some(&image))
            .map(|(name, _)| name),
        (None, None) => return Err(ApiError::Missing("serviceName or imageId")),
    };
    found.cloned().ok_or(ApiError::NoService)
}
