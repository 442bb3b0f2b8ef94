//! `/images`, but for what moves bytes to and from registries and archives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::{
    ContainerConfig, DeletedImage, GraphDriver, HistoryEntry, ImageDetails, ImageMetadata,
    ImageSummary, Pruned, RootFs,
};
use minke_engine_images::{DiffId, Image, RemoveOptions, Removed};

use super::params::Params;
use super::reply::json;
use super::transfer;
use crate::containers::container::Container;
use crate::containers::filter::{Filters, check_keys, label_matches};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::events::Attributes;
use crate::stamp;

pub(super) async fn list(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    check_keys(&filters, &["before", "dangling", "label", "reference", "since", "until"])?;
    let mut rows = Vec::new();
    let shared: BTreeMap<String, i64> = match params.flag("shared-size") {
        true => summaries(&daemon).into_iter().map(|row| (row.id, row.shared_size)).collect(),
        false => BTreeMap::new(),
    };
    for image in daemon.images.images() {
        // Unnamed parents of a build are of interest to the build only.
        let intermediate = image.is_dangling() && has_child(&daemon, &image);
        if passes(&daemon, &filters, &image)? && (params.flag("all") || !intermediate) {
            let mut row = summary(&image);
            row.shared_size = shared.get(&row.id).copied().unwrap_or(-1);
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    Ok(json(&rows))
}

fn has_child(daemon: &Daemon, image: &Image) -> bool {
    daemon.images.images().iter().any(|other| other.parent.as_ref() == Some(&image.id))
}

/// Every image as a row, with what it shares and how many containers it has.
pub(super) fn summaries(daemon: &Daemon) -> Vec<ImageSummary> {
    let images = daemon.images.images();
    let mut users: BTreeMap<&DiffId, u32> = BTreeMap::new();
    for layer in images.iter().flat_map(|image| image.layers()) {
        *users.entry(layer).or_default() += 1;
    }
    let containers = daemon.containers.all();
    let rows = images.iter().map(|image| {
        let shared = image.layers().iter().filter(|layer| users[layer] > 1);
        let shared: u64 = shared.map(|layer| daemon.images.layer_size(layer)).sum();
        let id = image.id.to_string();
        let of_image = |container: &&Arc<Container>| container.lock().config.image_id == id;
        ImageSummary {
            shared_size: shared as i64,
            containers: containers.iter().filter(of_image).count() as i64,
            ..summary(image)
        }
    });
    rows.collect()
}

/// Bytes of all layers, each counted once.
pub(super) fn layers_size(daemon: &Daemon) -> i64 {
    let images = daemon.images.images();
    let layers: BTreeSet<&DiffId> = images.iter().flat_map(|image| image.layers()).collect();
    layers.into_iter().map(|layer| daemon.images.layer_size(layer) as i64).sum()
}

fn created(image: &Image) -> i64 {
    image.created().and_then(stamp::parse_rfc3339).unwrap_or(0)
}

fn familiar(names: &[ImageReference]) -> Vec<String> {
    names.iter().map(ImageReference::familiar).collect()
}

fn summary(image: &Image) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_tags: familiar(&image.tags),
        repo_digests: familiar(&image.digests),
        created: created(image) / 1_000_000_000,
        size: image.size as i64,
        shared_size: -1,
        labels: image.config.config.labels.clone(),
        containers: -1,
    }
}

fn passes(daemon: &Daemon, filters: &Filters, image: &Image) -> Result<bool> {
    for (key, values) in filters {
        let mut ok = values.is_empty();
        for value in values {
            let one = match key.as_str() {
                "dangling" => match value.as_str() {
                    "true" | "1" => image.is_dangling(),
                    "false" | "0" => !image.is_dangling(),
                    _ => return Err(Error::Invalid(format!("invalid filter 'dangling={value}'"))),
                },
                "label" => label_matches(&image.config.config.labels, value),
                "reference" => image.tags.iter().any(|tag| reference_matches(tag, value)),
                "before" | "since" => {
                    let other = created(&daemon.images.image(value)?);
                    if key == "before" { created(image) < other } else { created(image) > other }
                }
                "until" => stamp::parse_query(value, stamp::now())
                    .is_some_and(|until| created(image) <= until),
                _ => false,
            };
            // Labels are all required; other values are alternatives.
            if key == "label" {
                ok = one;
                if !one {
                    break;
                }
            } else {
                ok |= one;
            }
        }
        if !ok {
            return Ok(false);
        }
    }
    Ok(true)
}

