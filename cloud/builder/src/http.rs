//! `POST /v3/build`.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::archive::{self, Unpacked};
use crate::builder::Builder;
use crate::limits::Limits;
use crate::message::Output;
use crate::ports::{Credential, Fleet, ReleaseError};
use crate::push::{Asked, Push, Record};
use crate::report;

/// How long the rest of a refused archive is read and thrown away, so that the caller reads why.
const DRAIN: Duration = Duration::from_secs(20);

/// The builder's routes. No body limit may be laid around them: archives are bounded by [`Limits`].
pub fn router(builder: Builder) -> Router {
    Router::new()
        .route("/v3/build", post(build))
        .route("/v3/buildFromUrl", post(build_from_url))
        .with_state(builder)
}

/// A body, piece by piece.
type Pieced = BoxStream<'static, Result<Bytes, axum::Error>>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildQuery {
    #[serde(default)]
    slug: String,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    app: String,
    #[serde(default)]
    dockerfile_path: String,
    #[serde(default)]
    nocache: String,
    #[serde(default)]
    headless: String,
    #[serde(default)]
    isdraft: String,
}

fn yes(text: &str) -> bool {
    matches!(text, "true" | "1")
}

fn refusal(error: ReleaseError) -> Response {
    let status = match &error {
        ReleaseError::Unauthorized => StatusCode::UNAUTHORIZED,
        ReleaseError::NoFleet(_) => StatusCode::NOT_FOUND,
        ReleaseError::Refused(_) => StatusCode::BAD_REQUEST,
        ReleaseError::Failed(source) => {
            tracing::error!(%source, "the builder cannot look up a fleet");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, error.to_string()).into_response()
}

async fn build(
    State(builder): State<Builder>,
    Query(query): Query<BuildQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    let Some(bearer) = bearer else { return refusal(ReleaseError::Unauthorized) };
    let credential = Credential { bearer: bearer.trim().to_owned() };
    let slug = match query.slug.is_empty() {
        true => format!("{}/{}", query.owner, query.app),
        false => query.slug.clone(),
    };
    let fleet = match builder.releases().fleet(&credential, &slug).await {
        Ok(fleet) => fleet,
        Err(error) => return refusal(error),
    };
    let asked = Asked {
        dockerfile: query.dockerfile_path.trim_start_matches("./").to_owned(),
        no_cache: yes(&query.nocache),
        draft: yes(&query.isdraft),
    };
    match yes(&query.headless) {
        true => headless(builder, fleet, asked, body).await,
        false => streamed(builder, fleet, asked, body).await,
    }
}

async fn build_from_url() -> Response {
    let message = "building from a URL is not supported: push the project's files";
    let body = json!({ "started": false, "error": "Unsupported", "message": message });
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}

/// The answer begins with the first piece of the project and goes on while the rest is received and
/// built.
async fn streamed(builder: Builder, fleet: Fleet, asked: Asked, body: Body) -> Response {
    let (output, receiver) = Output::streamed(builder.limits().log);
    let mut body = body.into_data_stream();
    // A client that asks whether it may send (`Expect: 100-continue`) is told so by this first read; an
    // answer before it would make the client wait.
    let stall = builder.limits().stall;
    let first = tokio::time::timeout(stall, body.next()).await.unwrap_or_else(|_| {
        let text = format!("nothing arrived for {stall:?}; that is the limit");
        Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, text))))
    });
    let mut body = futures_util::stream::iter(first).chain(body).boxed();
    tokio::spawn(async move {
        let end = output.clone();
        if let Err(text) = receive_and_run(&builder, fleet, asked, &mut body, &output, None).await {
            tracing::debug!(text, "a push ended without a release");
            let rest = async { while let Some(Ok(_)) = body.next().await {} };
            let _ = tokio::time::timeout(DRAIN, rest).await;
        }
        end.finish().await;
    });
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<Bytes, io::Error>(piece), receiver))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

/// The answer is one object, given once there is a release or a reason against it.
async fn headless(builder: Builder, fleet: Fleet, asked: Asked, body: Body) -> Response {
    let output = Output::silent(builder.limits().log);
    let (started, release) = oneshot::channel();
    let (failed, reason) = oneshot::channel();
    tokio::spawn(async move {
        let mut body = body.into_data_stream().boxed();
        let result =
            receive_and_run(&builder, fleet, asked, &mut body, &output, Some(started)).await;
        if let Err(text) = result {
            let _ = failed.send(text);
        }
    });
    let answer = match release.await {
        Ok(id) => json!({ "started": true, "releaseId": id }),
        Err(_) => {
            let message = reason.await.unwrap_or_else(|_| "the build ended early".into());
            json!({ "started": false, "error": "BuildError", "message": message })
        }
    };
    Json(answer).into_response()
}

