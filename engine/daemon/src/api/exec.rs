//! `/containers/{id}/exec` and `/exec`, but for the start, which takes its connection over.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use minke_engine_client::wire::{CreateExec, CreatedId};

use super::containers::terminal_size;
use super::params::{JsonBody, Params};
use super::reply::json;
use crate::containers::exec;
use crate::daemon::Daemon;
use crate::error::Result;

pub(super) async fn create(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<CreateExec>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let id = exec::create(&daemon, &container, body)?;
    Ok((StatusCode::CREATED, json(&CreatedId { id })).into_response())
}

pub(super) async fn inspect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<Response<Body>> {
    let container = daemon.containers.of_exec(&id)?;
    Ok(json(&exec::show(&container, &id)?))
}

pub(super) async fn resize(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.of_exec(&id)?;
    exec::resize(&container, &id, terminal_size(&params)?).await?;
    Ok(StatusCode::OK)
}
