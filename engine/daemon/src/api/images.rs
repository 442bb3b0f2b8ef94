//! `/images`, but for what moves bytes to and from registries and archives.

pub(super) mod list;

use std::collections::{HashMap, HashSet};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::{
    ContainerConfig, DeletedImage, GraphDriver, HistoryEntry, ImageDetails, ImageMetadata, Pruned,
    RootFs,
};
use minke_engine_images::{Image, ImageId, RemoveOptions, Removed};

use super::params::Params;
use super::reply::json;
use super::transfer;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::stamp;

/// `GET /images/{name}/…`: the name may have slashes.
pub(super) async fn get(
    State(daemon): State<Daemon>,
    Path(rest): Path<String>,
) -> Result<Response<Body>> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => inspect(&daemon, name),
        Some((name, "history")) => history(&daemon, name),
        Some((name, "get")) => transfer::save(&daemon, vec![name.to_owned()]),
        _ => Err(not_a_call("GET", &rest)),
    }
}

/// `POST /images/{name}/…`.
pub(super) async fn post(
    State(daemon): State<Daemon>,
    Path(rest): Path<String>,
    params: Params,
    headers: axum::http::HeaderMap,
) -> Result<Response<Body>> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => tag(&daemon, name, &params).await,
        Some((name, "push")) => transfer::push(&daemon, name, &params, &headers).await,
        _ => Err(not_a_call("POST", &rest)),
    }
}

fn not_a_call(method: &str, rest: &str) -> Error {
    Error::NotFound(format!("{method} /images/{rest} is not a call of this engine"))
}

fn created(image: &Image) -> i64 {
    image.created().and_then(stamp::parse_rfc3339).unwrap_or(0)
}

fn familiar(names: &[ImageReference]) -> Vec<String> {
    names.iter().map(ImageReference::familiar).collect()
}

fn inspect(daemon: &Daemon, name: &str) -> Result<Response<Body>> {
    let image = daemon.images.image(name)?;
    let config = &image.config;
    let value = serde_json::to_value(&config.config)
        .map_err(Error::system("reading the image's configuration"))?;
    let run: ContainerConfig = serde_json::from_value(value)
        .map_err(Error::system("reading the image's configuration"))?;
    let details = ImageDetails {
        id: image.id.to_string(),
        repo_tags: familiar(&image.tags),
        repo_digests: familiar(&image.digests),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: image.created().unwrap_or(stamp::NEVER).to_owned(),
        comment: config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default(),
        author: config.author.clone().unwrap_or_default(),
        config: run,
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        size: image.size as i64,
        graph_driver: GraphDriver { name: "overlay2".to_owned(), ..GraphDriver::default() },
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: image.layers().iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: stamp::rfc3339(image.last_tagged as i64 * 1_000_000),
        },
        ..ImageDetails::default()
    };
    // Of before 1.45; compose 1.29 makes no container anew without it, whatever version it asks for.
    let mut shown = serde_json::to_value(&details).map_err(Error::system("showing the image"))?;
    shown["ContainerConfig"] = shown["Config"].clone();
    if daemon.options.build_worker && !is_public(daemon, name, &image) {
        shown["Private"] = true.into();
    }
    Ok(json(&shown))
}

fn history(daemon: &Daemon, name: &str) -> Result<Response<Body>> {
    let image = daemon.images.image(name)?;
    let mut layers = image.layers().iter();
    let mut rows: Vec<HistoryEntry> = image
        .config
        .history
        .iter()
        .map(|step| HistoryEntry {
            id: "<missing>".to_owned(),
            created: step.created.as_deref().and_then(stamp::parse_rfc3339).unwrap_or(0)
                / 1_000_000_000,
            created_by: step.created_by.clone().unwrap_or_default(),
            comment: step.comment.clone().unwrap_or_default(),
            size: match step.empty_layer {
                true => 0,
                false => layers.next().map_or(0, |layer| daemon.images.layer_size(layer) as i64),
            },
            ..HistoryEntry::default()
        })
        .collect();
    rows.reverse();
    if let Some(top) = rows.first_mut() {
        top.id = image.id.to_string();
        top.tags = Some(familiar(&image.tags)).filter(|tags| !tags.is_empty());
    }
    Ok(json(&rows))
}

/// Whether a stranger for whom something is built may have an image by this name.
fn is_public(daemon: &Daemon, name: &str, image: &Image) -> bool {
    let public = name.parse().ok().and_then(|name| daemon.images.public_image(&name));
    public.is_some_and(|public| public.id == image.id)
}

async fn tag(daemon: &Daemon, name: &str, params: &Params) -> Result<Response<Body>> {
    let image = daemon.images.image(name)?;
    let repository = params.text("repo").unwrap_or_default();
    let reference = transfer::reference(repository, params.text("tag").unwrap_or_default())?;
    daemon.images.tag(&image.id, &reference).await?;
    tell(daemon, "tag", &image.id.to_string(), &reference.familiar());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Publishes that something happened to an image.
pub(super) fn tell(daemon: &Daemon, action: &str, id: &str, name: &str) {
    let attributes = Attributes::from([("name".to_owned(), name.to_owned())]);
    daemon.events.publish("image", action, id, attributes);
}

/// What a removal took away, as the API lists it. Of what was deleted only images, which are in `known`,
/// are worth an event: the rest are stacks of layers.
fn tell_removed(
    daemon: &Daemon,
    owner: impl Fn(&str) -> String,
    removed: &[Removed],
    known: &HashSet<ImageId>,
) -> Vec<DeletedImage> {
    let rows = removed.iter().map(|one| match one {
        Removed::Untagged(name) => {
            tell(daemon, "untag", &owner(name), name);
            DeletedImage { untagged: Some(name.clone()), deleted: None }
        }
        Removed::Deleted(id) => {
            if id.parse().is_ok_and(|id| known.contains(&id)) {
                tell(daemon, "delete", id, id);
            }
            DeletedImage { untagged: None, deleted: Some(id.clone()) }
        }
    });
    rows.collect()
}

/// Every name of an image, with the image's id.
fn names(image: &Image) -> impl Iterator<Item = (String, String)> {
    let names = image.tags.iter().chain(&image.digests);
    names.map(|name| (name.familiar(), image.id.to_string()))
}

pub(super) async fn remove(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    // A damaged image is not found, but can be removed.
    let id = daemon.images.image(&name).map_or_else(|_| name.clone(), |image| image.id.to_string());
    let options = RemoveOptions { force: params.flag("force"), no_prune: params.flag("noprune") };
    let known = daemon.images.ids();
    let removed = daemon.images.remove(&name, options).await?;
    Ok(json(&tell_removed(&daemon, |_| id.clone(), &removed, &known)))
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    filters.check(&["dangling", "label", "label!", "until"])?;
    let dangling = filters.switch("dangling")?.unwrap_or(true);
    let until = filters.until()?;
    let wanted = |image: &Image| {
        until.is_none_or(|until| created(image) <= until)
            && filters.labels_pass(&image.config.config.labels)
    };
    let known = daemon.images.ids();
    let owners: HashMap<String, String> = daemon.images.images().iter().flat_map(names).collect();
    let pruned = daemon.images.prune(dangling, wanted).await?;
    let owner = |name: &str| owners.get(name).cloned().unwrap_or_default();
    let rows = tell_removed(&daemon, owner, &pruned.removed, &known);
    Ok(json(&Pruned {
        images_deleted: Some(rows),
        space_reclaimed: pruned.space_reclaimed as i64,
        ..Pruned::default()
    }))
}
