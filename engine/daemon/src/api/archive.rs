//! `/containers/{id}/archive` and `/changes`: files in and out of containers.
//!
//! A container's paths are looked up by a thread that sees the container's files and nothing else
//! ([`view`]): no link and no race with the container's processes can lead it to the host's.

mod changes;
pub(super) mod inside;
mod pack;
mod unpack;
mod view;

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::params::Params;
use super::reply::Pieces;
use super::transfer::{ChannelReader, ChannelWriter};
use crate::containers::container::Container;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use inside::Place;
use unpack::Unpacking;

pub(super) use changes::changes;

/// Bytes that may come after the end of an archive: tar pads to 10 KiB, other programs to more.
const MOST_AFTER_END: usize = 1 << 20;
const STAT_HEADER: &str = "x-docker-container-path-stat";

fn wanted_path(params: &Params) -> Result<String> {
    match params.text("path") {
        None | Some("") => Err(Error::Invalid("bad parameter: path cannot be empty".to_owned())),
        Some(path) if path.contains('\0') => {
            Err(Error::Invalid("bad parameter: path has a null byte".to_owned()))
        }
        Some(path) => Ok(path.to_owned()),
    }
}

/// Says a failure inside the container in Docker's words.
fn failed(path: &str, container: &Container, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(format!(
            "Could not find the file {path} in container {}",
            container.name()
        )),
        io::ErrorKind::NotADirectory => {
            Error::Invalid(format!("extraction point is not a directory: {path}"))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::Invalid(format!("{path}: {error}"))
        }
        io::ErrorKind::ReadOnlyFilesystem => Error::Forbidden(format!(
            "container rootfs or mounted volume is marked read-only: {path}"
        )),
        _ => Error::File { doing: "reaching in the container", path: path.into(), source: error },
    }
}

pub(super) async fn head(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let path = wanted_path(&params)?;
    let place = Place::find(&daemon, &container, &path).await?;
    let stat = stat(&place, &path).await;
    place.leave().await;
    let mut response = Response::new(Body::empty());
    set_stat(&mut response, &stat.map_err(|error| failed(&path, &container, error))?);
    Ok(response)
}

async fn stat(place: &Place, asked: &str) -> io::Result<pack::Stat> {
    let (inner, asked) = (place.path.clone(), asked.to_owned());
    place.run(move || pack::stat(&inner, asked.as_ref())).await
}

fn set_stat(response: &mut Response<Body>, stat: &pack::Stat) {
    if let Ok(value) = HeaderValue::from_str(&stat.header()) {
        response.headers_mut().insert(STAT_HEADER, value);
    }
}

pub(super) async fn get(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let path = wanted_path(&params)?;
    let place = Place::find(&daemon, &container, &path).await?;
    let stat = match stat(&place, &path).await {
        Ok(stat) => stat,
        Err(error) => {
            place.leave().await;
            return Err(failed(&path, &container, error));
        }
    };
    let pieces = Pieces::whole(|sender| async move {
        let writer = ChannelWriter { sender: Arc::new(sender) };
        let inner = place.path.clone();
        let name = pack::entry_name(&path);
        let users = place.users;
        let packed = place.run(move || pack::pack(&inner, &name, writer, users)).await;
        if let Err(error) = &packed {
            tracing::warn!(path, %error, "copying out of a container broke off");
        }
        place.leave().await;
        packed
    });
    let mut response = pieces.answer("application/x-tar");
    set_stat(&mut response, &stat);
    Ok(response)
}

/// Packs a whole root file system.
pub(super) async fn pack_root(
    place: &Place,
    writer: impl io::Write + Send + 'static,
) -> io::Result<()> {
    let users = place.users;
    place.run(move || pack::pack(std::path::Path::new("/"), "", writer, users)).await
}

pub(super) async fn put(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<StatusCode> {
    let container = daemon.containers.find(&id)?;
    let path = wanted_path(&params)?;
    let place = Place::find(&daemon, &container, &path).await?;
    let (receiver, feed) = receive(body);
    let own = params.flag("copyUIDGID").then(|| container.lock().config.config.user.clone());
    let how = Unpacking {
        keep_kinds: params.flag("noOverwriteDirNonDir"),
        users: place.users,
        owner: own.filter(|user| !user.is_empty()),
    };
    let result = unpack(&place, ChannelReader::new(receiver), how).await;
    match &result {
        // It ends with the body, or when the client goes away.
        Ok(()) => drop(feed.await),
        Err(_) => feed.abort(),
    }
    place.leave().await;
    result.map_err(|error| failed(&path, &container, error))?;
    Ok(StatusCode::OK)
}

/// Feeds a body to a thread.
fn receive(body: Body) -> (mpsc::Receiver<io::Result<Bytes>>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(8);
    let feed = tokio::spawn(async move {
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            if sender.send(piece.map_err(io::Error::other)).await.is_err() {
                break;
            }
        }
        // An archive says where it ends; a client that is still writing what comes after it would take
        // a closed connection for a failure.
        let mut after = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            after += piece.len();
            if after > MOST_AFTER_END {
                return;
            }
        }
    });
    (receiver, feed)
}

async fn unpack(place: &Place, body: ChannelReader, how: Unpacking) -> io::Result<()> {
    let inner = place.path.clone();
    place.run(move || unpack::check(&inner)).await?;
    let plain = tokio::task::spawn_blocking(move || crate::build::plain(body));
    let plain = plain.await.map_err(io::Error::other)??;
    let inner = place.path.clone();
    place.run(move || unpack::unpack(&inner, plain, &how)).await
}
