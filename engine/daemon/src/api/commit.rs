//! `/commit`, `/containers/{id}/export` and the import of a root file system.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use minke_engine_client::wire::{ContainerConfig, CreatedId};
use minke_engine_images::{History, ImageConfig, ImageId, Platform};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::archive::{self, inside::Place};
use super::images::tell;
use super::params::{JsonBody, Params};
use super::reply::{Pieces, json as reply, line};
use super::transfer::{ChannelReader, ChannelWriter, reference};
use crate::build;
use crate::containers::commit;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::stamp;

/// Until an address from which is imported begins to answer.
const ANSWER: Duration = Duration::from_secs(80);

/// `POST /commit`: a container made into an image.
pub(super) async fn commit(
    State(daemon): State<Daemon>,
    params: Params,
    JsonBody(body): JsonBody<ContainerConfig>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(params.text("container").unwrap_or_default())?;
    let repository = params.text("repo").unwrap_or_default();
    let name = match repository {
        "" => None,
        name => Some(reference(name, params.text("tag").unwrap_or_default())?),
    };
    let how = commit::Commit {
        config: body,
        changes: params.all("changes").map(str::to_owned).collect(),
        comment: params.text("comment").unwrap_or_default().to_owned(),
        author: params.text("author").unwrap_or_default().to_owned(),
        pause: params.text("pause").is_none() || params.flag("pause"),
    };
    let work = daemon.clone();
    let made = super::containers::detached(async move {
        let id = commit::commit(&work, &container, how).await?;
        if let Some(name) = name {
            work.images.tag(&id, &name).await?;
            tell(&work, "tag", &id.to_string(), &name.familiar());
        }
        let mut attributes = container.attributes();
        attributes.insert("imageID".to_owned(), id.to_string());
        work.events.publish("container", "commit", &container.id, attributes);
        Ok(id)
    });
    let id = made.await?.to_string();
    Ok((StatusCode::CREATED, reply(&CreatedId { id })).into_response())
}

/// `GET /containers/{id}/export`: the root file system, without what is mounted in it.
pub(super) async fn export(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let place = Place::root(&daemon, &container).await?;
    daemon.events.publish("container", "export", &container.id, container.attributes());
    let pieces = Pieces::whole(|sender| async move {
        let writer = ChannelWriter { sender: Arc::new(sender) };
        let packed = archive::pack_root(&place, writer).await;
        if let Err(error) = &packed {
            tracing::warn!(container = container.id, %error, "an export broke off");
        }
        place.leave().await;
        packed
    });
    Ok(pieces.answer("application/x-tar"))
}

/// `POST /images/create?fromSrc=…`: an image of one layer.
pub(super) async fn import(daemon: Daemon, params: Params, body: Body) -> Result<Response<Body>> {
    let source = params.text("fromSrc").unwrap_or_default().to_owned();
    let name = match params.text("repo").unwrap_or_default() {
        "" => None,
        name => Some(reference(name, params.text("tag").unwrap_or_default())?),
    };
    let platform = match params.text("platform").unwrap_or_default() {
        "" => Platform::host(),
        text => Platform::parse(text)
            .ok_or_else(|| Error::Invalid(format!("invalid platform {text:?}")))?,
    };
    let message = match params.text("message").unwrap_or_default() {
        "" => format!("Imported from {source}"),
        text => text.to_owned(),
    };
    let changes: Vec<String> = params.all("changes").map(str::to_owned).collect();
    // Said before anything is read.
    let blank = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageConfig::default()
    };
    let mut config = build::with_changes(blank, &changes)?;
    let body = match source.as_str() {
        "-" => body,
        url => download(url).await?,
    };
    let (reader, presence) = reader_of(body);
    let layer = daemon.images.import_layer(build::ForStore::new(reader)).await?;
    drop(presence);
    let now = stamp::rfc3339(stamp::now());
    config.created = Some(now.clone());
    config.rootfs.diff_ids = vec![layer.diff_id];
    config.history =
        vec![History { created: Some(now), comment: Some(message), ..History::default() }];
    let made = super::containers::detached(async move {
        let id: ImageId = daemon.images.create_image(&config, None).await?;
        if let Some(name) = &name {
            daemon.images.tag(&id, name).await?;
            tell(&daemon, "tag", &id.to_string(), &name.familiar());
        }
        tell(&daemon, "import", &id.to_string(), &id.to_string());
        Ok(id)
    });
    let id = made.await?;
    let said = line(&json!({ "status": id.to_string() }));
    let pieces = Pieces::of(|sender| async move {
        // A client that has gone does not hear it; the image is there.
        let _ = sender.send(said).await;
    });
    Ok(pieces.answer("application/json"))
}

/// A body for a thread to read, for as long as somebody is present: what is dropped with the request. An
/// address that sends a little now and then would else be read for ever, for nobody.
fn reader_of(body: Body) -> (ChannelReader, oneshot::Sender<()>) {
    let (sender, receiver) = mpsc::channel(8);
    let (presence, mut absence) = oneshot::channel();
    tokio::spawn(async move {
        let mut pieces = body.into_data_stream();
        loop {
            // Both are cancel-safe. An end without an error would pass for the end of the archive.
            let piece = tokio::select! {
                piece = pieces.next() => piece.map(|piece| piece.map_err(io::Error::other)),
                _ = &mut absence => Some(Err(io::Error::other("whoever asked for it has gone"))),
            };
            let Some(piece) = piece else { return };
            let broken = piece.is_err();
            if sender.send(piece).await.is_err() || broken {
                return;
            }
        }
    });
    (ChannelReader::new(receiver), presence)
}

/// The body behind an address; `http://` goes without saying, as in Docker.
async fn download(url: &str) -> Result<Body> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let failed = |error: reqwest::Error| {
        Error::Invalid(format!("fetching {url}: {}", crate::error::chain(&error.without_url())))
    };
    let client = build::http_client().map_err(failed)?;
    let asked = tokio::time::timeout(ANSWER, client.get(&url).send()).await;
    let answer = asked.map_err(|_| {
        Error::Invalid(format!("fetching {url}: no answer began in {} seconds", ANSWER.as_secs()))
    })?;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    Ok(Body::from_stream(answer.map_err(failed)?.bytes_stream()))
}
