//! What moves images: pull, push, load and save.
//!
//! A transfer's first line decides the answer's status: what goes wrong before it is an error with its
//! own status, what goes wrong later is a line with `error`.

use std::io::{self, Read, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use futures_util::StreamExt;
use minke_common_model::image_reference::ImageReference;
use minke_engine_client::wire::{ErrorDetail, ProgressLine, RegistryAuth};
use minke_engine_images::{
    Credentials, ErrorKind, Platform, ProgressEvent, PullOptions, PushOptions,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::images::tell;
use super::params::Params;
use super::reply::{Pieces, line};
use super::unread;
use crate::base64;
use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Lines that wait for a slow client; beyond, lines that only say how far it is are left out.
const WAITING: usize = 1024;

/// A name and a tag (or digest) as one reference.
pub(super) fn reference(name: &str, tag: &str) -> Result<ImageReference> {
    let text = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let parsed: ImageReference = text
        .parse()
        .map_err(|error| Error::Images(minke_engine_images::Error::Reference(error)))?;
    Ok(parsed.with_default_tag())
}

pub(super) fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>> {
    let Some(header) = headers.get("x-registry-auth").and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if header.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::Invalid("invalid X-Registry-Auth header".to_owned());
    let bytes = base64::decode(header).ok_or_else(invalid)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let auth: RegistryAuth = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    Ok(credentials_of(auth))
}

/// The credentials that a client has given, if any.
pub(super) fn credentials_of(auth: RegistryAuth) -> Option<Credentials> {
    match auth {
        RegistryAuth { registrytoken, .. } if !registrytoken.is_empty() => {
            Some(Credentials::RegistryToken(registrytoken))
        }
        RegistryAuth { identitytoken, .. } if !identitytoken.is_empty() => {
            Some(Credentials::IdentityToken(identitytoken))
        }
        RegistryAuth { username, password, .. } if !username.is_empty() => {
            Some(Credentials::Basic { username, password })
        }
        _ => None,
    }
}

/// Runs a transfer whose lines are the answer.
async fn transfer<F, T>(run: F) -> Result<Response<Body>>
where
    F: FnOnce(Lines) -> T,
    T: Future<Output = Result<()>> + Send + 'static,
{
    let (events, mut queue) = mpsc::channel::<Bytes>(WAITING);
    let work = run(Lines(events));
    let (verdict, first) = oneshot::channel::<Result<()>>();
    let pieces = Pieces::of(move |sender| async move {
        tokio::pin!(work);
        let mut verdict = Some(verdict);
        let result = loop {
            // Both arms are cancel-safe: the work is polled on, never dropped.
            tokio::select! {
                biased;
                Some(line) = queue.recv() => {
                    if let Some(verdict) = verdict.take() {
                        let _ = verdict.send(Ok(()));
                    }
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                result = &mut work => break result,
            }
        };
        while let Ok(line) = queue.try_recv() {
            if let Some(verdict) = verdict.take() {
                let _ = verdict.send(Ok(()));
            }
            if sender.send(line).await.is_err() {
                return;
            }
        }
        match (verdict.take(), result) {
            (Some(verdict), result) => {
                let _ = verdict.send(result);
            }
            (None, Err(error)) => {
                let _ = sender.send(error_line(&error)).await;
            }
            (None, Ok(())) => {}
        }
    });
    match first.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(pieces.answer("application/json")),
    }
}

fn error_line(error: &Error) -> Bytes {
    let message = error.message();
    line(&ProgressLine {
        error: Some(message.clone()),
        error_detail: Some(ErrorDetail { code: Some(i64::from(error.status().as_u16())), message }),
        ..ProgressLine::default()
    })
}

/// Where a transfer's lines go.
#[derive(Clone)]
struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    fn event(&self, event: &ProgressEvent) {
        // A client that is this far behind misses how far it is, never what the end is.
        let _ = self.0.try_send(line(&event.to_json()));
    }

    /// An event of a load: what is said in the end goes where a build's output goes.
    fn loading(&self, event: &ProgressEvent, quiet: bool) {
        match (event.id.is_some(), quiet) {
            (true, true) => {}
            (true, false) => self.event(event),
            (false, _) => {
                let _ = self.0.try_send(line(&json!({ "stream": event.status })));
            }
        }
    }

    async fn fail(&self, error: &Error) {
        let _ = self.0.send(error_line(error)).await;
    }

    async fn say(&self, value: &serde_json::Value) {
        let _ = self.0.send(line(value)).await;
    }
}

/// `POST /images/create`: a pull, or an import.
pub(super) async fn create(
    State(daemon): State<Daemon>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>> {
    if params.text("fromSrc").is_some_and(|source| !source.is_empty()) {
        return super::commit::import(daemon, params, body).await;
    }
    let name = params.text("fromImage").unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Invalid("neither fromImage nor fromSrc says what to take".to_owned()));
    }
    let tag = params.text("tag").unwrap_or_default();
    let whole = reference(name, tag)?;
    // A bare name stands for every tag of it.
    let all = tag.is_empty()
        && name.parse::<ImageReference>().is_ok_and(|reference| reference.is_name_only());
    let platform = match params.text("platform").unwrap_or_default() {
        "" => None,
        text => Some(
            Platform::parse(text)
                .ok_or_else(|| Error::Invalid(format!("invalid platform {text:?}")))?,
        ),
    };
    let options = PullOptions { auth: credentials(&headers)?, platform, ..daemon.pull_options() };
    transfer(move |lines| async move {
        daemon.removals.settled().await;
        daemon.volumes.settled().await;
        let wanted = match all {
            true => {
                let tags = daemon.images.tags(&whole, &options).await;
                tags.map_err(|error| denied(&whole, error))?
            }
            false => vec![whole],
        };
        for reference in wanted {
            let progress = lines.clone();
            let pulled =
                daemon.images.pull(&reference, &options, move |event| progress.event(&event));
            pulled.await.map_err(|error| denied(&reference, error))?;
            let name = reference.familiar();
            tell(&daemon, "pull", &name, &reference.familiar_name());
        }
        Ok(())
    })
    .await
}

