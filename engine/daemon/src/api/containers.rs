//! `/containers`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use minke_engine_client::wire::{
    CreateContainer, CreatedContainer, Pruned, UpdateContainer, WaitResult,
};
use minke_engine_shim::protocol::Size;
use serde_json::json;

use super::filters::Filters;
use super::params::{JsonBody, Params};
use super::reply::{Pieces, json as reply, line};
use crate::containers::container::{Container, Phase};
use crate::containers::document::Status;
use crate::containers::filter::Wanted;
use crate::containers::remove::Removal;
use crate::containers::stop::Stop;
use crate::containers::{
    create as make, remove as erase, start as run, stop as halt, update as alter, view,
};
use crate::daemon::Daemon;
use crate::damage;
use crate::error::{Error, Result};
use crate::serve::hijack::DetachKeys;

pub(super) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let wanted = Wanted::read(&daemon, params.filters()?)?;
    let limit = params.number::<i64>("limit")?.filter(|limit| *limit > 0);
    let all = params.flag("all") || limit.is_some() || wanted.wants_stopped();
    let is_wanted = |container: &Arc<Container>| {
        (all || container.status().counts_as_running()) && wanted.takes(&daemon, container)
    };
    let mut containers = daemon.containers.all();
    containers.retain(is_wanted);
    if let Some(limit) = limit {
        containers.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let sizes = match params.flag("size") {
        true => sizes(&containers).await?.into_iter().map(Some).collect(),
        false => vec![None; containers.len()],
    };
    let rows = containers.iter().zip(sizes);
    let rows: Vec<_> = rows.map(|(one, size)| view::summary(&daemon, one, size)).collect();
    Ok(reply(&rows))
}

/// What the own files of containers take.
async fn sizes(containers: &[Arc<Container>]) -> Result<Vec<i64>> {
    let containers = containers.to_vec();
    let measured = tokio::task::spawn_blocking(move || view::sizes(&containers));
    measured.await.map_err(Error::system("measuring containers"))
}

pub(super) async fn create(
    State(daemon): State<Daemon>,
    params: Params,
    JsonBody(body): JsonBody<CreateContainer>,
) -> Result<Response<Body>> {
    let name = params.text("name").unwrap_or_default();
    let platform = params.text("platform").unwrap_or_default();
    // Damage is answered as a missing image: whoever pulls it again repairs it.
    damage::before_create(&daemon, &body.config.image).await?;
    let created = make::create(&daemon, name, platform, body)?;
    let body = CreatedContainer { id: created.container.id.clone(), warnings: created.warnings };
    Ok((StatusCode::CREATED, reply(&body)).into_response())
}

pub(super) async fn inspect(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let size = match params.flag("size") {
        true => sizes(std::slice::from_ref(&container)).await?.pop(),
        false => None,
    };
    let mut details = view::details(&daemon, &container, size);
    if params.before((1, 45)) {
        // Its own short id was among the names that were asked for.
        let networks = details.network_settings.networks.iter_mut();
        for (_, endpoint) in networks.filter(|(name, _)| !is_standard(name)) {
            let aliases = endpoint.aliases.get_or_insert_default();
            for name in [&container.id[..12], &details.config.hostname] {
                if !aliases.iter().any(|alias| alias == name) {
                    aliases.push(name.to_owned());
                }
            }
        }
    }
    Ok(reply(&details))
}

/// Whether a network is there without being made.
fn is_standard(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none" | "default")
}

/// A change goes on to its end also when the client goes away.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(Error::system("finishing the call"))?
}

