//! Version 1: the device as a whole, and apps with one service.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use minke_common_model::ids::AppId;
use minke_device_keeper::Request;
use serde_json::{Value, json};

use super::Api;
use super::body::Fields;
use super::error::ApiError;
use crate::api_keys::Scope;
use crate::memory::FORCE_HELD;
use crate::state::{ContainerId, ObservedContainer};

type Answer = Result<Response, ApiError>;

pub(super) async fn ping() -> &'static str {
    "OK"
}

pub(super) async fn healthy(State(api): State<Arc<Api>>) -> Response {
    let health = api.health.borrow().clone();
    match !api.is_managed || health.is_none_or(|health| health.is_healthy()) {
        true => "OK".into_response(),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy").into_response(),
    }
}

pub(super) async fn blink() -> &'static str {
    "OK"
}

pub(super) async fn device(State(api): State<Arc<Api>>) -> Json<Value> {
    let report = api.report.borrow().clone();
    let status = api.status.borrow().clone();
    let mut body = json!({
        "api_port": report.api_port,
        "ip_address": report.ip_address,
        "mac_address": report.mac_address,
        "os_version": report.os_version,
        "status": report.status,
        "supervisor_version": report.supervisor_version,
        "update_pending": !status.is_settled(),
        "update_failed": !status.failures.is_empty(),
        "update_downloaded": status.plan.waits.iter().any(|wait| matches!(wait, crate::step::Wait::UpdateLock(_))),
        "download_progress": super::v2::overall_progress(&report),
    });
    let applied = report.apps.iter().flatten().find_map(|(_, app)| app.release_uuid.clone());
    if let Some(commit) = applied {
        body["commit"] = json!(commit);
    }
    Json(body)
}

pub(super) async fn update(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    scope.allow_device()?;
    let force = fields.truth("force");
    if !api.view.borrow().config.instant_updates && !force {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    if force {
        let target = api.status.borrow().target.clone();
        let apps = target.iter().flat_map(|target| target.apps.keys().cloned());
        api.memory.force_update(apps);
        let wake = api.wake.clone();
        tokio::spawn(async move {
            // The loop finds it over, and not the next target.
            tokio::time::sleep(FORCE_HELD).await;
            wake.notify_one();
        });
    }
    api.look.notify_one();
    api.wake.notify_one();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The tunnel says that it is up, for so many milliseconds or until it says it again; 0 is down.
pub(super) async fn tunnel(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    scope.allow_device()?;
    let time = fields.get("upForMs").and_then(Value::as_u64);
    api.tunnel.renew(Duration::from_millis(time.ok_or(ApiError::Missing("upForMs"))?));
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn regenerate_api_key(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
) -> Answer {
    scope.allow_device()?;
    let key = api.keys.regenerate().map_err(|error| ApiError::NotDone(error.to_string()))?;
    api.wake.notify_one();
    Ok(key.into_response())
}

pub(super) async fn restart(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    let app = fields.app()?;
    super::v2::restart_app(&api, scope, app, fields.truth("force")).await?;
    Ok("OK".into_response())
}

pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    let app = fields.app()?;
    super::v2::purge_app(&api, scope, app, fields.truth("force")).await?;
    Ok(Json(json!({ "Data": "OK", "Error": "" })).into_response())
}

pub(super) async fn reboot(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    power(&api, scope, fields, Request::Reboot).await
}

pub(super) async fn shutdown(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    power(&api, scope, fields, Request::Shutdown).await
}

async fn power(api: &Api, scope: Scope, fields: Fields, request: Request) -> Answer {
    scope.allow_device()?;
    let target = api.status.borrow().target.clone().unwrap_or_default();
    let mut apps = target.apps.values().map(|app| app.id);
    let is_locked = apps.any(|app| api.check_lock(app, false).is_err());
    let may_break = fields.truth("force");
    let failed = |status: StatusCode, error: String| {
        Ok((status, Json(json!({ "Data": "", "Error": error }))).into_response())
    };
    if is_locked && !may_break {
        return failed(StatusCode::LOCKED, "Updates are locked by a service".to_owned());
    }
    match ask_keeper(api, request).await {
        Ok(_) => {
            let body = Json(json!({ "Data": "OK", "Error": null }));
            Ok((StatusCode::ACCEPTED, body).into_response())
        }
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn ask_keeper(api: &Api, request: Request) -> Result<Option<String>, ApiError> {
    let keeper = api.keeper.clone();
    tokio::task::spawn_blocking(move || keeper.call(&request))
        .await
        .map_err(|error| ApiError::NotDone(error.to_string()))?
        .map_err(|error| ApiError::NotDone(crate::reconcile::describe(&error)))
}

pub(super) async fn host_config(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
) -> Answer {
    scope.allow_device()?;
    let hostname = ask_keeper(&api, Request::Hostname).await?.unwrap_or_default();
    Ok(Json(json!({ "network": { "hostname": hostname } })).into_response())
}

pub(super) async fn set_host_config(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    fields: Fields,
) -> Answer {
    scope.allow_device()?;
    let hostname = fields.get("network").and_then(|network| network.get("hostname"));
    let name = hostname.and_then(Value::as_str).ok_or(ApiError::Missing("network.hostname"))?;
    // No name is the device's own: the first seven digits of its uuid.
    let name = if name.is_empty() { api.view.borrow().short_uuid() } else { name.to_owned() };
    ask_keeper(&api, Request::SetHostname { name }).await?;
    Ok("OK".into_response())
}

pub(super) async fn app(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
) -> Answer {
    scope.allow(app)?;
    let uuid = api.app(app)?;
    let (id, container) = only_service(&api, app)?;
    let status = api.status.borrow().clone();
    let target = status.target.as_ref().and_then(|target| target.apps.get(&uuid));
    let service = target.and_then(|target| target.services.get(&container.service));
    let env: serde_json::Map<String, Value> = service
        .iter()
        .flat_map(|service| &service.body.config.env)
        .filter_map(|entry| entry.split_once('='))
        .filter(|(name, _)| !name.ends_with("API_KEY"))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let release = target.and_then(|target| target.release.as_ref());
    let image_id = container.name.rsplit('_').nth(2).and_then(|id| id.parse::<u64>().ok());
    Ok(Json(json!({
        "appId": app,
        "commit": release.map(|release| release.commit.clone()),
        "containerId": id.0,
        "env": env,
        "imageId": image_id,
        "releaseId": release.map(|release| release.id),
    }))
    .into_response())
}

fn only_service(api: &Api, app: AppId) -> Result<(ContainerId, ObservedContainer), ApiError> {
    let uuid = api.app(app)?;
    let mut containers = api.containers(&uuid).into_iter();
    match (containers.next(), containers.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(ApiError::NoService),
        _ => Err(ApiError::ManyServices),
    }
}

pub(super) async fn stop(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
    fields: Fields,
) -> Answer {
    scope.allow(app)?;
    let (id, container) = only_service(&api, app)?;
    super::v2::stop_one(&api, app, container.service, fields.truth("force")).await?;
    Ok(Json(json!({ "containerId": id.0 })).into_response())
}

pub(super) async fn start(
    State(api): State<Arc<Api>>,
    Extension(scope): Extension<Scope>,
    Path(app): Path<AppId>,
) -> Answer {
    scope.allow(app)?;
    let (id, container) = only_service(&api, app)?;
    super::v2::start_one(&api, app, container.service).await?;
    Ok(Json(json!({ "containerId": id.0 })).into_response())
}