async fn receive_and_run(
    builder: &Builder,
    fleet: Fleet,
    asked: Asked,
    body: &mut Pieced,
    output: &Output,
    started: Option<oneshot::Sender<i64>>,
) -> Result<(), String> {
    let Some(_place) = builder.place() else {
        let text = "the builder is busy with other pushes; try again in a minute";
        output.error(text).await;
        return Err(text.to_owned());
    };
    output.info(format!("Starting build for {} ({})", fleet.slug, fleet.device_type)).await;
    let begun = Instant::now();
    let received = receive(builder, body).await;
    let (directory, unpacked) = match received {
        Ok(received) => received,
        Err(text) => {
            output.error(&text).await;
            return Err(text);
        }
    };
    output
        .info(format!("Received {} files, {}", unpacked.files, report::size(unpacked.bytes)))
        .await;
    let push = Push {
        builder: builder.clone(),
        fleet,
        asked,
        output: output.clone(),
        record: Arc::new(Mutex::new(Record::default())),
        started: Mutex::new(started),
        received: begun.elapsed(),
    };
    let result = push.run(directory.path()).await;
    // Thousands of files may go; not on this thread.
    tokio::task::spawn_blocking(move || drop(directory));
    result
}

/// Unpacks the body into a directory of its own while it arrives.
async fn receive(builder: &Builder, body: &mut Pieced) -> Result<(TempDir, Unpacked), String> {
    let directory = builder.directory().map_err(|e| format!("making a directory: {e}"))?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(16);
    let limits = builder.limits().clone();
    let path = directory.path().to_owned();
    let unpacking = tokio::task::spawn_blocking(move || unpack(receiver, &path, &limits));
    forward(body, sender, builder.limits()).await;
    match unpacking.await {
        Ok(Ok(unpacked)) => Ok((directory, unpacked)),
        Ok(Err(text)) => Err(text),
        Err(error) => Err(format!("unpacking: {error}")),
    }
}

fn unpack(
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    path: &Path,
    limits: &Limits,
) -> Result<Unpacked, String> {
    let mut source = Pieces { receiver, piece: Bytes::new(), total: 0, broken: None };
    let result = archive::unpack(&mut source, path, limits);
    let broken = source.broken.take();
    // What follows the archive's end mark is read too, or the sender would meet a closed door.
    let drained = io::copy(&mut source.by_ref().take(1 << 20), &mut io::sink());
    if source.total > limits.sent {
        return Err(format!("the archive has more than {} bytes; that is the limit", limits.sent));
    }
    // The unpacking only knows that the archive has no end.
    if let Some(why) = broken {
        return Err(format!("receiving the project: {why}"));
    }
    let unpacked = result.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    drained.map_err(|error| format!("receiving the project: {error}"))?;
    Ok(unpacked)
}

/// Hands the body over within its time: whoever sends a little now and then would keep the place of
/// another push for ever.
async fn forward(body: &mut Pieced, sender: mpsc::Sender<io::Result<Bytes>>, limits: &Limits) {
    let limit = limits.receive;
    let whole = tokio::time::timeout(limit, hand_over(body, &sender, limits.stall));
    if whole.await.is_err() {
        let text = format!("it was not all here after {limit:?}; that is the limit");
        // Nobody listens when the archive was refused already.
        let _ = sender.send(Err(io::Error::new(io::ErrorKind::TimedOut, text))).await;
    }
}

/// Hands the body over piece by piece; a pause that is too long is an error.
async fn hand_over(body: &mut Pieced, sender: &mpsc::Sender<io::Result<Bytes>>, stall: Duration) {
    loop {
        let piece = match tokio::time::timeout(stall, body.next()).await {
            Ok(None) => return,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => {
                let text = format!("nothing arrived for {stall:?}; that is the limit");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        };
        let last = piece.is_err();
        if sender.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// The pieces of a body as a blocking reader.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    total: u64,
    /// Why no more comes, where that is an error.
    broken: Option<String>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    self.broken = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        self.total += count as u64;
        Ok(count)
    }
}
