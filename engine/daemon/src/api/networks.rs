//! `/networks`.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use minke_engine_client::wire::{
    ConnectNetwork, CreateNetwork, CreatedNetwork, DisconnectNetwork, Network, Pruned,
};

use super::params::{JsonBody, Params};
use super::reply::json;
use crate::containers::filter::{Filters, check_keys, label_matches};
use crate::containers::membership;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::networks::Found;
use crate::stamp;

pub(super) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    check_keys(&filters, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let mut networks = daemon.show_networks();
    networks.retain(|network| passes(&filters, network));
    Ok(json(&networks))
}

fn passes(filters: &Filters, network: &Network) -> bool {
    let built_in = matches!(network.name.as_str(), "bridge" | "host" | "none");
    filters.iter().all(|(key, values)| {
        if key == "label" {
            return values.iter().all(|value| label_matches(&network.labels, value));
        }
        values.is_empty()
            || values.iter().any(|value| match key.as_str() {
                "driver" => network.driver == *value,
                "id" => network.id.starts_with(value.as_str()),
                "name" => network.name.contains(value.as_str()),
                "scope" => network.scope == *value,
                "type" => (value == "builtin") == built_in,
                "dangling" => {
                    let dangling = network.containers.is_empty() && !built_in;
                    matches!(value.as_str(), "true" | "1") == dangling
                }
                _ => false,
            })
    })
}

pub(super) async fn create(
    State(daemon): State<Daemon>,
    JsonBody(body): JsonBody<CreateNetwork>,
) -> Result<Response<Body>> {
    let record = daemon.create_network(&body).await?;
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
    daemon.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn bridge(found: Found) -> Result<minke_engine_network::NetworkRecord> {
    match found {
        Found::Bridge(record) => Ok(*record),
        Found::Host => Err(Error::Forbidden(
            "container cannot be connected to or disconnected from host network".to_owned(),
        )),
        Found::None => Err(Error::Forbidden(
            "container cannot be connected to or disconnected from none network".to_owned(),
        )),
    }
}

pub(super) async fn connect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ConnectNetwork>,
) -> Result<StatusCode> {
    let record = bridge(daemon.find_network(&id)?)?;
    let container = daemon.containers.find(&body.container)?;
    let endpoint = body.endpoint_config.unwrap_or_default();
    membership::connect(&daemon, &container, &record, endpoint).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn disconnect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<DisconnectNetwork>,
) -> Result<StatusCode> {
    let record = bridge(daemon.find_network(&id)?)?;
    let container = daemon.containers.find(&body.container)?;
    membership::disconnect(&daemon, &container, &record, body.force).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    check_keys(&filters, &["label", "label!", "until"])?;
    let now = stamp::now();
    let mut latest = i64::MAX;
    for text in filters.get("until").into_iter().flatten() {
        let time = stamp::parse_query(text, now)
            .ok_or_else(|| Error::Invalid(format!("invalid value {text:?} of the filter until")))?;
        latest = latest.min(time);
    }
    let mut deleted = Vec::new();
    for record in daemon.networks.list() {
        let wanted = daemon
            .containers
            .all()
            .iter()
            .any(|container| container.lock().config.networks.contains_key(&record.name));
        let labels: &BTreeMap<String, String> = &record.labels;
        let with = filters.get("label").into_iter().flatten();
        let without = filters.get("label!").into_iter().flatten();
        let passes = with.into_iter().all(|label| label_matches(labels, label))
            && !without.into_iter().any(|label| label_matches(labels, label));
        if record.name != "bridge"
            && i64::try_from(record.created_at).unwrap_or(i64::MAX).saturating_mul(1_000_000)
                < latest
            && !wanted
            && passes
            && daemon.remove_network(&record.id).await.is_ok()
        {
            deleted.push(record.name);
        }
    }
    Ok(json(&Pruned { networks_deleted: Some(deleted), ..Pruned::default() }))
}
