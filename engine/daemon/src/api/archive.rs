//! `/containers/{id}/archive` and `/changes`: files in and out of containers.
//!
//! A container's paths are looked up by a thread whose root is the container's own: no link and no race
//! with the container's processes can lead it to the host's files.

pub(super) mod inside;
mod pack;
mod unpack;

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use super::params::Params;
use super::reply::{Pieces, json as reply};
use super::transfer::{ChannelReader, ChannelWriter};
use crate::containers::container::Container;
use crate::containers::traces;
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use inside::{Place, in_root};
use unpack::Unpacking;

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
    let (inner, asked) = (place.path.clone(), path.clone());
    let stat = in_root(&place, move || pack::stat(&inner, asked.as_ref())).await;
    let mut response = Response::new(Body::empty());
    set_stat(&mut response, &stat.map_err(|error| failed(&path, &container, error))?);
    Ok(response)
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
    let (inner, asked) = (place.path.clone(), path.clone());
    let stat = in_root(&place, move || pack::stat(&inner, asked.as_ref())).await;
    let stat = stat.map_err(|error| failed(&path, &container, error))?;
    let pieces = Pieces::of(|sender| async move {
        let writer = ChannelWriter { sender: Arc::new(sender) };
        let inner = place.path.clone();
        let name = pack::entry_name(&path);
        let users = place.users;
        if let Err(error) = in_root(&place, move || pack::pack(&inner, &name, writer, users)).await
        {
            tracing::warn!(path, %error, "copying out of a container broke off");
        }
        place.leave().await;
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
    in_root(place, move || pack::pack(std::path::Path::new("/"), "/", writer, users)).await
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
    if place.read_only {
        return Err(Error::Forbidden("container rootfs is marked read-only".to_owned()));
    }
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
    let inner = place.path.clone();
    let own = params.flag("copyUIDGID").then(|| container.lock().config.config.user.clone());
    let how = Unpacking {
        keep_kinds: params.flag("noOverwriteDirNonDir"),
        users: place.users,
        owner: own.filter(|user| !user.is_empty()),
    };
    let reader = ChannelReader::new(receiver);
    let result = in_root(&place, move || unpack::unpack(&inner, reader, &how)).await;
    match &result {
        // It ends with the body, or when the client goes away.
        Ok(()) => drop(feed.await),
        Err(_) => feed.abort(),
    }
    place.leave().await;
    result.map_err(|error| failed(&path, &container, error))?;
    Ok(StatusCode::OK)
}

/// How a container differs from its image.
pub(super) async fn changes(
    State(daemon): State<Daemon>,
    Path(id): Path<String>,
) -> Result<Response<Body>> {
    let container = daemon.containers.find(&id)?;
    let image = container.lock().config.image_id.clone();
    let image = image.parse().map_err(Error::system("reading the image's id"))?;
    let lower = daemon.images.lower_dirs(&image)?;
    let upper = container.dir.join("upper");
    let traces = traces::of_mounts(&daemon, &container)?;
    let walked = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        walk(&upper, &lower, PathBuf::from("/"), &mut found).map(|()| found)
    });
    let found = walked.await.map_err(Error::system("comparing files"))?;
    let mut found = found.map_err(Error::file("reading", container.dir.join("upper")))?;
    found.retain(|(path, _)| !traces.contains(path.strip_prefix("/").unwrap_or(path)));
    let rows = found.iter().map(|(path, kind)| json!({ "Path": path, "Kind": kind }));
    Ok(reply(&rows.collect::<Vec<_>>()))
}

fn walk(
    upper: &std::path::Path,
    lower: &[PathBuf],
    path: PathBuf,
    found: &mut Vec<(PathBuf, u8)>,
) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(upper)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = path.join(entry.file_name());
        let metadata = entry.metadata()?;
        let relative = path.strip_prefix("/").unwrap_or(&path);
        let in_image = lower.iter().any(|dir| dir.join(relative).symlink_metadata().is_ok());
        let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
        let kind = match (whiteout, in_image) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        found.push((path.clone(), kind));
        if metadata.is_dir() {
            walk(&entry.path(), lower, path, found)?;
        }
    }
    Ok(())
}