pub(super) async fn start(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<StatusCode> {
    // A body here once changed the host configuration; `null` and `{}` say nothing.
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.unwrap_or(0u64) > 7 {
        return Err(Error::Invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
                .to_owned(),
        ));
    }
    DetachKeys::parse(params.text("detachKeys").unwrap_or_default())?;
    let container = daemon.containers.find(&id)?;
    detached(async move { run::start(&daemon, &container).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn how_to_stop(params: &Params) -> Result<Stop> {
    Ok(Stop {
        seconds: params.number("t")?,
        signal: params.text("signal").unwrap_or_default().to_owned(),
    })
}

pub(super) async fn stop(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let how = how_to_stop(&params)?;
    detached(async move { halt::stop(&daemon, &container, how).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restart(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let how = how_to_stop(&params)?;
    detached(async move { halt::restart(&daemon, &container, how).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn kill(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let signal = params.text("signal").unwrap_or_default().to_owned();
    detached(async move { halt::kill(&daemon, &container, &signal).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    detached(async move { halt::pause(&daemon, &container).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    detached(async move { halt::unpause(&daemon, &container).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rename(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let name = params.text("name").unwrap_or_default().to_owned();
    detached(async move { alter::rename(&daemon, &container, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn update(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateContainer>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    detached(async move { alter::update(&daemon, &container, body).await }).await?;
    Ok(reply(&json!({ "Warnings": [] })))
}

pub(super) async fn remove(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    if params.flag("link") {
        return Err(Error::Invalid(format!("{id} is no link: a link is CONTAINER/ALIAS")));
    }
    let container = daemon.containers.find(&id)?;
    let how = Removal { force: params.flag("force"), volumes: params.flag("v") };
    detached(async move { erase::remove(&daemon, &container, how).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /containers/{id}/{alias}?link=1`: takes a link away and leaves both containers.
pub(super) async fn remove_link(
    State(daemon): State<Daemon>,
    Path((id, alias)): Path<(String, String)>,
    params: Params,
) -> Result<StatusCode> {
    if !params.flag("link") {
        return Err(Error::NotFound(format!("No such container: {id}/{alias}")));
    }
    let container = daemon.containers.find(&id)?;
    detached(async move { alter::remove_link(&container, &alias).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

pub(super) async fn wait(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let condition = match params.text("condition").unwrap_or_default() {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::Invalid(format!("invalid condition: {other:?}"))),
    };
    let container = daemon.containers.find(&id)?;
    // Armed here, before the answer's head goes out: what happens from now on is seen.
    let mut phase = container.phase.subscribe();
    let exits = phase.borrow_and_update().exits;
    drop(container);
    let pieces = Pieces::of(|sender| async move {
        let over = |phase: &Phase| match condition {
            Condition::NotRunning => !phase.running || phase.exits > exits || phase.removed,
            Condition::NextExit => phase.exits > exits || phase.removed,
            Condition::Removed => phase.removed,
        };
        let result = match phase.wait_for(over).await {
            Ok(phase) => WaitResult { status_code: phase.exit_code, error: None },
            // The container was removed between two looks.
            Err(_) => WaitResult::default(),
        };
        let _: Result<(), _> = sender.send(line(&result)).await;
    });
    Ok(pieces.answer("application/json"))
}

/// Reads `h` and `w`.
pub(super) fn terminal_size(params: &Params) -> Result<Size> {
    let number = |name: &str| -> Result<u16> {
        let missing = || Error::Invalid(format!("the parameter {name} is missing"));
        params.number(name)?.ok_or_else(missing)
    };
    Ok(Size { rows: number("h")?, columns: number("w")? })
}

pub(super) async fn resize(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let size = terminal_size(&params)?;
    match container.status() {
        status if status.has_process() => {
            let mut connection = container.connect().await?;
            let resized = connection.resize("", size).await;
            resized.map_err(Error::system("resizing the terminal"))?;
        }
        Status::Created => container.lock().early_size = Some(size),
        _ => return Err(container.not_running()),
    }
    Ok(StatusCode::OK)
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let pruned = detached(async move {
        let pruned = remove_ended(&daemon, &filters, until).await?;
        daemon.removals.settled().await;
        Ok(pruned)
    });
    Ok(reply(&pruned.await?))
}

/// Removes the containers that do not run and were made before `until`.
async fn remove_ended(daemon: &Daemon, filters: &Filters, until: Option<i64>) -> Result<Pruned> {
    let passes = |container: &Container| {
        let cell = container.lock();
        until.is_none_or(|until| cell.config.created_at <= until)
            && filters.labels_pass(&cell.config.config.labels)
    };
    let mut pruned = Pruned { containers_deleted: Some(Vec::new()), ..Pruned::default() };
    for container in daemon.containers.all() {
        if container.status().counts_as_running() || !passes(&container) {
            continue;
        }
        let size = sizes(std::slice::from_ref(&container)).await?.pop().unwrap_or_default();
        if erase::remove(daemon, &container, Removal::default()).await.is_ok() {
            pruned.space_reclaimed += size;
            pruned.containers_deleted.get_or_insert_default().push(container.id.clone());
        }
    }
    Ok(pruned)
}
