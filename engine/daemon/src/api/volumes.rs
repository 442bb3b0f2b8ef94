//! `/volumes`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use minke_engine_client::wire::{CreateVolume, Pruned, VolumeList};

use super::filters::Filters;
use super::params::{JsonBody, Params};
use super::reply::json;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::volumes::{VolumeDocument, disk_usage};

fn driver() -> Attributes {
    Attributes::from([("driver".to_owned(), "local".to_owned())])
}

pub(super) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.switch("dangling")?;
    let volumes = daemon.volumes.list()?;
    let shown = volumes.iter().filter(|volume| passes(&daemon, &filters, dangling, volume));
    let volumes = shown.map(|volume| daemon.volumes.show(volume)).collect();
    Ok(json(&VolumeList { volumes, warnings: Vec::new() }))
}

fn passes(
    daemon: &Daemon,
    filters: &Filters,
    dangling: Option<bool>,
    volume: &VolumeDocument,
) -> bool {
    filters.labels_pass(&volume.labels)
        && filters.text_passes("name", &volume.name)
        && filters.word_passes("driver", "local")
        && dangling.is_none_or(|wanted| wanted == daemon.volume_users(&volume.name).is_empty())
}

pub(super) async fn create(
    State(daemon): State<Daemon>,
    JsonBody(body): JsonBody<CreateVolume>,
) -> Result<Response<Body>> {
    let (volume, new) = daemon.volumes.create(&body)?;
    if new {
        daemon.events.publish("volume", "create", &volume.name, driver());
    }
    Ok((StatusCode::CREATED, json(&daemon.volumes.show(&volume))).into_response())
}

pub(super) async fn inspect(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
) -> Result<Response<Body>> {
    let volume = daemon.volumes.get(&name)?;
    Ok(json(&daemon.volumes.show(&volume)))
}

pub(super) async fn remove(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode> {
    match daemon.volumes.get(&name) {
        Err(Error::NotFound(_)) if params.flag("force") => return Ok(StatusCode::NO_CONTENT),
        Err(error @ Error::NotFound(_)) => return Err(error),
        // Also one whose document is damaged: there may be no other way to get rid of it.
        _ => {}
    }
    let users = daemon.volume_users(&name);
    if !users.is_empty() {
        let users = users.join(", ");
        return Err(Error::Conflict(format!("remove {name}: volume is in use - [{users}]")));
    }
    let gone = daemon.volumes.remove(&name)?;
    daemon.events.publish("volume", "destroy", &name, driver());
    // Whoever removes a volume may need its room.
    gone.await.map_err(Error::system("removing the volume's files"))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["all", "label", "label!"])?;
    // Before 1.42 there was no such choice.
    let all = params.before((1, 42)) || filters.switch("all")?.unwrap_or(false);
    let mut pruned = Pruned { volumes_deleted: Some(Vec::new()), ..Pruned::default() };
    for volume in daemon.volumes.list()? {
        // Volumes with names are somebody's data: they go only if all are asked for.
        let named = !volume.is_anonymous() && !all;
        let in_use = || !daemon.volume_users(&volume.name).is_empty();
        if named || !filters.labels_pass(&volume.labels) || in_use() {
            continue;
        }
        let data = daemon.volumes.data(&volume.name);
        let size = tokio::task::spawn_blocking(move || disk_usage(&data)).await;
        // A container may have come to it meanwhile.
        if in_use() {
            continue;
        }
        if let Ok(gone) = daemon.volumes.remove(&volume.name) {
            daemon.events.publish("volume", "destroy", &volume.name, driver());
            gone.await.map_err(Error::system("removing the volume's files"))?;
            pruned.space_reclaimed += size.unwrap_or_default() as i64;
            pruned.volumes_deleted.get_or_insert_default().push(volume.name);
        }
    }
    Ok(json(&pruned))
}