fn reference_matches(tag: &ImageReference, pattern: &str) -> bool {
    let (full, name) = (tag.familiar(), tag.familiar_name());
    glob(pattern.as_bytes(), full.as_bytes())
        || glob(pattern.as_bytes(), name.as_bytes())
        || glob(pattern.as_bytes(), tag.to_string().as_bytes())
}

/// `*` is any run without a slash, `?` any one character but a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text)
                || text.split_first().is_some_and(|(c, tail)| *c != b'/' && glob(pattern, tail))
        }
        (Some((b'?', rest)), Some((c, tail))) => *c != b'/' && glob(rest, tail),
        (Some((p, rest)), Some((c, tail))) => p == c && glob(rest, tail),
        _ => false,
    }
}

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

fn tell_removed(daemon: &Daemon, image: &str, removed: &[Removed]) -> Vec<DeletedImage> {
    let rows = removed.iter().map(|one| match one {
        Removed::Untagged(name) => {
            tell(daemon, "untag", image, name);
            DeletedImage { untagged: Some(name.clone()), deleted: None }
        }
        Removed::Deleted(id) => {
            tell(daemon, "delete", id, id);
            DeletedImage { untagged: None, deleted: Some(id.clone()) }
        }
    });
    rows.collect()
}

pub(super) async fn remove(
    State(daemon): State<Daemon>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    // A damaged image is not found, but can be removed.
    let id = daemon.images.image(&name).map_or_else(|_| name.clone(), |image| image.id.to_string());
    let options = RemoveOptions { force: params.flag("force"), no_prune: params.flag("noprune") };
    let removed = daemon.images.remove(&name, options).await?;
    Ok(json(&tell_removed(&daemon, &id, &removed)))
}

pub(super) async fn prune(State(daemon): State<Daemon>, params: Params) -> Result<Response<Body>> {
    let filters = params.filters()?;
    check_keys(&filters, &["dangling", "label", "label!", "until"])?;
    let all = filters
        .get("dangling")
        .into_iter()
        .flatten()
        .any(|value| matches!(value.as_str(), "false" | "0"));
    let now = stamp::now();
    let until = match filters.get("until").and_then(|values| values.first()) {
        Some(text) => Some(
            stamp::parse_query(text, now)
                .ok_or_else(|| Error::Invalid(format!("invalid filter 'until={text}'")))?,
        ),
        None => None,
    };
    let wanted = |image: &Image| {
        let labels = &image.config.config.labels;
        let with = filters.get("label").into_iter().flatten();
        let without = filters.get("label!").into_iter().flatten();
        until.is_none_or(|until| created(image) <= until)
            && with.into_iter().all(|label| label_matches(labels, label))
            && !without.into_iter().any(|label| label_matches(labels, label))
    };
    let pruned = daemon.images.prune(!all, wanted).await?;
    let rows = tell_removed(&daemon, "", &pruned.removed);
    Ok(json(&Pruned {
        images_deleted: Some(rows),
        space_reclaimed: pruned.space_reclaimed as i64,
        ..Pruned::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_by_pattern() {
        let tag: ImageReference = "localhost:5000/team/web:v1".parse().unwrap();
        for pattern in ["localhost:5000/team/web", "localhost:5000/*/web:v*", "*/team/web:v?"] {
            assert!(reference_matches(&tag, pattern), "{pattern}");
        }
        let busybox: ImageReference = "busybox:1".parse().unwrap();
        assert!(reference_matches(&busybox, "busybox") && reference_matches(&busybox, "busy*"));
        assert!(reference_matches(&busybox, "docker.io/library/busybox:1"));
        assert!(!reference_matches(&tag, "web") && !reference_matches(&tag, "*"));
    }
}
