//! `/networks`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use minke_engine_client::wire::{
    ConnectNetwork, CreateNetwork, CreatedNetwork, DisconnectNetwork, Network, Pruned,
};

use super::containers::detached;
use super::filters::{Filters, invalid};
use super::params::{JsonBody, Params};
use super::reply::json;
use crate::containers::membership;
use crate::daemon::Daemon;
use crate::error::Result;

/// What `type` tells apart: networks that are there without being made, and all others.
const KINDS: [&str; 2] = ["builtin", "custom"];

pub(super) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.switch("dangling")?;
    if let Some(kind) = filters.all("type").iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(invalid("type", kind));
    }
    let mut networks = daemon.show_networks();
    networks.retain(|network| passes(&filters, dangling, network));
    Ok(json(&networks))
}

fn passes(filters: &Filters, dangling: Option<bool>, network: &Network) -> bool {
    let built_in = matches!(network.name.as_str(), "bridge" | "host" | "none");
    let kind = if built_in { "builtin" } else { "custom" };
    filters.labels_pass(&network.labels)
        && filters.word_passes("driver", &network.driver)
        && filters.text_passes("id", &network.id)
        && filters.text_passes("name", &network.name)
        && filters.word_passes("scope", &network.scope)
        && filters.word_passes("type", kind)
        && dangling.is_none_or(|wanted| wanted == (network.containers.is_empty() && !built_in))
}

pub(super) async fn create(
    State(daemon): State<Daemon>,
    JsonBody(body): JsonBody<CreateNetwork>,
) -> Result<Response<Body>> {
    let work = daemon.clone();
    let record = detached(async move { work.create_network(&body).await }).await?;
    let warning = match daemon.networks.detect_forward_drop().await {
        Some(warning) => warning.to_string(),
        None => String::new(),
    };
    let body = CreatedNetwork { id: record.id, warning };
    Ok((StatusCode::CREATED, json(&body)).into_response())
}

pub(super) async fn inspect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<Response<Body>> {
    let found = daemon.find_network(&id)?;
    Ok(json(&daemon.show_found(&found)))
}

pub(super) async fn remove(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    detached(async move { daemon.remove_network(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn connect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ConnectNetwork>,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&body.container)?;
    let endpoint = body.endpoint_config.unwrap_or_default();
    detached(async move { membership::connect(&daemon, &container, &id, endpoint).await }).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn disconnect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<DisconnectNetwork>,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&body.container)?;
    let force = body.force;
    detached(async move { membership::disconnect(&daemon, &container, &id, force).await }).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["label", "label!", "until"])?;
    let latest = filters.until()?.unwrap_or(i64::MAX);
    let deleted =
        detached(async move { Ok(remove_unused(&daemon, &filters, latest).await) }).await?;
    Ok(json(&Pruned { networks_deleted: Some(deleted), ..Pruned::default() }))
}

/// Removes the networks that no container wants and that were made before `latest`; their names.
async fn remove_unused(daemon: &Daemon, filters: &Filters, latest: i64) -> Vec<String> {
    let mut deleted = Vec::new();
    for record in daemon.networks.list() {
        let wanted = daemon
            .containers
            .all()
            .iter()
            .any(|container| container.lock().config.networks.contains_key(&record.name));
        if record.name != "bridge"
            && i64::try_from(record.created_at).unwrap_or(i64::MAX).saturating_mul(1_000_000)
                < latest
            && !wanted
            && filters.labels_pass(&record.labels)
            && daemon.remove_network(&record.id).await.is_ok()
        {
            deleted.push(record.name);
        }
    }
    deleted
}