/// An image that may not be read is answered as one that is not there, as the API says.
fn denied(reference: &ImageReference, error: minke_engine_images::Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => Error::NotFound(format!(
            "pull access denied for {}, repository does not exist or may require 'docker login': {}",
            reference.familiar_name(),
            minke_engine_images::chain(&error)
        )),
        _ => error.into(),
    }
}

/// `POST /images/{name}/push`.
pub(super) async fn push(
    daemon: &Daemon,
    name: &str,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let reference = reference(name, params.text("tag").unwrap_or_default())?;
    let options = PushOptions {
        auth: credentials(headers)?,
        insecure: daemon.options.insecure_registries.clone(),
        ..PushOptions::default()
    };
    let daemon = daemon.clone();
    transfer(move |lines| async move {
        let progress = lines.clone();
        let pushed = daemon
            .images
            .push(&reference, &options, move |event| progress.event(&event))
            .await?;
        let digest = pushed.reference.digest().map(ToString::to_string).unwrap_or_default();
        let tag = reference.tag().unwrap_or_default();
        let size = pushed.manifest_size;
        lines
            .say(&json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": size } }))
            .await;
        tell(&daemon, "push", &reference.familiar(), &reference.familiar_name());
        Ok(())
    })
    .await
}

/// `POST /images/load`: an archive of images.
pub(super) async fn load(
    State(daemon): State<Daemon>,
    params: Params,
    body: Body,
) -> Result<Response<Body>> {
    let quiet = params.flag("quiet");
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    transfer(move |lines| async move {
        daemon.removals.settled().await;
        daemon.volumes.settled().await;
        let mut feed = tokio::spawn(async move {
            let mut pieces = body.into_data_stream();
            let mut wanted = true;
            // What is not wanted any more is heard out: a client that cannot send all of it shows that,
            // and not the answer.
            while let Some(piece) = pieces.next().await {
                let broken = piece.is_err();
                wanted = wanted && sender.send(piece.map_err(io::Error::other)).await.is_ok();
                if broken {
                    return;
                }
            }
        });
        let progress = lines.clone();
        let reader = ChannelReader::new(receiver);
        let loaded = daemon.images.load(reader, move |event| progress.loading(&event, quiet)).await;
        if tokio::time::timeout(unread::LONGEST, &mut feed).await.is_err() {
            feed.abort();
        }
        let loaded = match loaded {
            Ok(loaded) => loaded,
            // As Docker: whatever is wrong with an archive is said in the answer's body.
            Err(error) => {
                lines.fail(&error.into()).await;
                return Ok(());
            }
        };
        for image in loaded {
            let names: Vec<String> = image.tags.iter().map(ImageReference::familiar).collect();
            let id = image.id.to_string();
            tell(&daemon, "load", &id, names.first().unwrap_or(&id));
        }
        Ok(())
    })
    .await
}

/// `GET /images/get?names=…`.
pub(super) async fn get_many(
    State(daemon): State<Daemon>,
    params: Params,
) -> Result<Response<Body>> {
    save(&daemon, params.all("names").map(str::to_owned).collect())
}

/// An archive of images.
pub(super) fn save(daemon: &Daemon, names: Vec<String>) -> Result<Response<Body>> {
    for name in &names {
        daemon.images.image(name)?;
    }
    let daemon = daemon.clone();
    let pieces = Pieces::whole(|sender| async move {
        let writer = ChannelWriter { sender: Arc::new(sender) };
        daemon.images.save(&names, writer).await.map_err(|error| {
            let error: Error = error.into();
            tracing::warn!(error = error.message(), "saving images broke off");
            io::Error::other(error)
        })
    });
    Ok(pieces.answer("application/x-tar"))
}

/// A body as blocking code reads it.
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl ChannelReader {
    pub(super) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> ChannelReader {
        ChannelReader { receiver, piece: Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A body as blocking code writes it.
pub(super) struct ChannelWriter {
    pub(super) sender: Arc<mpsc::Sender<Bytes>>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(256 * 1024)];
        self.sender
            .blocking_send(Bytes::copy_from_slice(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_a_digest_and_latest_goes_without_saying() {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        assert_eq!(reference("busybox", "").unwrap().familiar(), "busybox:latest");
        assert_eq!(reference("a/b", "v1").unwrap().to_string(), "docker.io/a/b:v1");
        assert_eq!(reference("a/b", digest).unwrap().familiar(), format!("a/b@{digest}"));
        assert!(reference("A B", "").is_err());
    }

    #[test]
    fn credentials_come_from_the_header() {
        let header = |json: &str| {
            let mut headers = HeaderMap::new();
            let text = json.to_owned();
            headers.insert("x-registry-auth", encode(text.as_bytes()).parse().unwrap());
            credentials(&headers).unwrap()
        };
        let token = Some(Credentials::RegistryToken("t".to_owned()));
        assert_eq!(header(r#"{"registrytoken":"t","username":"u"}"#), token);
        let basic = Credentials::Basic { username: "u".to_owned(), password: "p".to_owned() };
        assert_eq!(header(r#"{"username":"u","password":"p"}"#), Some(basic));
        assert_eq!(header("{}"), None);
    }

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: Vec<u8> =
            bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
        let digit = |six: &[u8]| {
            let value = (0..6).fold(0, |v, i| v << 1 | six.get(i).copied().unwrap_or(0));
            DIGITS[usize::from(value)] as char
        };
        bits.chunks(6).map(digit).collect()
    }
}
